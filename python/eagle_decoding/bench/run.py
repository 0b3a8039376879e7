"""Runs the benchmark: every method on every question, in turns, as often as asked; resumes what is there."""

import hashlib
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.measure import Measurement
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from torch import Tensor

from eagle_decoding.bench.journal import Journal
from eagle_decoding.bench.measure import CHECK, Key, measure
from eagle_decoding.bench.methods import PLAIN, RIVALS, catalogue, choose, load_method
from eagle_decoding.bench.questions import read_questions
from eagle_decoding.bench.report import tables, write_reports
from eagle_decoding.bench.summary import complete, summarise
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts import read_spelling
from eagle_decoding.generation import at_temperature, end_tokens
from eagle_decoding.machine import machine, without_folders
from eagle_decoding.terminal.console import err, notice, out
from eagle_decoding.terminal.models import Models, bundled_head, load_models
from eagle_decoding.train.results import fingerprint

BUNDLED = "SmolLM2-135M-Instruct"  # the target where none is given
WARM_UP = 12  # tokens


@dataclass(frozen=True)
class Settings:
    """What is measured; see the command's help."""

    target: str | None
    drafts: tuple[str, ...]
    prompts: int
    max_new_tokens: int
    runs: int
    temperatures: tuple[float, ...]
    dtype: str
    draft_dtype: str | None
    threads: int | None
    minutes: float | None
    device: str

    def named_drafts(self) -> dict[str, str]:
        """Name -> directory or hub id, by default the bundled head. Raises ValueError for a draft without a name."""
        if not self.drafts:
            if self.target is not None:
                return {}
            return {"eagle-3": str(bundled_head())}
        pairs = [draft.partition("=") for draft in self.drafts]
        for name, equals, source in pairs:
            if not (name and equals and source):
                raise ValueError(f"--draft {name}{equals}{source} must be NAME=SOURCE, like eagle-3=heads/mine.")
        return {name: source for name, _, source in pairs}


def run_bench(settings: Settings, wanted: str, data: Path, folder: Path) -> None:
    """Measures, prints the table and writes it.

    Raises ValueError, before anything is measured, for what cannot be found, does not fit or was measured otherwise.
    """
    questions = read_questions(data, settings.prompts)
    specs = choose(wanted, catalogue(settings.named_drafts()))
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    files = b"".join(file.read_bytes() for file in sorted(data.glob("*.jsonl")))
    shared = {
        "target": settings.target or BUNDLED,
        "dtype": settings.dtype,
        "draft_dtype": settings.draft_dtype,
        "max_new_tokens": settings.max_new_tokens,
        "threads": torch.get_num_threads(),
        "device": settings.device,
        "questions": hashlib.sha256(files).hexdigest()[:16],
    }
    marks = {name: spec if name in (*RIVALS, PLAIN) else marked(spec) for name, spec in specs.items()}
    minutes = math.inf if settings.minutes is None else settings.minutes
    journal, deadline = Journal(folder, shared), time.monotonic() + 60 * minutes
    texts = {(file, question): text for file, some in questions.items() for question, text in enumerate(some)}
    checks, keys = plan(settings, list(texts), list(specs))
    for dtype, asked in (("float32", checks), (settings.dtype, keys)):
        missing = [key for key in asked if not journal.known(key, marks[key.method])]
        if missing:
            models = load_models(settings.target, None, dtype, TreeConfig(), speculate=False, device=settings.device)
            fill(journal, missing, specs, marks, models, texts, settings, deadline)
    left = sum(key not in journal.records for key in (*checks, *keys))
    if left:
        notice(f"Out of time: {left} of {len(checks) + len(keys)} generations are left, the same command goes on.")
    rows = summarise(complete(journal.records, (*checks, *keys)))
    if not rows:
        raise ValueError(f"{minutes:g} minutes are too few for one question by every method: raise --minutes.")
    for table in tables(rows):
        table.width = Measurement.get(out, out.options.update(max_width=1000), table).maximum
        out.print(table, crop=False)  # a narrow terminal wraps lines, and loses nothing
    facts = shared | {
        "target": without_folders(settings.target or BUNDLED),
        "machine": machine(settings.device),
        "prompts": settings.prompts,
        "runs": settings.runs,
        "methods": {name: without_folders(spec) for name, spec in specs.items()},
    }
    notice("Written: " + ", ".join(str(path) for path in write_reports(folder, rows, facts)))


def plan(settings: Settings, questions: list[tuple[str, int]], methods: list[str]) -> tuple[list[Key], list[Key]]:
    """What to generate: each file's first question in fp32, to compare texts; then everything that is timed."""
    checks = [Key(CHECK, 0.0, file, question, name) for file, question in questions if not question for name in methods]
    timed = [
        Key(run, temperature, file, question, name)
        for run in range(settings.runs)
        for temperature in settings.temperatures
        for file, question in questions
        for name in methods
    ]
    return checks, timed


def fill(
    journal: Journal,
    missing: list[Key],
    specs: dict[str, str],
    marks: dict[str, str],
    models: Models,
    texts: dict[tuple[str, int], str],
    settings: Settings,
    deadline: float,
) -> None:
    """Measures what is missing, after a short warm-up of each method, until the clock shows the deadline."""
    target, methods = models.decoder.target, dict.fromkeys(key.method for key in missing)
    loaded = {name: load_method(name, specs[name], target, settings.draft_dtype) for name in methods}
    ends = end_tokens(target)
    prompts = fitting(models, texts, settings.max_new_tokens)
    hello = models.encode_prompt("Hello", None)["input_ids"]
    short = at_temperature(0.0) | {"max_new_tokens": WARM_UP}
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("warming up", total=len(missing))
        for method in loaded.values():
            measure(method, Key(0, 0.0, "", 0, method.name), hello, short, ends)
        for key in missing:
            if time.monotonic() > deadline:
                return
            run = "fp32 check" if key.run == CHECK else f"run {key.run + 1}"
            progress.update(task, description=f"{run}, T={key.temperature:g}, {key.file}, {key.method}")
            prompt = prompts[key.file, key.question]
            arguments = at_temperature(key.temperature) | {"max_new_tokens": settings.max_new_tokens}
            journal.add(replace(measure(loaded[key.method], key, prompt, arguments, ends), spec=marks[key.method]))
            progress.advance(task)


def marked(spec: str) -> str:
    """A spec with a hash of the files that it names, so that other files under the same name are another draft.

    Raises ValueError for a draft that is neither here nor on the hub.
    """
    directory = read_spelling(spec).directory
    return spec if directory is None else f"{spec} {fingerprint(directory)}"


def fitting(models: Models, texts: dict[tuple[str, int], str], max_new_tokens: int) -> dict[tuple[str, int], Tensor]:
    """Every question as tokens. Raises ValueError for one that leaves no room for its answer in the context."""
    context = models.decoder.target.config.max_position_embeddings
    prompts = {place: models.encode_prompt(text, None)["input_ids"] for place, text in texts.items()}
    for (file, question), prompt in prompts.items():
        if prompt.shape[1] + max_new_tokens > context:
            raise ValueError(
                f"Question {question + 1} of {file} has {prompt.shape[1]} tokens, which with {max_new_tokens} new ones "
                f"are more than the target's {context}: shorten it or lower --max-new-tokens."
            )
    return prompts

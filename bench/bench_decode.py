"""Decoding against the clock: transformers' generate, plain and compiled, and decoding here, plain and speculative.

python -m bench.bench_decode TARGET HEAD --data DIR [--prompts 4] [--new-tokens 64] [--trees 12/4/4,5/4/1] [--out FILE]

Same prompts, same weights, same machine, arms interleaved prompt by prompt, batch 1. Time counts from the first new
token to the last, so that the prompt's forward is excluded (it is reported). On a GPU a call that captures a graph
contains that; speed without it is reported too.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import track
from torch import Tensor

from bench import command
from bench.arms import BASELINES, Arm, Clock, baseline, parse_tree, speculative, warmed_up
from bench.console import console
from bench.decode_report import decode_tables
from bench.machine import machine
from bench.prompts import chat_prompt, prompts_of
from bench.results_file import write_json
from bench.rounds import Acceptance, LoggedRound
from eagle_decoding.stats import Stats
from eagle_decoding.terminal.models import device_named, load_models

WARM_UP_TOKENS = 8


@dataclass
class Measurement:
    """Sums over the prompts of one file for one arm; seconds exclude the prompt's forward.

    phases: seconds by phase of our own decoders, the prompt's forward among them
    """

    prompts: int = 0
    tokens: int = 0
    seconds: float = 0.0
    prefill_seconds: float = 0.0
    rounds: int = 0
    phases: dict[str, float] = field(default_factory=dict)
    acceptance: Acceptance = field(default_factory=Acceptance)

    def add(self, clock: Clock, stats: Stats | None, rounds: list[LoggedRound]) -> None:
        self.prompts += 1
        self.tokens += clock.steps
        self.seconds += clock.decode
        self.prefill_seconds += clock.prefill
        if stats is not None:
            self.rounds += stats.rounds
            self.phases = dict(Counter(self.phases) + Counter(stats.seconds))
            self.acceptance.add(rounds)


def main(
    target: str,
    head: str,
    data: Annotated[Path, typer.Option(help="Folder of question files (.jsonl).")],
    prompts: Annotated[int, typer.Option(help="Questions of each file.")] = 4,
    new_tokens: int = 64,
    dtype: str = "bfloat16",
    trees: Annotated[str, typer.Option(help="nodes/depth/topk, a list; topk 1 drafts a chain.")] = "12/4/4,5/4/1",
    baselines: Annotated[str, typer.Option(help="A list.")] = ",".join(BASELINES),
    temperature: Annotated[float, typer.Option(help="0 decodes greedily; else arms sample, top-k 50, one seed.")] = 0.0,
    threads: int | None = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda.", show_default="cuda where there is one, else cpu")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
) -> None:
    if threads:
        torch.set_num_threads(threads)
    models = load_models(target, None, dtype, None, speculate=False, device=device_named(device))
    model, tokenizer = models.decoder.target, models.tokenizer
    limit = model.config.max_position_embeddings - new_tokens
    if limit < 1:
        raise ValueError(
            f"--new-tokens {new_tokens} leaves no room for a prompt: give fewer than {limit + new_tokens}."
        )
    found, num_cut = prompts_of(tokenizer, data, prompts, limit)
    cases = [(name, prompt.to(model.device)) for name, _, prompt in found]
    settings: dict[str, Any] = {"max_new_tokens": new_tokens, "do_sample": temperature > 0}
    settings |= {"temperature": temperature} if temperature > 0 else {}
    longest = max(prompt.shape[1] for _, prompt in cases) + new_tokens
    arms = [baseline(name, model, longest) for name in baselines.split(",") if name]
    arms += [speculative(model, head, parse_tree(text)) for text in trees.split(",")]
    arms, notes = able(arms, chat_prompt(tokenizer, "Hello").to(model.device), settings)
    files: dict[str, dict[str, Measurement]] = {}
    equal_texts = Counter[str]()
    for name, prompt in track(cases, description="decoding", transient=True):
        by_arm = files.setdefault(name, {arm.name: Measurement() for arm in arms})
        texts = {}
        for arm in arms:
            clock, stats, rounds = arm.run(prompt, settings)
            by_arm[arm.name].add(clock, stats, rounds)
            texts[arm.name] = clock.tokens
        equal_texts.update(arm for arm, text in texts.items() if text == texts.get("plain"))
    facts = machine(model.device.type) | {
        "target": Path(target).name,
        "head": Path(head).name,
        "dtype": dtype,
        "trees": trees.split(","),
        "temperature": temperature,
        "new_tokens": new_tokens,
        "prompts": len(cases),
        "cut_prompts": num_cut,
        "notes": notes,
    }
    result = {
        "machine": facts,
        "files": {name: {arm: asdict(m) for arm, m in by_arm.items()} for name, by_arm in files.items()},
    }
    if "plain" in (arm.name for arm in arms):
        result["equal_texts"] = {arm.name: equal_texts[arm.name] / len(cases) for arm in arms}
    if out is not None:
        write_json(result, out)
    console().print(decode_tables(result))


def able(arms: list[Arm], prompt: Tensor, settings: dict[str, Any]) -> tuple[list[Arm], dict[str, str]]:
    """The arms that run here, and notes on one-time costs and on those that do not, by arm."""
    kept, notes = [], {}
    for arm in arms:
        try:
            seconds = warmed_up(arm, prompt, settings, WARM_UP_TOKENS)
        except Exception as error:
            if arm.name != "compiled":
                raise
            notes[arm.name] = f"not measured, torch.compile failed here: {str(error).strip().splitlines()[0][:200]}"
            continue
        if arm.name == "compiled":
            notes[arm.name] = f"static cache and torch.compile; the first call took {seconds:.0f} s to compile"
        kept.append(arm)
    return kept, notes


if __name__ == "__main__":
    command.run(main)

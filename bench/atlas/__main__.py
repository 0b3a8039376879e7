"""Makes an acceptance atlas: python -m bench.atlas TARGET HEAD QUESTIONS [--prompts 4] [--out atlas.json].

Decodes the first questions of every .jsonl file with the head, greedily, and keeps each round. The JSON file holds the
counts and the rounds; the page is one HTML file without anything external: charts, and every tree to step through.
"""

import math
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import track
from rich.table import Table

from bench import command
from bench.arms import parse_tree
from bench.atlas.counts import Answer, acceptance, atlas_counts
from bench.atlas.page import render
from bench.console import console
from bench.machine import machine
from bench.metrics import average_acceptance_length
from bench.prompts import prompts_of
from bench.results_file import write_json
from bench.rounds import LoggedRound, RoundLog
from eagle_decoding.files import write_text
from eagle_decoding.terminal.models import load_models


def main(
    target: str,
    head: str,
    questions: Annotated[Path, typer.Argument(help="Folder of question files (.jsonl).")],
    prompts: Annotated[int, typer.Option(help="Questions of each file.")] = 4,
    new_tokens: int = 64,
    tree: Annotated[str, typer.Option(help="nodes/depth/topk.")] = "24/5/4",
    dtype: str = "bfloat16",
    threads: int | None = None,
    out: Path = Path("atlas.json"),
    page: Annotated[Path | None, typer.Option(help="HTML file, beside the JSON file by default.")] = None,
) -> None:
    if threads:
        torch.set_num_threads(threads)
    models = load_models(target, head, dtype, parse_tree(tree))
    decoder, tokenizer = models.decoder, models.tokenizer
    decoder.draft = RoundLog(decoder.draft)
    limit = decoder.target.config.max_position_embeddings - new_tokens
    asked, num_cut = prompts_of(tokenizer, questions, prompts, limit)
    answers = []
    for name, text, prompt in track(asked, description="decoding", transient=True):
        decoder.generate(prompt, max_new_tokens=new_tokens, do_sample=False)
        answers.append(Answer(name, text, prompt.shape[1], decoder.draft.finish(decoder.stats)))
    facts = machine(decoder.target.device.type) | {
        "target": Path(target).name,
        "head": Path(head).name,
        "tree": tree,
        "cut_prompts": num_cut,
    }
    atlas = build_atlas(answers, tokenizer, facts)
    write_json(atlas, out)
    page = page or out.with_suffix(".html")
    write_text(page, render(atlas))
    console().print(*axis_tables(atlas))
    print(f"{out} and {page} written.")


def build_atlas(answers: list[Answer], tokenizer: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """Everything that the page shows: facts, tau, counts by axis, and the rounds with the text of their tokens."""
    texts: dict[int, str] = {}

    def text(token: int) -> str:
        return texts.setdefault(token, tokenizer.decode([token]))

    counted = acceptance(answers)
    return {
        "machine": facts,
        "tau": average_acceptance_length(counted),
        "rounds": counted.rounds,
        "counts": atlas_counts(answers, text),
        "answers": [
            {
                "file": answer.file,
                "question": answer.question[:500],
                "rounds": [round_record(logged, text) for logged in answer.rounds],
            }
            for answer in answers
        ],
    }


def round_record(logged: LoggedRound, text: Any) -> dict[str, Any]:
    """tokens as text; p: the draft's probability of each node after its parent, None at the root."""
    scores = logged.scores
    steps = list(enumerate(logged.parents))
    return {
        "tokens": [text(token) for token in logged.tokens],
        "parents": logged.parents,
        "p": scores and [round(math.exp(scores[node] - scores[up]), 3) if up >= 0 else 1.0 for node, up in steps],
        "path": logged.path,
        "bonus": text(logged.bonus_token),
    }


def axis_tables(atlas: dict[str, Any]) -> list[Table]:
    tables = []
    for axis, rows in atlas["counts"].items():
        table = Table(axis, "tested", "accepted", "share", title=f"Acceptance by {axis}", title_justify="left")
        for label, tested, accepted in rows:
            table.add_row(label, str(tested), str(accepted), f"{accepted / tested:.2f}")
        tables.append(table)
    return tables


if __name__ == "__main__":
    command.run(main)

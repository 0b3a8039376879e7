"""What serving an EAGLE head in fp8 changes: tokens per round, logits, bytes, time to draft, against wide weights.

python -m bench.fp8_head TARGET HEAD --data DIR [--prompts 3] [--new-tokens 64] [--tree 24/6/4] [--out FILE]

Greedy, so that both heads decode one text, which is checked. Each question is decoded first with the fp8 head reading
along, whose logits at the roots are compared, and then by the clock with each head in turns.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import track
from rich.table import Table
from torch import Tensor
from transformers import AutoTokenizer

from bench import command
from bench.arms import parse_tree
from bench.console import console
from bench.machine import machine
from bench.prompts import chat_prompt
from bench.results_file import write_json
from bench.spread import spread
from eagle_decoding import SpeculativeDecoder
from eagle_decoding.bench.questions import read_questions
from eagle_decoding.drafts import Commit, load_draft
from eagle_decoding.drafts.layer_draft import LayerDraft
from eagle_decoding.matrix import FP8, Matrix
from eagle_decoding.target import load_target


class ReadAlong:
    """A draft, and a second one that reads the same commits; keeps both's logits for the children of each root."""

    def __init__(self, draft: LayerDraft, other: LayerDraft):
        self.draft, self.other = draft, other
        self.logits: list[tuple[Tensor, Tensor]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.draft, name)

    def start(self, *request: Any) -> None:
        self.draft.start(*request)
        self.other.start(*request)

    def extend(self, commit: Commit) -> None:
        self.draft.extend(commit)
        self.other.extend(commit)
        first, second = (draft.logits(draft.root_state)[0, 0].float() for draft in (self.draft, self.other))
        self.logits.append((first, second))


def matrices(draft: LayerDraft) -> Iterator[Matrix]:
    for holder in (draft, draft.layer):
        yield from (value for value in vars(holder).values() if isinstance(value, Matrix))


def main(
    target: str,
    head: str,
    data: Annotated[Path, typer.Option(help="Folder of question files (.jsonl).")],
    prompts: Annotated[int, typer.Option(help="Questions of each file.")] = 3,
    new_tokens: int = 64,
    tree: Annotated[str, typer.Option(help="nodes/depth/topk.")] = "24/6/4",
    dtype: str = "bfloat16",
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
) -> None:
    model, tokenizer = load_target(target, dtype=getattr(torch, dtype)), AutoTokenizer.from_pretrained(target)
    shape = parse_tree(tree)
    heads = {dtype: load_draft(head, model, shape), "fp8": load_draft(head, model, shape, FP8)}
    decoders = {name: SpeculativeDecoder(model, draft) for name, draft in heads.items()}
    watched = ReadAlong(heads[dtype], heads["fp8"])
    settings = {"max_new_tokens": new_tokens, "do_sample": False}
    asked = [(file, text) for file, texts in read_questions(data, prompts).items() for text in texts]
    rows = []
    for file, question in track(asked, description="decoding", transient=True):
        prompt = chat_prompt(tokenizer, question)
        text = SpeculativeDecoder(model, watched).generate(prompt, **settings)
        row: dict[str, Any] = {"file": file}
        for name, decoder in decoders.items():
            assert torch.equal(decoder.generate(prompt, **settings), text), f"the {name} head changed a text"
            stats = decoder.stats
            row[name] = {"rounds": stats.rounds, "accepted": stats.accepted, "draft_seconds": stats.seconds["draft"]}
        rows.append(row)
    result = {
        "machine": machine(model.device.type) | {"target": Path(target).name, "head": Path(head).name, "tree": tree},
        "bytes": {name: sum(matrix.nbytes for matrix in matrices(draft)) for name, draft in heads.items()},
        "logits": compared(watched.logits),
        "questions": rows,
    }
    if out is not None:
        write_json(result, out)
    console().print(head_table(result, list(heads)))
    console().print(result["logits"])


def compared(logits: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """How far the second logits are from the first, over all roots."""
    wide, narrow = (torch.stack(side) for side in zip(*logits, strict=True))
    error = (narrow - wide).abs()
    return {
        "roots": len(wide),
        "standard_deviation": wide.std(dim=1).mean().item(),
        "mean_error": error.mean().item(),
        "max_error": error.max().item(),
        "same_favourite": (wide.argmax(1) == narrow.argmax(1)).float().mean().item(),
    }


def head_table(result: dict[str, Any], names: list[str]) -> Table:
    table = Table(title=f"One head, two kinds of weights; {result['machine']['label']}", title_justify="left")
    for heading in ("weights", "MB", "rounds", "tokens per round", "draft ms per round", "of the wide head's"):
        table.add_column(heading, justify="right")
    for name in names:
        rows = result["questions"]
        rounds = sum(row[name]["rounds"] for row in rows)
        tau = 1 + sum(row[name]["accepted"] for row in rows) / rounds
        per_round = [{n: row[n]["draft_seconds"] / row[n]["rounds"] for n in names} for row in rows]
        milliseconds = 1e3 * spread([seconds[name] for seconds in per_round]).median
        ratio = spread([seconds[name] / seconds[names[0]] for seconds in per_round])
        cells = [f"{result['bytes'][name] / 1e6:.2f}", str(rounds), f"{tau:.3f}", f"{milliseconds:.2f}"]
        table.add_row(name, *cells, f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})")
    return table


if __name__ == "__main__":
    command.run(main)

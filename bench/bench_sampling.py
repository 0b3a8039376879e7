"""Tokens per round when sampling, by the way of drafting: same prompts, same head, same number of nodes.

python -m bench.bench_sampling TARGET HEAD --data DIR [--prompts 4] [--new-tokens 64] [--out result.json]

Every way decodes every prompt with the same seed. Texts of "likeliest" and "coupled" must be equal: they are plain
sampling's own, and the exit status is 1 if they are not. The error of a mean is its standard error over rounds; ratios
are to "likeliest". With --out the result is kept after every prompt, and an interrupted run goes on where it stopped.
"""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import AutoTokenizer

from bench import command
from bench.machine import machine
from bench.prompts import chat_prompt
from bench.results_file import write_json
from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.bench.questions import read_questions
from eagle_decoding.drafts import load_draft
from eagle_decoding.target import load_target

WAYS = ("likeliest", "coupled", "sampled", "hybrid", "auto")


def main(
    target: str,
    head: str,
    data: Annotated[Path, typer.Option(help="Folder of question files (.jsonl).")],
    prompts: Annotated[int, typer.Option(help="Questions of each file.")] = 4,
    longest: Annotated[int, typer.Option(help="Prompts are cut to their last tokens, so many.")] = 512,
    new_tokens: int = 64,
    dtype: str = "float32",
    nodes: int = 24,
    depth: int = 5,
    topk: int = 4,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    ways: str = ",".join(WAYS),
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
) -> None:
    chosen = ways.split(",")
    model = load_target(target, dtype=getattr(torch, dtype))
    trees = {way: TreeConfig(num_nodes=nodes, max_depth=depth, topk=topk, children=way) for way in chosen}
    decoders = {way: SpeculativeDecoder(model, load_draft(head, model, tree)) for way, tree in trees.items()}
    tokenizer = AutoTokenizer.from_pretrained(target)
    settings = {"do_sample": True, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    settings |= {"max_new_tokens": new_tokens}
    facts = settings | {"dtype": dtype, "nodes": nodes, "depth": depth, "topk": topk, "longest": longest}
    made_by, cases = machine(model.device.type), dict[str, dict]()
    if out is not None and out.exists() and json.loads(out.read_text())["facts"] == facts:
        cases = json.loads(out.read_text())["cases"]
    questions = read_questions(data, prompts).items()
    asked = [(i, name, question) for name, some in questions for i, question in enumerate(some)]
    for i, name, question in track(sorted(asked), description="sampling"):  # the first of every file, then the second
        case = cases.setdefault(f"{name} {i}", {})
        prompt = chat_prompt(tokenizer, question)[:, -longest:]
        for way in (way for way in chosen if way not in case):
            text = decoders[way].generate(prompt, seed=i, **settings)
            stats = decoders[way].stats
            counts = {"rounds": stats.rounds, "accepted_by_depth": stats.accepted_by_depth}
            case[way] = counts | {"text": text[0, prompt.shape[1] :].tolist()}
        if out is not None:
            result = {"machine": made_by, "facts": facts, "summary": summary(cases, chosen), "cases": cases}
            write_json(result, out)
    found = summary(cases, chosen)
    Console().print(table(found, chosen))
    equal = all(case["likeliest"]["text"] == case["coupled"]["text"] for case in cases.values() if "coupled" in case)
    raise typer.Exit(0 if equal else 1)


def summary(cases: dict[str, dict], ways: list[str]) -> dict[str, dict]:
    """By file, and for all of them: rounds, tokens per round and its standard error, for each way."""
    files: dict[str, dict] = {}
    for name in [*dict.fromkeys(case.split()[0] for case in cases), "all"]:
        runs = [case for key, case in cases.items() if name in ("all", key.split()[0]) and len(case) >= len(ways)]
        files[name] = {way: tokens_per_round([case[way] for case in runs]) for way in ways}
    return files


def tokens_per_round(runs: list[dict]) -> dict[str, float]:
    rounds = sum(run["rounds"] for run in runs)
    reached = [0] * 128
    for run in runs:
        for depth, count in enumerate(run["accepted_by_depth"]):
            reached[depth] += count
    mean = sum(reached) / max(rounds, 1)
    square = sum((2 * depth + 1) * count for depth, count in enumerate(reached)) / max(rounds, 1)
    return {"rounds": rounds, "tokens_per_round": 1 + mean, "error": ((square - mean**2) / max(rounds, 1)) ** 0.5}


def table(found: dict[str, dict], ways: list[str]) -> Table:
    shown = Table(title="Tokens per round")
    shown.add_column("file")
    for way in ways:
        shown.add_column(way, justify="right")
    for name, by_way in found.items():
        shown.add_row(name, *(f"{by_way[way]['tokens_per_round']:.3f}" for way in ways))
    base = found["all"][ways[0]]["tokens_per_round"]
    shown.add_row("error of all", *(f"{found['all'][way]['error']:.3f}" for way in ways))
    shown.add_row(f"all / {ways[0]}", *(f"{found['all'][way]['tokens_per_round'] / base:.3f}" for way in ways))
    return shown


if __name__ == "__main__":
    command.run(main)

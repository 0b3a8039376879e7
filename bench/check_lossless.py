"""Checks on real questions that speculative text is the target's own, token for token; lists ties.

python -m bench.check_lossless TARGET HEAD --data DIR [--prompts 20] [--new-tokens 64] [--seeds 0] [--children NAME]

Greedy text is compared with the target's own `generate`. With --seeds N, sampled text of N seeds a prompt (one batch)
is compared with plain decoding of the same seeds, with the target's own filters: transformers' default is top-k 50. A
difference counts as a tie only where the two scores that compete at the first differing token lie within 1e-4 of each
other; everything else fails, and the exit status is 1. With --out the result is kept after every prompt, and a run that
was interrupted goes on where it stopped.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import track
from torch import Tensor
from transformers import AutoTokenizer

from bench import command
from bench.machine import machine
from bench.prompts import chat_prompt
from bench.results_file import write_json
from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.bench.questions import read_questions
from eagle_kernels import gumbel_noise

TIE = 1e-4


def main(
    target: str,
    head: str,
    data: Annotated[Path, typer.Option(help="Folder of question files (.jsonl).")],
    prompts: Annotated[int, typer.Option(help="Questions of each file.")] = 20,
    longest: Annotated[int, typer.Option(help="Questions with more tokens are left out.")] = 8192,
    new_tokens: int = 64,
    seeds: Annotated[int, typer.Option(help="Sampled continuations per prompt; 0 compares greedy text.")] = 0,
    temperature: float = 1.0,
    nodes: int = 24,
    depth: int = 5,
    topk: int = 4,
    children: Annotated[str, typer.Option(help="TreeConfig.children.")] = "likeliest",
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
) -> None:
    tree = TreeConfig(num_nodes=nodes, max_depth=depth, topk=topk, children=children)
    decoder = SpeculativeDecoder.from_pretrained(target, head, tree=tree, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(target)
    longest = min(longest, decoder.target.config.max_position_embeddings - new_tokens)
    settings: dict[str, Any] = {"max_new_tokens": new_tokens, "do_sample": seeds > 0}
    if seeds:
        settings |= {"temperature": temperature, "seed": list(range(seeds))}
    facts = {"new_tokens": new_tokens, "seeds": seeds, "temperature": temperature, "tree": vars(tree)}
    made_by, cases = machine(decoder.target.device.type), dict[str, dict]()
    if out is not None and out.exists() and json.loads(out.read_text())["facts"] == facts:
        cases = json.loads(out.read_text())["cases"]
    asked = {
        f"{name} {i}": prompt
        for name, questions in read_questions(data).items()
        for i, prompt in short_enough(tokenizer, questions, longest, prompts)
    }
    for name, prompt in track(asked.items(), description="comparing"):
        if name not in cases:
            cases[name] = compare(decoder, prompt.expand(max(seeds, 1), -1), settings)
            if out is not None:
                write_json({"machine": made_by, "facts": facts, **summary(cases), "cases": cases}, out)
    raise typer.Exit(report(summary(cases)))


def short_enough(tokenizer: Any, questions: list[str], longest: int, count: int) -> list[tuple[int, Tensor]]:
    """The first `count` prompts of at most `longest` tokens, with their index."""
    prompts = ((i, chat_prompt(tokenizer, question)) for i, question in enumerate(questions))
    return [(i, prompt) for i, prompt in prompts if prompt.shape[1] <= longest][:count]


def compare(decoder: SpeculativeDecoder, prompt: Tensor, settings: dict[str, Any]) -> dict:
    """Decodes [seeds, tokens] prompts both ways: counts, and every difference."""
    if settings["do_sample"]:
        expected = decoder.generate(prompt, speculate=False, **settings)
    else:
        expected = decoder.target.generate(prompt, **settings)
    actual = decoder.generate(prompt, **settings)
    result: dict = {"compared": len(prompt), "identical": 0, "ties": [], "differences": []}
    result |= {"rounds": decoder.stats.rounds, "accepted": decoder.stats.accepted}
    for row, (a, e) in enumerate(zip(actual, expected, strict=False)):
        if torch.equal(a, e):
            result["identical"] += 1
            continue
        where, gap = first_difference(decoder, a, e, settings, row)
        result["ties" if gap <= TIE else "differences"].append({"row": row, "position": where, "gap": gap})
    return result


@torch.no_grad()
def first_difference(
    decoder: SpeculativeDecoder, actual: Tensor, expected: Tensor, settings: dict[str, Any], row: int
) -> tuple[int, float]:
    """Position of the first differing token and the gap between the two candidates' scores there."""
    length = min(len(actual), len(expected))
    differs = (actual[:length] != expected[:length]).nonzero()
    if len(differs) == 0:
        return length, float("inf")
    where = int(differs[0])
    logits = decoder.target(expected[None, :where]).logits[0, -1].double()
    candidates = [int(actual[where]), int(expected[where])]
    scores = logits[candidates]
    if settings["do_sample"]:
        seed, position = torch.tensor(settings["seed"][row : row + 1]), torch.tensor([[where]], dtype=torch.int32)
        noise = gumbel_noise(seed, position, len(logits))
        scores = scores / settings["temperature"] + noise[0, 0, candidates].double()
    return where, float((scores[0] - scores[1]).abs())


def summary(cases: dict[str, dict]) -> dict:
    total: dict = {name: sum(case[name] for case in cases.values()) for name in ("compared", "identical")}
    for kind in ("ties", "differences"):
        total[kind] = [{"prompt": name} | case for name, found in cases.items() for case in found[kind]]
    rounds, accepted = (sum(case[name] for case in cases.values()) for name in ("rounds", "accepted"))
    return total | {"rounds": rounds, "accepted": accepted, "tokens_per_round": 1 + accepted / max(1, rounds)}


def report(result: dict) -> int:
    """Prints the outcome; returns the exit status."""
    print(
        f"{result['compared']} texts compared: {result['identical']} identical, {len(result['ties'])} ties, "
        f"{len(result['differences'])} different; {result['tokens_per_round']:.3f} tokens per round."
    )
    for kind in ("ties", "differences"):
        for case in result[kind]:
            print(f"{kind}: {case}")
    return 1 if result["differences"] else 0


if __name__ == "__main__":
    command.run(main)

"""Checks on real questions that speculative text is the target's own, token for token; lists ties.

python -m bench.check_lossless TARGET HEAD --data DIR [--prompts 20] [--new-tokens 64] [--seeds 0]

Greedy text is compared with the target's own `generate`. With --seeds N, sampled text of N seeds a prompt is compared
with plain decoding of the same seed. A difference counts as a tie only where the two scores that compete at the first
differing token lie within 1e-4 of each other; everything else fails, and the exit status is 1.
"""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import track
from torch import Tensor
from transformers import AutoTokenizer

from bench.questions import chat_prompt, read_questions
from eagle_decoding import SpeculativeDecoder, TreeConfig

TIE = 1e-4


def main(
    target: str,
    head: str,
    data: Annotated[Path, typer.Option(help="Folder of question files (.jsonl).")],
    prompts: int = 20,
    new_tokens: int = 64,
    seeds: Annotated[int, typer.Option(help="Sampled continuations per prompt; 0 compares greedy text.")] = 0,
    temperature: float = 1.0,
    nodes: int = 24,
    depth: int = 5,
    topk: int = 4,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
) -> None:
    tree = TreeConfig(num_nodes=nodes, max_depth=depth, topk=topk)
    decoder = SpeculativeDecoder.from_pretrained(target, head, tree=tree, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(target)
    cases = [
        (name, index, chat_prompt(tokenizer, question), seed)
        for name, questions in read_questions(data, prompts).items()
        for index, question in enumerate(questions)
        for seed in (range(seeds) if seeds else [None])
    ]
    limit = decoder.target.config.max_position_embeddings - new_tokens
    result: dict = {"compared": 0, "identical": 0, "ties": [], "differences": [], "accepted": 0, "rounds": 0}
    for name, index, prompt, seed in track(cases, description="comparing"):
        prompt = prompt[:, :limit]
        settings = {"max_new_tokens": new_tokens, "do_sample": seed is not None}
        if seed is None:
            expected = decoder.target.generate(prompt, **settings)
        else:
            settings |= {"temperature": temperature, "seed": seed}
            expected = decoder.generate(prompt, speculate=False, **settings)
        actual = decoder.generate(prompt, **settings)
        result["compared"] += 1
        result["accepted"] += decoder.stats.accepted
        result["rounds"] += decoder.stats.rounds
        if torch.equal(actual, expected):
            result["identical"] += 1
            continue
        where, gap = first_difference(decoder, actual[0], expected[0], settings)
        case = {"file": name, "question": index, "seed": seed, "position": where, "gap": gap}
        result["ties" if gap <= TIE else "differences"].append(case)
    result["tokens_per_round"] = 1 + result["accepted"] / max(1, result["rounds"])
    report(result, out)
    raise typer.Exit(1 if result["differences"] else 0)


@torch.no_grad()
def first_difference(
    decoder: SpeculativeDecoder, actual: Tensor, expected: Tensor, settings: dict
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
        from eagle_kernels import gumbel_noise

        noise = gumbel_noise(torch.tensor([settings["seed"]]), torch.tensor([[where]], dtype=torch.int32), len(logits))
        scores = scores / settings["temperature"] + noise[0, 0, candidates].double()
    return where, float((scores[0] - scores[1]).abs())


def report(result: dict, out: Path | None) -> None:
    print(
        f"{result['compared']} texts compared: {result['identical']} identical, {len(result['ties'])} ties, "
        f"{len(result['differences'])} different; {result['tokens_per_round']:.3f} tokens per round."
    )
    for kind in ("ties", "differences"):
        for case in result[kind]:
            print(f"{kind}: {case}")
    if out is not None:
        out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    typer.run(main)

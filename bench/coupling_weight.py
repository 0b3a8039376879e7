"""Measures NOISE_WEIGHT of coupled drafting: with which weight sampled text is likeliest under the coupled draft.

python -m bench.coupling_weight TARGET HEAD --tokens ROWS.safetensors [--rows 7] [--new-tokens 64]

Decodes held-out training rows, and at each root compares log_softmax(draft_logits + weight * temperature * G) of the
token that was emitted over a grid of weights; tokens outside the draft's vocabulary are left out.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

import eagle_kernels
from bench import command
from bench.machine import machine
from bench.results_file import write_json
from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.target import load_target
from eagle_decoding.train.data import read_token_rows, split_rows

WEIGHTS = (0.0, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.2)


def main(
    target: str,
    head: str,
    tokens: Annotated[Path, typer.Option(help="Token rows of the head's training data.")],
    rows: Annotated[int, typer.Option(help="Held-out rows to decode.")] = 7,
    new_tokens: int = 64,
    longest: Annotated[int, typer.Option(help="Prompts are cut to their first tokens, so many.")] = 160,
    temperatures: str = "0.6,1.0",
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
) -> None:
    model = load_target(target, dtype=torch.float32)
    tree = TreeConfig(num_nodes=2, max_depth=1, topk=1, children="coupled")
    decoder = SpeculativeDecoder.from_pretrained(model, head, tree=tree)
    data = read_token_rows([str(tokens)])
    _, held_out = split_rows(data, 0.03, 0)
    chosen = list(held_out)[:: max(1, len(held_out) // rows)][:rows]
    seen: list[tuple[int, Tensor, Tensor]] = []  # position, logits and noise of each root's child

    draft, ranked = decoder.draft, decoder.draft.children

    def note(state: Tensor, topk: int, position_ids: Tensor):
        noise = eagle_kernels.gumbel_noise(draft.params.seed, position_ids[:, None], draft.vocab_size)[0, 0]
        noise = noise if draft.d2t is None else noise[target_ids(draft.d2t)]
        seen.append((int(position_ids[0]), draft.logits(state)[0, 0].float(), noise))
        return ranked(state, topk, position_ids)

    draft.children = note
    result = {}
    for temperature in map(float, temperatures.split(",")):
        losses = []
        for row in chosen:
            seen.clear()
            ids = data.ids[int(data.starts[row]) : int(data.starts[row + 1])]
            answered = data.supervised[int(data.starts[row]) : int(data.starts[row + 1])]
            prompt = ids[None, : min(int((~answered).sum()), longest)]
            settings = {"do_sample": True, "temperature": temperature, "top_k": 0, "seed": int(row)}
            text = decoder.generate(prompt, max_new_tokens=new_tokens, **settings)[0]
            losses += token_losses(text, seen, decoder.draft.d2t, temperature)
        mean = torch.stack(losses).mean(0)
        result[temperature] = {"tokens": len(losses)} | dict(zip(WEIGHTS, mean.tolist(), strict=True))
        print(temperature, len(losses), " ".join(f"{s}: {m:.3f}" for s, m in zip(WEIGHTS, mean, strict=True)))
    if out is not None:
        write_json({"machine": machine(model.device.type), "losses": result}, out)


def target_ids(d2t: Tensor) -> Tensor:
    return torch.arange(len(d2t)) + d2t


def token_losses(text: Tensor, seen: list, d2t: Tensor | None, temperature: float) -> list[Tensor]:
    """[weights] negative log-likelihood of each token that the draft has."""
    losses = []
    for position, logits, noise in seen:
        ids = torch.arange(len(logits)) if d2t is None else target_ids(d2t)
        where = (ids == text[position]).nonzero() if position < len(text) else []
        if len(where):
            scores = torch.stack([logits + weight * temperature * noise for weight in WEIGHTS])
            losses.append(-scores.log_softmax(-1)[:, int(where[0])])
    return losses


if __name__ == "__main__":
    command.run(main)

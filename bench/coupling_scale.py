"""Measures the error scale s of coupled drafting: for which s sampled text is likeliest under the coupled draft.

python -m bench.coupling_scale TARGET HEAD --tokens ROWS.safetensors [--rows 7] [--new-tokens 64]

Decodes held-out training rows, and at each root compares log softmax((draft_logits + temperature * G) / s) of the token
that was emitted, over a grid of s; tokens outside the draft's vocabulary are left out.
"""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

import eagle_kernels
from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.drafts import eagle3
from eagle_decoding.drafts.coupled import coupled_topk
from eagle_decoding.target import load_target
from eagle_decoding.train.data import read_token_rows, split_rows

SCALES = (0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.7, 2.2)


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
    _, held_out = split_rows(range(len(data)), 0.03, 0)
    chosen = list(held_out)[:: max(1, len(held_out) // rows)][:rows]
    seen: list[tuple[int, Tensor, Tensor]] = []  # position, logits and noise of each root's child

    def note(logits: Tensor, position_ids: Tensor, params, k, d2t, vocab_size: int, filtered: bool):
        noise = eagle_kernels.gumbel_noise(params.seed, position_ids[:, None], vocab_size)[0, 0]
        seen.append((int(position_ids[0]), logits[0, 0].float(), noise if d2t is None else noise[target_ids(d2t)]))
        return coupled_topk(logits, position_ids, params, k, d2t, vocab_size, filtered)

    eagle3.coupled_topk = note
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
        result[temperature] = {"tokens": len(losses)} | dict(zip(SCALES, mean.tolist(), strict=True))
        print(temperature, len(losses), " ".join(f"{s}: {m:.3f}" for s, m in zip(SCALES, mean, strict=True)))
    if out is not None:
        out.write_text(json.dumps(result, indent=1))


def target_ids(d2t: Tensor) -> Tensor:
    return torch.arange(len(d2t)) + d2t


def token_losses(text: Tensor, seen: list, d2t: Tensor | None, temperature: float) -> list[Tensor]:
    """[scales] negative log-likelihood of each token that the draft has."""
    losses = []
    for position, logits, noise in seen:
        ids = torch.arange(len(logits)) if d2t is None else target_ids(d2t)
        where = (ids == text[position]).nonzero() if position < len(text) else []
        if len(where):
            scores = torch.stack([(logits + temperature * noise) / s for s in SCALES])
            losses.append(-scores.log_softmax(-1)[:, int(where[0])])
    return losses


if __name__ == "__main__":
    typer.run(main)

"""What float32 says of the engines' texts: how near other tokens were, and in how many rounds the head drafts them.

Engines round to bfloat16 in different places, so that greedy texts part where two tokens are nearly as likely. Float32
says how near: 0 for a token that it would have chosen too. And since texts differ, so do rounds: an engine's own are
compared with those that the head's greedy chain takes along the same text by the trainer's unrolled loop.
"""

import re

import torch
from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding.checkpoint import Head, HeadConfig
from eagle_decoding.train.agreement import head_module, rounds_of
from eagle_decoding.train.probe import boundary_features
from eagle_decoding.train.rows import Documents
from eagle_decoding.train.unroll import unroll


def against_float32(
    target: PreTrainedModel, head: Head, prompts: list[list[int]], texts: dict[str, list[list[int]]]
) -> dict[str, dict[str, float]]:
    """By engine: tokens, how many float32 would not have chosen, the largest gap in logits, and a chain's rounds."""
    found: dict[str, dict[str, float]] = {}
    for name, answers in texts.items():
        pairs = [(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True) if answer]
        all_gaps = [gap for prompt, answer in pairs for gap in gaps(target, prompt, answer)]
        found[name] = {
            "tokens": len(all_gaps),
            "other_choices": sum(gap > 0 for gap in all_gaps),
            "worst_gap": max(all_gaps),
        }
        size = chain_size(name)
        if size:
            found[name]["rounds"] = sum(chain_rounds(target, head, prompt, answer, size) for prompt, answer in pairs)
    return found


def chain_size(name: str) -> int:
    """Drafted tokens of an arm that drafts a chain, by its name; else 0."""
    chain = re.search(r"chain \d+/(\d+)/1$", name)
    return int(chain[1]) if chain else 0


@torch.inference_mode()
def gaps(target: PreTrainedModel, prompt: list[int], answer: list[int]) -> list[float]:
    """By token of an answer: its logit below the best one, by the target's own forward."""
    logits = target(torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :]
    chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
    return (logits.max(dim=1).values - chosen).tolist()


def chain_rounds(target: PreTrainedModel, head: Head, prompt: list[int], answer: list[int], size: int) -> int:
    """Rounds in which the head's greedy chain of `size` tokens drafts an answer."""
    return len(rounds_of(drafted_right(target, head, torch.tensor(prompt + answer), size), len(prompt)))


@torch.no_grad()
def drafted_right(target: PreTrainedModel, head: Head, text: Tensor, size: int) -> Tensor:
    """[T], int64: how many greedy drafts after each position are the text's own tokens."""
    assert isinstance(head.config, HeadConfig)
    total, layers = len(text), target.config.num_hidden_layers
    *fused, final = boundary_features(target, text, (*head.config.layer_ids(layers), layers + 1))
    documents = Documents(text, torch.ones(total, dtype=torch.bool), torch.tensor([0, total]))
    alive, lengths = torch.ones(total, dtype=torch.bool), torch.zeros(total, dtype=torch.int64)
    for output in unroll(head_module(head, target), documents, torch.stack(fused, 1), final, size):
        hits = torch.zeros(total, dtype=torch.bool)
        hits[output.rows] = output.scores.hit
        alive &= hits
        lengths += alive
    return lengths

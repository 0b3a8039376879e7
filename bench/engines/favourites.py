"""How far texts are from what the target itself likes best, in float32.

Engines round to bfloat16 in different places, so that greedy texts part where two tokens are nearly as likely. Float32
says how near: 0 for a token that it would have chosen too.
"""

import torch
from transformers import PreTrainedModel


@torch.inference_mode()
def gaps(target: PreTrainedModel, prompt: list[int], answer: list[int]) -> list[float]:
    """By token of an answer: its logit below the best one, by the target's own forward."""
    logits = target(torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :]
    chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
    return (logits.max(dim=1).values - chosen).tolist()


def against_float32(
    target: PreTrainedModel, prompts: list[list[int]], texts: dict[str, list[list[int]]]
) -> dict[str, dict[str, float]]:
    """By engine: tokens, how many float32 would not have chosen, and the largest gap in logits."""
    known: dict[tuple[int, ...], list[float]] = {}
    found = {}
    for name, answers in texts.items():
        all_gaps = []
        for prompt, answer in zip(prompts, answers, strict=True):
            key = (*prompt, -1, *answer)
            if key not in known:
                known[key] = gaps(target, prompt, answer)
            all_gaps += known[key]
        others = sum(gap > 0 for gap in all_gaps)
        found[name] = {"tokens": len(all_gaps), "other_choices": others, "worst_gap": max(all_gaps)}
    return found

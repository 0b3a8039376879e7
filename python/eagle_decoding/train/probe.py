"""How was a foreign head trained? Scores its drafts with layer ids one lower and higher, and with two rope bases."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding.checkpoint import Head, HeadConfig
from eagle_decoding.decoder import SpeculativeDecoder
from eagle_decoding.drafts import NoDraft
from eagle_decoding.slots import Request
from eagle_decoding.target import Target
from eagle_decoding.train.answering import PlainAnswering
from eagle_decoding.train.errors import DataError
from eagle_decoding.train.serving import serving_logits

SHIFTS = (0, -1, 1)
SAFEAILAB_BASE = 10000.0
CONVINCING = 3.0  # standard errors by which a variant must beat what it is compared with
QUESTIONS = (
    "Why is the sky blue? Answer in a few sentences.",
    "Write a Python function that returns the n-th Fibonacci number.",
    "A box holds 12 eggs. How many eggs are in 7 boxes? Explain each step.",
    "Write a short letter to a friend who has moved to another city.",
    "List five tips for staying healthy, with one sentence about each.",
    "Explain to a child how a bicycle stays upright.",
    "What is the difference between a list and a tuple in Python?",
    "Tell a story about a lighthouse keeper and a storm.",
    "A train leaves at 9:40 and arrives at 13:05. How long does the journey take?",
    "Summarise the main causes of the First World War.",
    "Describe how to make a vegetable soup, step by step.",
    "What are the advantages and disadvantages of working from home?",
)


@dataclass(frozen=True)
class Variant:
    """One reading of a head. shift: added to its layer ids. rope_theta: base of its rotary embedding."""

    shift: int
    rope_theta: float
    config: HeadConfig


@dataclass(frozen=True)
class Finding:
    """A variant's first drafts at every position of the target's own answers.

    logprob [R]: the draft's log-probability of the token that follows. hit [R], bool: it is the draft's first choice.
    """

    variant: Variant
    logprob: Tensor
    hit: Tensor

    def lead(self, other: Finding) -> tuple[float, float]:
        """(mean gain in log-probability over another variant, its standard error), position by position."""
        return mean_and_error(self.logprob - other.logprob)

    @property
    def fits(self) -> bool:
        """Whether the text is clearly likelier than by chance among the tokens that the head can draft."""
        gain, error = mean_and_error(self.logprob + math.log(self.variant.config.draft_vocab_size))
        return gain > CONVINCING * error


def mean_and_error(gain: Tensor) -> tuple[float, float]:
    return float(gain.mean()), float(gain.std()) / math.sqrt(len(gain))


def variants(config: HeadConfig, num_target_layers: int) -> list[Variant]:
    """The reading of the config first, then layer ids one lower and one higher, each with both rope bases."""
    ids, base = config.layer_ids(num_target_layers), config.rope_parameters.get("rope_theta", SAFEAILAB_BASE)
    found = []
    for theta in dict.fromkeys((base, SAFEAILAB_BASE)):
        for shift in SHIFTS:
            shifted = tuple(i + shift for i in ids)
            if shifted[0] >= 0 and shifted[-1] <= num_target_layers:
                rope = config.rope_parameters | {"rope_theta": theta}
                found.append(Variant(shift, theta, replace(config, aux_layer_ids=shifted, rope_parameters=rope)))
    return found


def probe(
    target: PreTrainedModel,
    head: Head,
    prompts: list[list[int]],
    max_new_tokens: int,
    report: Callable[[int, int], None] = lambda rows, tokens: None,
) -> list[Finding]:
    """Lets the target answer the prompts greedily, then scores every variant on these texts, in order of `variants`.

    report: called with answers finished and new tokens. Raises DataError if nothing could be scored.
    """
    if not isinstance(head.config, HeadConfig):
        raise DataError("The head is an EAGLE-1 head, which has no layer ids to probe; give an EAGLE-3 head.")
    readings = variants(head.config, target.config.num_hidden_layers)
    boundaries = tuple(sorted({i for variant in readings for i in variant.config.aux_layer_ids or ()}))
    logprobs: list[list[Tensor]] = [[] for _ in readings]
    hits: list[list[Tensor]] = [[] for _ in readings]
    for prompt, answer in zip(prompts, answers(target, prompts, max_new_tokens, report), strict=True):
        text = torch.tensor(prompt + answer, device=target.device)
        features = dict(zip(boundaries, boundary_features(target, text, boundaries), strict=True))
        for i, variant in enumerate(readings):
            fused = torch.cat([features[layer] for layer in variant.config.aux_layer_ids or ()], -1)
            logprob, hit = score(Head(variant.config, head.tensors), target, fused, text, len(prompt))
            logprobs[i].append(logprob)
            hits[i].append(hit)
    if sum(map(len, hits[0])) < 2:
        raise DataError("The answers hold no token of the draft vocabulary to score; give other prompts.")
    return [Finding(variant, torch.cat(logprobs[i]), torch.cat(hits[i])) for i, variant in enumerate(readings)]


def answers(
    target: PreTrainedModel, prompts: list[list[int]], max_new_tokens: int, report: Callable[[int, int], None]
) -> list[list[int]]:
    """The target's greedy answers, decoded together."""
    texts: dict[int, list[int]] = {}

    def finished(request: Request, tokens: list[int]) -> None:
        texts[request.key] = tokens

    answering = PlainAnswering(SpeculativeDecoder(target, NoDraft()), len(prompts), max_new_tokens)
    answering([Request(key, prompt, 0.0, 0) for key, prompt in enumerate(prompts)], finished, report)
    return [texts[key] for key in range(len(prompts))]


@torch.inference_mode()
def boundary_features(target: PreTrainedModel, text: Tensor, boundaries: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The residual stream entering each layer of `boundaries`, [T, H] each, for one text [T]."""
    runner = Target(target, boundaries)
    lengths = torch.tensor([len(text)], dtype=torch.int32, device=text.device)
    with runner.attached():
        cache = runner.new_cache(1)
        cache.buffer.reserve(len(text))
        return runner.prefill(text[None], lengths, cache).features[0].chunk(len(boundaries), dim=-1)


def score(
    head: Head, target: PreTrainedModel, features: Tensor, text: Tensor, prompt_len: int
) -> tuple[Tensor, Tensor]:
    """(logprob, hit) of a head's first draft for every answer token but the first, where it can draft it at all.

    features [T, A * H]: of every position of the text [T]
    """
    embed = target.get_input_embeddings().weight
    logits = serving_logits(head, embed, features[:-2], text[1:-1])[prompt_len - 1 :].float()
    ids = head.target_ids.to(text.device)
    draft_ids = torch.full((head.config.vocab_size,), -1, device=text.device)
    draft_ids[ids] = torch.arange(len(ids), device=text.device)
    own = draft_ids[text[prompt_len + 1 :]]
    known, own = own >= 0, own[own >= 0]
    logprob = logits[known].log_softmax(-1).gather(1, own[:, None])[:, 0]
    return logprob.cpu(), (logits[known].argmax(-1) == own).cpu()


def verdict(findings: list[Finding]) -> str:
    """One sentence: which reading the head was trained with, if any."""
    given, best = findings[0], max(findings, key=lambda finding: float(finding.logprob.mean()))
    if not best.fits:
        return (
            "No reading of the head fits: none makes the text clearly likelier than chance among its "
            f"{best.variant.config.draft_vocab_size} tokens; it was trained for another target, or not at all."
        )
    gain, error = best.lead(given)
    if gain <= CONVINCING * error:
        return "The head was trained as its config says: no other reading makes the text clearly likelier."
    changes = []
    if best.variant.shift:
        changes.append(f"layer ids {list(best.variant.config.aux_layer_ids or ())} ({best.variant.shift:+d})")
    if best.variant.rope_theta != given.variant.rope_theta:
        changes.append(f"rope base {best.variant.rope_theta:g}")
    before, after = (f"{float(finding.hit.float().mean()):.0%}" for finding in (given, best))
    return (
        f"The head was trained with {' and '.join(changes)}: {after} of its first drafts are right instead of {before} "
        "as its config says; change eagle_aux_hidden_state_layer_ids or rope_theta there."
    )


def foreign_embeddings(folder: str | Path, embed: Tensor) -> float:
    """Share of rows of an `embed_tokens` in the head's file that are not the target's embeddings [V, H]; 0 without one.

    This reader uses the target's own; vLLM drafts with the ones in the file unless they are bit-equal.
    """
    for file in Path(folder).glob("*.safetensors"):
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118
                if name.endswith("embed_tokens.weight"):
                    rows = stored.get_tensor(name)
                    if rows.shape != embed.shape:
                        return 0.0
                    return float((rows != embed.to(rows.dtype)).any(1).float().mean())
    return 0.0

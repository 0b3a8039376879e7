"""What a call is given, prompts, masks and seeds: checked, and brought into the form that the loop works on."""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor


def check_prompt(prompt: Any) -> None:
    """Raises ValueError for anything but token ids [batch, tokens] of one token at least."""
    if not isinstance(prompt, Tensor):
        raise ValueError(
            f"generate takes token ids, a tensor [batch, tokens], and got a {type(prompt).__name__}: give the "
            'tokenizer return_tensors="pt" and pass what it returns as **inputs.'
        )
    if prompt.ndim != 2 or prompt.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"generate takes token ids, an int64 tensor [batch, tokens], and got {prompt.dtype} {list(prompt.shape)}: "
            "give it this type and shape."
        )
    if prompt.numel() == 0:
        raise ValueError(f"generate needs at least one request with at least one token, got {tuple(prompt.shape)}.")


def check_mask(input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None) -> None:
    """Raises ValueError for a mask of another shape than the prompts, and for positions that do not follow from it."""
    for name, given in (("attention_mask", attention_mask), ("attention_mask or position_ids", position_ids)):
        if given is not None and given.shape[1] != input_ids.shape[1]:
            raise ValueError(
                f"{name} must have as many columns as input_ids, {input_ids.shape[1]}, got {given.shape[1]}: pass what "
                "the tokenizer returned for these prompts."
            )
    mask = torch.ones_like(input_ids[:1]) if attention_mask is None else attention_mask
    if attention_mask is not None and len(mask) != len(input_ids):
        raise ValueError(f"attention_mask must have a row for each of {len(input_ids)} requests, got {len(mask)}.")
    if position_ids is not None and bool(((position_ids != mask.long().cumsum(dim=1) - 1) & (mask != 0)).any()):
        raise ValueError("position_ids count each prompt's tokens from 0 in this decoder: leave them out.")


def strip_padding(input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Turns left-padded prompts into right-padded ones and their lengths [batch] int32."""
    if attention_mask is None:
        return input_ids, input_ids.new_full((len(input_ids),), input_ids.shape[1], dtype=torch.int32)
    lengths = attention_mask.sum(dim=1, dtype=torch.int32)
    order = attention_mask.argsort(dim=1, descending=True, stable=True)
    return input_ids.gather(1, order)[:, : int(lengths.max())], lengths


def check_lengths(lengths: Tensor, limit: int) -> None:
    """Raises ValueError for a request without a token, and for one that does not fit a context of `limit` tokens."""
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest == 0:
        request = int(lengths.argmin())
        raise ValueError(f"The attention_mask of request {request} is zero everywhere: give it one token at least.")
    if longest >= limit:
        raise ValueError(f"The prompt has {longest} tokens and the target's context {limit}: shorten it.")


def check_tokens(prompt: Tensor, vocab_size: int) -> None:
    """Raises ValueError for a token that the target has no embedding for."""
    smallest, largest = int(prompt.min()), int(prompt.max())
    if smallest < 0 or largest >= vocab_size:
        token = smallest if smallest < 0 else largest
        raise ValueError(
            f"The prompt holds token {token} and the target knows 0 to {vocab_size - 1}: use the target's tokenizer."
        )


def sequence_seeds(seed: int | Sequence[int] | Tensor | None, batch: int, copies: int, sampling: bool) -> list[int]:
    """One seed per sequence; None draws them from torch's default generator, so torch.manual_seed governs them.

    An integer is the first sequence's seed, and the others have those that follow. So do the sequences of one request
    where there is one integer per request: they are those of a call for this request alone.

    batch:    sequences, `copies` of them for each request, side by side
    sampling: whether they are needed; a greedy call leaves that generator alone, as transformers' does

    Raises ValueError for anything but an integer, or one per request or sequence, of 64 bits.
    """
    if seed is None:
        return torch.randint(2**62, (batch,)).tolist() if sampling else [0] * batch
    given = seed.tolist() if isinstance(seed, Tensor) else seed
    seeds = [int(given) + b for b in range(batch)] if isinstance(given, Integral) else integers(given)
    requests = batch // copies
    if len(seeds) not in (requests, batch):
        raise ValueError(
            f"seed must be one integer or one per request or per returned sequence: got {len(seeds)} for {requests} "
            f"requests and {batch} sequences."
        )
    if len(seeds) == requests:
        seeds = [first + copy for first in seeds for copy in range(copies)]
    if not all(-(2**63) <= one < 2**63 for one in seeds):
        raise ValueError(f"seed must fit into 64 bits, got {seed}.")
    return seeds


def integers(seeds: Any) -> list[int]:
    if not isinstance(seeds, Iterable) or not all(isinstance(one, Integral) for one in seeds):
        raise ValueError(f"seed must be one integer or one per request, got {seeds!r}.")
    return [int(one) for one in seeds]

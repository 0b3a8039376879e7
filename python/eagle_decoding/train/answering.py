"""Two ways of decoding many requests: plainly in slots that refill, or speculatively in fixed batches."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Protocol

import torch
from transformers import GenerationConfig

from eagle_decoding.decoder import SpeculativeDecoder
from eagle_decoding.generation import at_temperature, end_tokens, until_end
from eagle_decoding.slots import FollowUp, Request, SlotDecoder
from eagle_decoding.target import Target

Report = Callable[[int, int], None]


class Answering(Protocol):
    """Decodes requests and whatever follows from them; report(requests finished for good, new tokens)."""

    def __call__(self, requests: list[Request], follow_up: FollowUp, report: Report) -> None: ...


class PlainAnswering:
    """Plain decoding in `batch` slots: the most tokens a second wherever batches are large."""

    def __init__(self, decoder: SpeculativeDecoder, batch: int, max_new_tokens: int):
        self.decoder, self.batch, self.max_new_tokens = decoder, batch, max_new_tokens

    def __call__(self, requests: list[Request], follow_up: FollowUp, report: Report) -> None:
        def finished(request: Request, tokens: list[int]) -> Request | None:
            following = follow_up(request, tokens)
            report(int(following is None), 0)
            return following

        target = Target(self.decoder.target, (), self.decoder.fused)
        slots = SlotDecoder(target, self.batch, end_tokens(self.decoder.target), self.max_new_tokens)
        with target.attached():
            slots.run(requests, finished, lambda tokens: report(0, tokens))


class SpeculativeAnswering:
    """Speculative decoding in batches of one temperature and similar prompt lengths: for small batches on a GPU."""

    def __init__(self, decoder: SpeculativeDecoder, batch: int, max_new_tokens: int):
        self.decoder, self.batch, self.max_new_tokens = decoder, batch, max_new_tokens

    def __call__(self, requests: list[Request], follow_up: FollowUp, report: Report) -> None:
        while requests:
            following = []
            for temperature, group in groupby(sorted(requests, key=lambda r: r.temperature), lambda r: r.temperature):
                alike = sorted(group, key=lambda r: len(r.prompt), reverse=True)
                for start in range(0, len(alike), self.batch):
                    batch = alike[start : start + self.batch]
                    answers = self.answer(batch, temperature)
                    later = [follow_up(request, tokens) for request, tokens in zip(batch, answers, strict=True)]
                    report(later.count(None), sum(map(len, answers)))
                    following += [request for request in later if request is not None]
            requests = following

    def answer(self, batch: list[Request], temperature: float) -> list[list[int]]:
        """New tokens of each request, the one that ends it included."""
        target, ends = self.decoder.target, end_tokens(self.decoder.target)
        longest = max(len(request.prompt) for request in batch)
        padding = [longest - len(request.prompt) for request in batch]
        ids = [[0] * pad + request.prompt for pad, request in zip(padding, batch, strict=True)]
        mask = [[0] * pad + [1] * (longest - pad) for pad in padding]
        settings = GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            eos_token_id=sorted(ends) or None,
            pad_token_id=0,
            **at_temperature(temperature),
        )
        sequences = self.decoder.generate(
            torch.tensor(ids, device=target.device),
            attention_mask=torch.tensor(mask, device=target.device),
            generation_config=settings,
            seed=[request.seed for request in batch],
        )
        return [until_end(row, ends) for row in sequences[:, longest:].tolist()]

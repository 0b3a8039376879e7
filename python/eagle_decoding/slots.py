"""Plain decoding of many prompts at once: a fixed number of slots, and a finished one takes the next prompt."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.cache import TreeCache
from eagle_decoding.target import Target
from eagle_decoding.tree import root_only


@dataclass(frozen=True)
class Request:
    """One prompt to continue.

    key: what the caller knows the request by. prompt: token ids, at least one. temperature: 0 is greedy.
    seed: with the same seed a prompt gets the same text, whatever else is being decoded.
    """

    key: int
    prompt: list[int]
    temperature: float
    seed: int


@dataclass
class Slot:
    """A request at work; `tokens` are its new ones, the last of which is not in the cache yet."""

    request: Request
    tokens: list[int]

    @property
    def context_len(self) -> int:
        return len(self.request.prompt) + len(self.tokens) - 1


FollowUp = Callable[[Request, list[int]], Request | None]


class SlotDecoder:
    """Runs requests through `num_slots` batch rows of the target until none is left.

    Every step is one forward over all busy slots. When a request ends, its row goes to the next one in the queue; when
    the queue is empty, the last row moves into the gap and the batch shrinks, so that no row computes for nothing.
    Use inside `with target.attached():`.

    eos: token ids that end a text; max_new_tokens: longest continuation
    """

    def __init__(self, target: Target, num_slots: int, eos: frozenset[int], max_new_tokens: int):
        self.target, self.num_slots, self.eos, self.max_new_tokens = target, num_slots, eos, max_new_tokens
        self.device = target.model.device

    @torch.inference_mode()
    def run(
        self, requests: Iterable[Request], follow_up: FollowUp, report: Callable[[int], None] = lambda tokens: None
    ) -> None:
        """Continues every request.

        follow_up: called with a finished request and its new tokens (a closing eos included); what it returns is
                   decoded next. report: called with the number of new tokens after every step.
        Raises ValueError when the target's logits hold NaN.
        """
        self.queue = deque(requests)
        self.slots: list[Slot] = []
        self.cache = self.target.new_cache(min(self.num_slots, len(self.queue)))
        self.follow_up = follow_up
        for row in range(self.cache.batch):
            self.slots.append(self.start(row, self.queue.popleft()))
        self.refill()
        while self.slots:
            self.step()
            report(len(self.slots))
            self.refill()

    def start(self, row: int, request: Request) -> Slot:
        """Runs a prompt by itself and puts its keys and values into a row of the batch."""
        prompt = torch.tensor([request.prompt], device=self.device)
        lengths = torch.tensor([len(request.prompt)], dtype=torch.int32, device=self.device)
        alone = self.target.new_cache(1)
        alone.buffer.reserve(len(request.prompt))
        logits = self.target.prefill(prompt, lengths, alone).logits
        self.cache.buffer.reserve(len(request.prompt) + 1)
        rows = slice(len(request.prompt))
        self.cache.buffer.data[:, :, row, :, rows] = alone.buffer.data[:, :, 0, :, rows]
        return Slot(request, self.choose(logits, [request], lengths))

    def step(self) -> None:
        """One new token for every slot."""
        lengths = [slot.context_len for slot in self.slots]
        self.cache.buffer.reserve(max(lengths) + 1)
        context_len = torch.tensor(lengths, dtype=torch.int32, device=self.device)
        newest = torch.tensor([slot.tokens[-1] for slot in self.slots], dtype=torch.int32, device=self.device)
        logits = self.target.verify(root_only(newest, context_len), context_len, self.cache).logits
        chosen = self.choose(logits, [slot.request for slot in self.slots], context_len + 1)
        for slot, token in zip(self.slots, chosen, strict=True):
            slot.tokens.append(token)

    def choose(self, logits: Tensor, requests: list[Request], position: Tensor) -> list[int]:
        """One token per row of logits [rows, 1, vocab], with each request's own temperature and noise."""
        off = torch.zeros(len(requests), device=self.device)
        tokens = eagle_kernels.sample_tokens(
            logits,
            position[:, None],
            seed=torch.tensor([request.seed for request in requests], device=self.device),
            temperature=torch.tensor([request.temperature for request in requests], device=self.device),
            top_k=off.int(),
            top_p=off + 1,
            min_p=off,
        )
        chosen = tokens[:, 0].tolist()
        if min(chosen) < 0:
            raise ValueError("The target's logits hold NaN or infinity; check the model's weights and dtype.")
        return chosen

    def refill(self) -> None:
        """Gives the rows of finished requests to waiting ones, and closes the gaps when none waits."""
        row = 0
        while row < len(self.slots):
            slot = self.slots[row]
            if slot.tokens[-1] not in self.eos and len(slot.tokens) < self.max_new_tokens:
                row += 1
                continue
            following = self.follow_up(slot.request, slot.tokens)
            if following is not None:
                self.queue.appendleft(following)
            if self.queue:
                self.slots[row] = self.start(row, self.queue.popleft())
            else:
                self.drop(row)

    def drop(self, row: int) -> None:
        """Takes a row out of the batch: the last one moves into its place."""
        last = self.slots.pop()
        if row < len(self.slots):
            self.slots[row] = last
        shrink(self.cache, row)


def shrink(cache: TreeCache, row: int) -> None:
    """Moves the cache's last batch row to `row` and leaves the batch one row shorter; the memory stays."""
    buffer, last = cache.buffer, cache.batch - 1
    if row != last:
        buffer.data[:, :, row] = buffer.data[:, :, last]
    buffer.data = buffer.data[:, :, :last]
    buffer.keys, buffer.values = list(buffer.data[0].unbind(0)), list(buffer.data[1].unbind(0))
    cache.batch = last

"""Collects emitted tokens on the host: stopping rules, streaming and the value that generate returns."""

from math import ceil, inf, isfinite
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteriaList
from transformers.generation import EosTokenCriteria, GenerateDecoderOnlyOutput, MaxLengthCriteria


class Output:
    """Sequences of a batch, cut exactly where transformers would stop each of them.

    input_ids: [batch, tokens] int64, the prompt as given (left padding included)
    streamer:  gets the prompt at once, then every step
    """

    def __init__(
        self,
        input_ids: Tensor,
        criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        streamer: Any | None = None,
    ):
        self.input_ids = input_ids
        self.config = generation_config
        self.streamer = streamer
        self.new_tokens: list[list[int]] = [[] for _ in range(len(input_ids))]
        self.finished = [False] * len(input_ids)
        self.recorded: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(len(input_ids))]
        self.streamed = 0
        self.length_criteria = [c for c in criteria if isinstance(c, MaxLengthCriteria)]
        limit = min((c.max_length for c in self.length_criteria), default=inf)  # as in generate: may be a fraction
        self.max_new_tokens = max(1, ceil(limit) - input_ids.shape[1]) if isfinite(limit) else None  # one at least
        self.eos = {int(i) for c in criteria if isinstance(c, EosTokenCriteria) for i in c.eos_token_id.flatten()}
        others = [c for c in criteria if not isinstance(c, MaxLengthCriteria | EosTokenCriteria)]
        self.other_criteria = StoppingCriteriaList(others)
        pad = generation_config._pad_token_tensor
        self.pad_token = 0 if pad is None else int(pad)
        if streamer is not None:
            streamer.put(input_ids.cpu())

    @property
    def done(self) -> bool:
        return all(self.finished)

    @property
    def num_tokens(self) -> int:
        return sum(len(tokens) for tokens in self.new_tokens)

    @property
    def most_rounds_left(self) -> float:
        """No more rounds than this can be needed: each emits a token at least for every request."""
        if self.max_new_tokens is None:
            return inf
        return max((self.max_new_tokens - len(self.new_tokens[b]) for b in self.active_rows()), default=0)

    def active_rows(self) -> list[int]:
        return [b for b, finished in enumerate(self.finished) if not finished]

    @property
    def is_level(self) -> bool:
        """Whether every unfinished request is as long as the longest of all, so that `sequences` pads none of them."""
        longest = max(len(tokens) for tokens in self.new_tokens)
        return all(len(self.new_tokens[b]) == longest for b in self.active_rows())

    def sequences(self) -> Tensor:
        """[batch, tokens] int64: everything of all requests so far, those behind the longest padded on the right."""
        steps = max(len(tokens) for tokens in self.new_tokens)
        padded = [tokens + [self.pad_token] * (steps - len(tokens)) for tokens in self.new_tokens]
        return torch.cat([self.input_ids, self.input_ids.new_tensor(padded)], dim=1)

    def prefix(self, b: int) -> Tensor:
        """[tokens] int64: everything of request b so far, as plain decoding would hold it."""
        return torch.cat([self.input_ids[b], self.input_ids.new_tensor(self.new_tokens[b])])

    def record(self, b: int, logits: Tensor, scores: Tensor) -> None:
        """Keeps the raw and processed scores [1, vocab] of request b's next token."""
        self.recorded[b].append((logits, scores))

    def push(self, tokens: list[list[int]]) -> None:
        """Appends each unfinished request's emitted tokens, up to and including the one that stops it.

        Raises ValueError for token -1: the target's logits were NaN.
        """
        for b in self.active_rows():
            for token in tokens[b]:
                if token < 0:
                    raise ValueError(
                        f"The target's logits for request {b} hold NaN or infinity after {len(self.new_tokens[b])} new "
                        "tokens; check the model's weights and dtype."
                    )
                self.new_tokens[b].append(token)
                if self.stops(b, token):
                    self.finished[b] = True
                    break
        self.warn_of_length()
        self.stream()

    def warn_of_length(self) -> None:
        """Shows transformers' length criteria how long the texts are: they warn, once, beyond the model's context."""
        longest = self.input_ids.shape[1] + max(len(tokens) for tokens in self.new_tokens)
        for criterion in self.length_criteria:
            criterion(torch.empty(1, longest, device="meta"), None)

    def stops(self, b: int, token: int) -> bool:
        if token in self.eos or len(self.new_tokens[b]) == self.max_new_tokens:
            return True
        return bool(self.other_criteria) and bool(
            self.other_criteria(self.prefix(b)[None], self.scores_so_far(b)).all()
        )

    def scores_so_far(self, b: int) -> tuple[Tensor, ...] | None:
        return tuple(scores for _, scores in self.emitted_records(b)) if self.config.output_scores else None

    def emitted_records(self, b: int) -> list[tuple[Tensor, Tensor]]:
        """What was recorded of request b's emitted tokens: a whole round is recorded before its tokens are pushed."""
        return self.recorded[b][: len(self.new_tokens[b])]

    def stream(self) -> None:
        """Hands the streamer every step that all unfinished requests have reached."""
        if self.streamer is None:
            return
        lengths = [len(self.new_tokens[b]) for b in self.active_rows()] or [len(t) for t in self.new_tokens]
        ready = max(lengths) if self.done else min(lengths)
        for step in range(self.streamed, ready):
            column = [t[step] if step < len(t) else self.pad_token for t in self.new_tokens]
            self.streamer.put(torch.tensor(column))
        self.streamed = ready
        if self.done:
            self.streamer.end()

    def result(self) -> Tensor | GenerateDecoderOnlyOutput:
        """What transformers' generate returns for the same settings, but past_key_values."""
        sequences = self.sequences()
        if not self.config.return_dict_in_generate:
            return sequences
        steps = sequences.shape[1] - self.input_ids.shape[1]
        logits = self.stack(0, steps) if self.config.output_logits else None
        scores = self.stack(1, steps) if self.config.output_scores else None
        return GenerateDecoderOnlyOutput(sequences=sequences, scores=scores, logits=logits)

    def stack(self, kind: int, steps: int) -> tuple[Tensor, ...]:
        """Recorded rows as one [batch, vocab] tensor per step; requests that ended earlier show zeros."""
        blank = torch.zeros_like(self.recorded[0][0][kind])
        records = [self.emitted_records(b) for b in range(len(self.new_tokens))]
        rows = [[r[step][kind] if step < len(r) else blank for r in records] for step in range(steps)]
        return tuple(torch.cat(row) for row in rows)

"""Which rows of the unrolled loop are computed: the supervision law of EAGLE-3 and the compaction that follows from it.

Source position t at step j reads token t + 1 + j and predicts token t + 2 + j. Row (t, j) is supervised if and only if
token t + 2 + j is supervised and lies in the same document; it is needed if row (t, i) is supervised for some i >= j,
because step i continues from the state of step i - 1 at the same t.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Documents:
    """Several token sequences laid end to end; attention never crosses from one to the next.

    input_ids [T], int64: tokens. supervised [T], bool: tokens the head must learn to predict.
    starts [D + 1], int64: first token of each document, then T.
    """

    input_ids: Tensor
    supervised: Tensor
    starts: Tensor

    def to(self, device: torch.device) -> Documents:
        """The same documents on another device."""
        return Documents(self.input_ids.to(device), self.supervised.to(device), self.starts.to(device))

    @property
    def ends(self) -> Tensor:
        """[T], int64: for each token, the index after its document's last token."""
        return self.starts[1:].repeat_interleave(self.starts.diff())

    @property
    def positions(self) -> Tensor:
        """[T], int64: index of each token in its document."""
        begins = self.starts[:-1].repeat_interleave(self.starts.diff())
        return torch.arange(self.input_ids.shape[0], device=begins.device) - begins


def supervised_rows(documents: Documents, steps: int) -> Tensor:
    """[steps, T], bool: entry (j, t) is true where token t + 2 + j is supervised and in the document of t."""
    total, ends = documents.input_ids.shape[0], documents.ends
    source = torch.arange(total, device=ends.device)
    law = torch.zeros(steps, total, dtype=torch.bool, device=ends.device)
    for step in range(steps):
        predicted = source + 2 + step
        inside = predicted < ends
        law[step] = inside & documents.supervised[predicted.clamp(max=total - 1)]
    return law


def needed_rows(law: Tensor) -> Tensor:
    """[steps, T], bool: rows that are supervised, or from which a supervised row of a later step continues."""
    return law.flip(0).cummax(0).values.flip(0)

"""What one step of training knows about the rows it scored."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from eagle_decoding.train.losses import TokenScores


@dataclass(frozen=True)
class StepOutput:
    """One step of the unrolled loop, or one of several heads that predict side by side.

    step: j; row t predicts token t + 2 + j. rows [R], int64: source positions t of the scored rows.
    scores: what the loss knows of each of them. token [R], int64: draft id of the predicted token, -1 outside the draft
    vocabulary. supervised: how many rows the supervision law names at this step, whether or not they were computed.
    token_weight: factor of the token loss, one number or [R]. extra [R], float: a further loss of each row, already
    weighted, or None.
    """

    step: int
    rows: Tensor
    scores: TokenScores
    token: Tensor
    supervised: int
    token_weight: float | Tensor = 1.0
    extra: Tensor | None = None

    def loss(self) -> Tensor:
        """Sum over the scored rows; rows whose token is outside the draft vocabulary give no token loss."""
        known = (self.token >= 0).to(self.scores.loss.dtype)
        total = (self.scores.loss * known * self.token_weight).sum()
        return total if self.extra is None else total + self.extra.sum()

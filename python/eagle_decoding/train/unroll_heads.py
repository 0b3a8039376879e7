"""Heads that predict side by side, one per depth, along the text: what Medusa and Hydra learn from a pack."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from eagle_decoding.train.depth_head import DepthHead
from eagle_decoding.train.losses import linear_soft_cross_entropy, teacher_probabilities
from eagle_decoding.train.rows import Documents, needed_rows, supervised_rows
from eagle_decoding.train.step import StepOutput


def unroll_heads(
    head: DepthHead, documents: Documents, final: Tensor, steps: int, path_floor: float = 0.0
) -> Iterator[StepOutput]:
    """Scores of every supervised row, head by head.

    Head j reads the target's state at t (and, for Hydra, tokens t + 1 .. t + 1 + j of the text: the path it would have
    drafted on) and predicts token t + 2 + j. Its teacher is the target's own distribution there.

    final [T, H], float: the target's states after its final norm.
    path_floor: as in `unroll`.
    """
    law = supervised_rows(documents, steps)
    needed = needed_rows(law)
    tokens = head.draft_ids[documents.input_ids]
    predicted = torch.nonzero(law[0])[:, 0] + 2
    teacher = teacher_probabilities(final[predicted - 1], head.lm_head)
    teacher_row = torch.full_like(documents.input_ids, -1)
    teacher_row[predicted] = torch.arange(predicted.shape[0], device=predicted.device)

    log_floor = math.log(path_floor) if path_floor > 0 else -math.inf
    state = head.begin(final, documents)
    rows = torch.nonzero(needed[0])[:, 0]
    path = torch.zeros(rows.shape[0], device=rows.device)
    for step in range(steps):
        keep = needed[step][rows] & (path >= log_floor)
        rows, path = rows[keep], path[keep]
        scored = law[step][rows]
        source = rows[scored]
        if source.shape[0] == 0:
            continue
        hidden = head(step, state[source], path_tokens(documents, source, step))
        target = source + 2 + step
        scores = linear_soft_cross_entropy(hidden, head.lm_head, teacher, teacher_row[target], tokens[target])
        path = path.masked_scatter(scored, path[scored] + scores.logprob)
        yield StepOutput(step, source, scores, tokens[target], int(law[step].sum()))


def path_tokens(documents: Documents, source: Tensor, step: int) -> Tensor:
    """Tokens t + 1 .. t + 1 + step of the text after each source position t: [R] -> [R, step + 1]."""
    return documents.input_ids[source[:, None] + 1 + torch.arange(step + 1, device=source.device)]

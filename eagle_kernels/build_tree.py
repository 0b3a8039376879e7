"""build_tree: the best nodes of a grown draft tree, ready for verification."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def build_tree(
    node_scores: Tensor,
    node_tokens: Tensor,
    node_parents: Tensor,
    context_len: Tensor,
    num_nodes: int,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Keeps the root and the num_nodes - 1 best candidates of a history, as one tree per request.

    Candidates are visited by score, descending, ties to the lowest slot; one is kept if its parent is kept already.
    Log-probabilities are <= 0, so a node never outranks its ancestors and this is the plain top N - 1: the reranking
    phase of EAGLE-2 (Li et al., 2024, arXiv 2406.16858, section 4.2). Candidates that score NaN or -inf (slots never
    written) or whose parent is not an earlier kept slot are dropped. Kept nodes are numbered by ascending slot, so a
    parent comes before its children.

    node_scores:  [B, M] float32, from expand_tree; slot 0 is the root
    node_tokens:  [B, M] int32
    node_parents: [B, M] int32, slots
    context_len:  [B] int32, committed rows = position of the root
    num_nodes:    N, 1 <= N <= min(M, 128)

    Returns
    draft_tokens:  [B, N] int32; padding repeats the root's token
    parent:        [B, N] int32, node index; -1 for the root and for padding
    depth:         [B, N] int32; padding 0
    position_ids:  [B, N] int32, context_len + depth
    ancestor_mask: [B, N, ceil(N / 64)] int64, bit j: node j is an ancestor or the node itself; padding: own bit only
    node_slots:    [B, N] int32, slot in the history; padding -1

    Raises RuntimeError for num_nodes out of range.
    """
    return resolve("build_tree", node_scores, backend)(node_scores, node_tokens, node_parents, context_len, num_nodes)


@torch.library.register_fake("eagle_kernels::build_tree")
def _(
    node_scores: Tensor, node_tokens: Tensor, node_parents: Tensor, context_len: Tensor, num_nodes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, words = node_scores.shape[0], (num_nodes + 63) // 64
    draft_tokens, parent, depth, position_ids, node_slots = (
        node_tokens.new_empty((batch, num_nodes)) for _ in range(5)
    )
    ancestor_mask = node_tokens.new_empty((batch, num_nodes, words), dtype=torch.int64)
    return draft_tokens, parent, depth, position_ids, ancestor_mask, node_slots

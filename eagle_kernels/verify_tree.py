"""verify_tree: follow the target's tokens down the draft tree."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def verify_tree(
    draft_tokens: Tensor,
    parent: Tensor,
    target_tokens: Tensor,
    max_depth: int | None = None,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Walks from the root to the child whose draft token is the one the target chose, as long as there is one.

    Exact whatever the tree holds, if target_tokens were chosen with noise keyed by position: what is emitted is what
    plain decoding would have emitted, and the tree may even depend on that noise (docs/losslessness.md, theorem 5).

    draft_tokens:  [batch, num_nodes] int32, node 0 is the root
    parent:        [batch, num_nodes] int32, parent[n] < n, root -1; a later node with parent -1 is padding
    target_tokens: [batch, num_nodes] int32, the token the target chose after each node; negative ends the walk
    max_depth:     longest path to accept, num_nodes - 1 by default

    Returns accept_index [batch, max_depth + 1] int32, nodes on the path beginning with the root, -1 padded;
    accept_length [batch] int32, accepted drafts; bonus_token [batch] int32, target_tokens at the last accepted node.
    Among children with equal tokens the lowest node wins.
    """
    depth = draft_tokens.shape[1] - 1 if max_depth is None else max_depth
    return resolve("verify_tree", draft_tokens, backend)(draft_tokens, parent, target_tokens, depth)


@torch.library.register_fake("eagle_kernels::verify_tree")
def _(draft_tokens: Tensor, parent: Tensor, target_tokens: Tensor, max_depth: int) -> tuple[Tensor, Tensor, Tensor]:
    batch = draft_tokens.shape[0]
    return draft_tokens.new_empty((batch, max_depth + 1)), draft_tokens.new_empty(batch), draft_tokens.new_empty(batch)

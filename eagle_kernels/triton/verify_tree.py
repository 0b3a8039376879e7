"""verify_tree in Triton."""

import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.launch import block_of


@triton.jit
def matching_child(here, target, node, parent, token, num_nodes):
    """The lowest child of `here` that holds the target's token, or num_nodes."""
    matches = (parent == here) & (node > here) & (token == target) & (target >= 0)
    return tl.min(tl.where(matches, node, num_nodes))


# grid: (batch); all nodes at once are asked who continues the path
@triton.jit
def verify_tree_kernel(
    draft_token_ptr,
    parent_ptr,
    target_token_ptr,
    accept_index_ptr,
    accept_length_ptr,
    bonus_token_ptr,
    num_nodes,
    max_depth,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    node, step = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    exists = node < num_nodes
    token = tl.load(draft_token_ptr + b * num_nodes + node, mask=exists, other=-1)
    parent = tl.load(parent_ptr + b * num_nodes + node, mask=exists, other=-1)

    length = 0
    path = tl.where(step == 0, 0, -1)
    target = tl.load(target_token_ptr + b * num_nodes)
    child = matching_child(0, target, node, parent, token, num_nodes)
    while (child < num_nodes) & (length < max_depth):
        length += 1
        path = tl.where(step == length, child, path)
        target = tl.load(target_token_ptr + b * num_nodes + child)
        child = matching_child(child, target, node, parent, token, num_nodes)

    tl.store(accept_index_ptr + b * (max_depth + 1) + step, path, mask=step <= max_depth)
    tl.store(accept_length_ptr + b, length)
    tl.store(bonus_token_ptr + b, target)


def verify_tree(
    draft_tokens: Tensor, parent: Tensor, target_tokens: Tensor, max_depth: int
) -> tuple[Tensor, Tensor, Tensor]:
    batch, num_nodes = draft_tokens.shape
    accept_index = draft_tokens.new_empty(batch, max_depth + 1)
    accept_length, bonus_token = draft_tokens.new_empty(batch), draft_tokens.new_empty(batch)
    if batch:
        verify_tree_kernel[(batch,)](
            draft_tokens.contiguous(),
            parent.contiguous(),
            target_tokens.contiguous(),
            accept_index,
            accept_length,
            bonus_token,
            num_nodes,
            max_depth,
            BLOCK_N=block_of(num_nodes),
            BLOCK_D=block_of(max_depth + 1),
            num_warps=1,
        )
    return accept_index, accept_length, bonus_token

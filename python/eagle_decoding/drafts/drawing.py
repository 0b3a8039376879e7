"""Growing a draft tree of sampled children, for verification by rejection (Jeon et al. 2024, arXiv 2402.14160)."""

from collections.abc import Callable

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.growth import Level
from eagle_decoding.sampling import SamplingParams
from eagle_decoding.tree import DraftTree, Proposal
from eagle_kernels.sample_children import child_budget


def draw(
    tree: TreeConfig,
    root_tokens: Tensor,
    context_len: Tensor,
    root_logits: Tensor,
    forward: Callable[[Level], Tensor],
    params: SamplingParams,
) -> DraftTree:
    """Draws max_depth levels of children without replacement, as many a level as num_nodes and topk allow.

    Which node gets how many children is decided before any is drawn, by the law alone: the text keeps its law.
    Arguments as in `growth.grow`.
    """
    batch, device = len(root_tokens), root_tokens.device
    width = max(1, min(tree.topk, (tree.num_nodes - 1) // tree.max_depth))
    num_nodes = 1 + width * tree.max_depth
    draft_tokens = root_tokens[:, None].repeat(1, num_nodes)
    parent = torch.full_like(draft_tokens, -1)
    depth = torch.zeros_like(draft_tokens)
    masks = own_bits(num_nodes, device).repeat(batch, 1, 1)
    draft_logits = root_logits.new_zeros(batch, num_nodes, root_logits.shape[-1])
    frontier, scores, logits = slice(0, 1), torch.zeros(batch, 1, device=device), root_logits
    for level in range(1, tree.max_depth + 1):
        draft_logits[:, frontier] = logits
        nodes = torch.arange(frontier.start, frontier.stop, dtype=torch.int32, device=device).expand(batch, -1)
        likeliest, _, _ = eagle_kernels.topk_logprobs(logits.flatten(0, 1), width)
        drawn, logprobs = eagle_kernels.sample_children(
            logits,
            nodes.contiguous(),
            child_budget(scores, likeliest.view(batch, -1, width), width),
            context_len,
            **vars(params),
            max_children=width,
        )
        places = (drawn < 0).flatten(1).int().argsort(dim=1, stable=True)[:, :width]
        chosen = drawn.flatten(1).gather(1, places)
        real, above = chosen >= 0, places // width
        level_nodes = slice(frontier.stop, frontier.stop + width)
        draft_tokens[:, level_nodes] = torch.where(real, chosen, root_tokens[:, None])
        parent[:, level_nodes] = torch.where(real, nodes.gather(1, above), -1)
        depth[:, level_nodes] = torch.where(real, level, 0)
        inherited = masks[:, frontier].gather(1, above[..., None].expand(-1, -1, masks.shape[2]))
        masks[:, level_nodes] |= torch.where(real[..., None], inherited, 0)
        scores = scores.gather(1, above) + logprobs.flatten(1).gather(1, places)
        if level < tree.max_depth:
            rows = without_root(masks[:, level_nodes])
            logits = forward(Level(draft_tokens[:, level_nodes].contiguous(), level, rows, frontier.stop - 1))
        frontier = level_nodes
    return DraftTree(
        draft_tokens,
        parent,
        depth,
        context_len[:, None] + depth,
        masks,
        None,
        tree.max_depth,
        Proposal(draft_logits),
    )


def own_bits(num_nodes: int, device: torch.device) -> Tensor:
    """[num_nodes, words] int64: bit n of row n, in words of 64 bits."""
    node = torch.arange(num_nodes, device=device)
    masks = torch.zeros(num_nodes, -(-num_nodes // 64), dtype=torch.int64, device=device)
    masks[node, node // 64] = torch.ones_like(node) << node % 64
    return masks


def without_root(masks: Tensor) -> Tensor:
    """Masks [batch, nodes, words] int64 over the rows below the root: every bit one place down."""
    low = torch.full_like(masks[..., :1], (1 << 63) - 1)
    carried = torch.cat([masks[..., 1:] << 63, torch.zeros_like(masks[..., :1])], dim=-1)
    return (masks >> 1 & low) | carried

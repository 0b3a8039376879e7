"""build_tree: the best nodes of a grown history, against a plain top-k with vectorised parents and masks."""

import torch
from torch import Tensor

import eagle_kernels
from bench.case import Case, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes
from eagle_kernels.reference.ancestor_mask import pack


def grown_history(s: Sizes) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, tokens and parents of every node that a round of the head looks at."""
    slots = 1 + s.topk + (s.max_depth - 1) * s.topk**2
    node_scores = torch.zeros(s.batch, slots)
    node_tokens, node_parents = (torch.full((s.batch, slots), fill, dtype=torch.int32) for fill in (0, -1))
    scores, frontier = torch.zeros(s.batch, 1), torch.zeros(s.batch, 1, dtype=torch.int32)
    mask = torch.zeros(s.batch, 1, 1, dtype=torch.int64)
    slot = 1
    for _ in range(s.max_depth):
        logprobs, token_ids = torch.randn(s.batch, scores.shape[1], 50).mul(2).log_softmax(-1).topk(s.topk)
        level = (scores, frontier, mask, logprobs, token_ids.int(), node_scores, node_tokens, node_parents, slot, 0)
        slot += scores.shape[1] * s.topk
        scores, frontier, _, _, mask = eagle_kernels.expand_tree(*level)
    return node_scores, node_tokens, node_parents


def case(s: Sizes, make: Maker) -> Case:
    history = [make.tensor(column, column.dtype) for column in grown_history(s)]
    context_len = make.tensor([s.context_len] * s.batch)
    written = 4 * 5 * s.batch * s.num_nodes + 8 * s.batch * s.num_nodes * -(-s.num_nodes // 64)
    return Case((*history, context_len, s.num_nodes), nbytes(*history) + written, 0, in_torch)


def in_torch(
    node_scores: Tensor, node_tokens: Tensor, node_parents: Tensor, context_len: Tensor, num_nodes: int
) -> tuple[Tensor, ...]:
    kept = node_scores[:, 1:].topk(num_nodes - 1).indices.sort().values + 1
    slots = torch.nn.functional.pad(kept, (1, 0))  # the root, slot 0, in front
    tokens = node_tokens.gather(1, slots)
    above = node_parents.gather(1, slots).long()
    parent = torch.searchsorted(slots, above.clamp(min=0))
    ancestors = torch.eye(num_nodes, dtype=torch.bool, device=slots.device).repeat(len(slots), 1, 1)
    for node in range(1, num_nodes):
        ancestors[:, node] |= ancestors.gather(1, parent[:, node, None, None].expand(-1, 1, num_nodes))[:, 0]
    depth = ancestors.sum(-1, dtype=torch.int32) - 1
    parent = torch.where(above < 0, -1, parent)
    return tokens, parent, depth, context_len[:, None] + depth, pack(ancestors), slots


bench_build_tree = op_benchmark("build_tree", case, ("batch", "num_nodes"))

"""expand_tree: one level of growth, against torch's top-k over all children and masks by gather."""

import torch
from torch import Tensor

from bench.case import Case, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes


def case(s: Sizes, make: Maker) -> Case:
    slots = 1 + s.topk + s.topk**2
    words = -(-s.max_depth * s.topk // 64)
    scores = make.tensor(-torch.rand(s.batch, s.topk), torch.float32)
    frontier = make.tensor(torch.arange(1, 1 + s.topk).expand(s.batch, s.topk))
    mask = make.tensor(torch.ones(s.batch, s.topk, words), torch.int64)
    logprobs = make.tensor(-torch.rand(s.batch, s.topk, s.topk), torch.float32)
    token_ids = make.integers(0, s.vocab_size, s.batch, s.topk, s.topk)
    history = [make.tensor(torch.zeros(s.batch, slots), kind) for kind in (torch.float32, torch.int32, torch.int32)]
    level = (scores, frontier, mask, logprobs, token_ids, *history, 1 + s.topk, s.topk)
    num_bytes = 2 * nbytes(scores, frontier, mask) + nbytes(logprobs, token_ids) + 12 * logprobs.numel()
    return Case(level, num_bytes, logprobs.numel(), in_torch)


def in_torch(
    frontier_scores: Tensor,
    frontier_slots: Tensor,
    frontier_mask: Tensor,
    logprobs: Tensor,
    token_ids: Tensor,
    node_scores: Tensor,
    node_tokens: Tensor,
    node_parents: Tensor,
    slot_offset: int,
    row_offset: int,
) -> tuple[Tensor, ...]:
    topk = logprobs.shape[2]
    scores, tokens = (frontier_scores[..., None] + logprobs).flatten(1), token_ids.flatten(1)
    level = slice(slot_offset, slot_offset + scores.shape[1])
    node_scores[:, level] = scores
    node_tokens[:, level] = tokens
    node_parents[:, level] = frontier_slots.repeat_interleave(topk, dim=1, output_size=scores.shape[1])
    best, index = scores.topk(topk)
    origin = index // topk
    bits = torch.ones(topk, dtype=torch.int64, device=best.device) << (row_offset + torch.arange(topk)).to(best.device)
    mask = frontier_mask.gather(1, origin[..., None].expand(-1, -1, frontier_mask.shape[2]))
    mask[..., 0] |= bits
    return best, slot_offset + index, tokens.gather(1, index), origin, mask


bench_expand_tree = op_benchmark("expand_tree", case, ("batch", "topk"))

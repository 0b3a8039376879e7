"""decoder_layers: some of a target's layers over a tree, against torch's pieces one layer after the other."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from bench import bench_draft_mlp, bench_draft_output, bench_draft_qkv_rope, bench_tree_attention
from bench.case import Case, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes, layer_inputs

LAYERS = 4  # stand for all: layers are alike, and compiled torch takes its time over each


def case(s: Sizes, make: Maker) -> Case:
    arguments = list(layer_inputs(replace(s, num_layers=LAYERS), make))
    context = make.tensor([s.context_len] * s.batch)  # torch's way is for requests of one length
    arguments[8] = arguments[11] = context[:, None] + make.tensor(torch.arange(s.num_nodes))
    arguments[12] = context
    hidden, caches = arguments[0], arguments[7]
    rows, seen = s.batch * s.num_nodes, s.context_len + s.num_nodes
    matrices = [weight for kind in (2, 3, 5, 6) for weight in arguments[kind]]
    flops = 2 * rows * sum(matrix.numel() for matrix in matrices)
    flops += LAYERS * 4 * rows * s.num_heads * seen * s.head_dim
    return Case(tuple(arguments), nbytes(*matrices, caches) + 2 * nbytes(hidden), flops, in_torch)


def in_torch(
    hidden: Tensor,
    norm_weight: list[Tensor],
    qkv_weight: list[Tensor],
    o_weight: list[Tensor],
    mlp_norm_weight: list[Tensor],
    gate_up_weight: list[Tensor],
    down_weight: list[Tensor],
    caches: Tensor,
    cache_rows: Tensor,
    rope_cos: Tensor,
    rope_sin: Tensor,
    position_ids: Tensor,
    context_len: Tensor,
    ancestor_mask: Tensor,
    num_heads: int,
    scale: float,
    eps: float,
    *options: Any,
) -> Tensor:
    rotary = (rope_cos, rope_sin, position_ids)
    for i, (keys, values) in enumerate(zip(*caches, strict=True)):
        normed = rms_norm(hidden, norm_weight[i].shape, norm_weight[i], eps)
        query = bench_draft_qkv_rope.in_torch(normed, qkv_weight[i], None, *rotary, keys, values, cache_rows, num_heads)
        found = bench_tree_attention.in_torch(0, query, keys, values, context_len, ancestor_mask, scale)
        hidden, normed = bench_draft_output.in_torch(found.flatten(2), o_weight[i], hidden, mlp_norm_weight[i], eps)
        hidden = bench_draft_mlp.in_torch(normed, gate_up_weight[i], down_weight[i], hidden)
    return hidden


bench_decoder_layers = op_benchmark("decoder_layers", case, ("batch", "context_len", "num_nodes"))

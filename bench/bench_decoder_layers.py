"""decoder_layers: some of a target's layers over a tree, against torch's pieces one layer after the other."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from bench import bench_draft_mlp, bench_draft_output, bench_draft_qkv_rope, bench_tree_attention
from bench.case import Case, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes, layer_inputs
from eagle_kernels.reference.decoder_layers import LayerOps, layer_by_layer

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
    in_torch = partial(layer_by_layer, IN_TORCH)
    return Case(tuple(arguments), nbytes(*matrices, caches) + 2 * nbytes(hidden), flops, in_torch)


def normed(input: Tensor, weight: Tensor, eps: float) -> Tensor:
    return rms_norm(input, weight.shape, weight, eps)


def rotated_queries(*arguments: Any, **options: Any) -> Tensor:
    """Of layers without norms of heads, on contiguous caches, as all are here."""
    return bench_draft_qkv_rope.in_torch(*arguments)


IN_TORCH = LayerOps(
    normed,
    rotated_queries,
    partial(bench_tree_attention.in_torch, 0),
    bench_draft_output.in_torch,
    bench_draft_mlp.in_torch,
)
bench_decoder_layers = op_benchmark("decoder_layers", case, ("batch", "context_len", "num_nodes"))

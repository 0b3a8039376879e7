"""tree_attention: a tree over its context, against torch's SDPA with a boolean mask over the whole context."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from bench.case import Case, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes, random_ancestor_mask
from eagle_kernels.reference.ancestor_mask import unpack


def case(s: Sizes, make: Maker) -> Case:
    length = s.context_len + s.num_nodes
    query = make.normal(s.batch, s.num_nodes, s.num_heads, s.head_dim).transpose(1, 2)
    key, value = (make.normal(s.batch, s.num_kv_heads, length, s.head_dim) for _ in range(2))
    context_len = make.tensor([s.context_len] * s.batch)
    arguments = (query, key, value, context_len, random_ancestor_mask(s, make), s.head_dim**-0.5)
    flops = 4 * s.batch * s.num_heads * s.num_nodes * length * s.head_dim
    return Case(arguments, nbytes(key, value) + 2 * nbytes(query), flops, in_torch)


def in_torch(
    query: Tensor, key: Tensor, value: Tensor, context_len: Tensor, ancestor_mask: Tensor, scale: float
) -> Tensor:
    """For requests of one length, as all are here."""
    rows = query.shape[2]
    prefix = torch.ones(len(query), rows, key.shape[2] - rows, dtype=torch.bool, device=query.device)
    visible = torch.cat([prefix, unpack(ancestor_mask)[:, :, :rows]], dim=2)[:, None]
    output = scaled_dot_product_attention(query, key, value, attn_mask=visible, scale=scale, enable_gqa=True)
    return output.transpose(1, 2)


bench_tree_attention = op_benchmark("tree_attention", case, ("batch", "context_len", "num_nodes"))

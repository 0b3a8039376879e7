"""rope: queries and keys of a tree as the projections leave them, against transformers' eager function."""

from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from bench.case import Case, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes


def case(s: Sizes, make: Maker) -> Case:
    query, key = (
        make.normal(s.batch, s.num_nodes, heads, s.head_dim).transpose(1, 2) for heads in (s.num_heads, s.num_kv_heads)
    )
    cos, sin = (make.normal(s.batch, s.num_nodes, s.head_dim) for _ in range(2))
    num_bytes = 2 * nbytes(query, key) + nbytes(cos, sin)
    return Case((query, key, cos, sin), num_bytes, 3 * (query.numel() + key.numel()), in_torch)


def in_torch(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return apply_rotary_pos_emb(query, key, cos, sin)


bench_rope = op_benchmark("rope", case, ("batch", "num_nodes"))

"""rope: the same bits as transformers' eager mode in every dtype."""

import pytest
import torch
from compare import assert_bitwise, strided
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import eagle_kernels


def make_case(dtype: torch.dtype, device: str, head_dim: int = 64) -> list[torch.Tensor]:
    shapes = [(2, 9, 7, head_dim), (2, 3, 7, head_dim), (2, 7, head_dim), (2, 7, head_dim)]
    return [torch.randn(shape).to(device, dtype) for shape in shapes]


@pytest.mark.parametrize("backend", [None, "triton", "reference"])
@pytest.mark.parametrize("head_dim", [64, 2, 22, 128])
def test_matches_transformers(device, dtype, head_dim, backend):
    case = make_case(dtype, device, head_dim)
    for name, actual, expected in zip(
        ["query", "key"],
        eagle_kernels.rope(*case, backend=backend),
        apply_rotary_pos_emb(*case),
        strict=True,
    ):
        assert_bitwise(actual, expected, name)


def test_strided_views(backend, device, dtype):
    query, key, cos, sin = make_case(dtype, device)
    expected = eagle_kernels.rope(query, key, cos[:1].expand(2, -1, -1), sin)
    projected = query.transpose(1, 2).contiguous().transpose(1, 2)  # as a projection leaves the heads
    actual = eagle_kernels.rope(projected, strided(key), cos[:1].expand(2, -1, -1), strided(sin))
    assert_bitwise(actual[0], expected[0], "query")
    assert_bitwise(actual[1], expected[1], "key")
    assert actual[0].is_contiguous() and actual[1].is_contiguous()


def test_opcheck(device):
    torch.library.opcheck(torch.ops.eagle_kernels.rope.default, make_case(torch.float32, device))


def test_errors_name_op_and_tensor(device):
    query, key, cos, sin = make_case(torch.float32, device)
    with pytest.raises(
        RuntimeError, match=r"rope: cos must be \[B, Q, d\] with B = 2, Q = 7, d = 64, got \[1, 7, 64\]"
    ):
        eagle_kernels.rope(query, key, cos[:1], sin)
    with pytest.raises(RuntimeError, match="rope: sin must have the dtype of query"):
        eagle_kernels.rope(query, key, cos, sin.half())
    with pytest.raises(RuntimeError, match="rope: head_dim is 63 but must be even"):
        eagle_kernels.rope(*(t[..., :63].contiguous() for t in [query, key, cos, sin]))

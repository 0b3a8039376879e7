"""rope: the same bits as transformers' eager mode in every dtype; a head's tables: transformers' own, scaled too."""

import pytest
import torch
from compare import assert_bitwise, strided
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

import eagle_kernels
from eagle_decoding.checkpoint import HeadConfig
from eagle_decoding.drafts.rope import RopeTable
from eagle_decoding.train.attention import rope_tables
from eagle_decoding.train.head import rotary


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


def test_a_head_of_scaled_rope_is_trained_and_served_as_transformers_would(device):
    """Yarn also scales cosines and sines, here by 0.7."""
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "attention_factor": 0.7}
    shape = {"hidden_size": 32, "intermediate_size": 40, "head_dim": 8, "vocab_size": 97, "rope_parameters": yarn}
    stock = LlamaRotaryEmbedding(LlamaConfig(num_attention_heads=4, max_position_embeddings=256, **shape)).to(device)
    positions = torch.arange(200, device=device)
    expected = [t[0] for t in stock(torch.empty(0, device=device), positions[None])]
    assert float(expected[0].max()) == pytest.approx(0.7)
    config = HeadConfig(
        num_heads=4, num_kv_heads=2, draft_vocab_size=97, target_hidden_size=32, max_position_embeddings=256, **shape
    )
    inv_freq, scaling = rotary(config)
    trained = rope_tables(inv_freq.to(device), positions, scaling)
    served = RopeTable(config, torch.device(device)).up_to(200)
    for theirs, training, serving in zip(expected, trained, served, strict=True):
        torch.testing.assert_close(training[:, 0], theirs)
        assert_bitwise(serving[:200], theirs[:, :4])


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

"""draft_qkv_rope: against the reference in float64 and Qwen3's own attention, poisoned caches, rows by themselves."""

from typing import Any

import pytest
import torch
from compare import assert_bitwise, assert_close, poisoned, strided
from draft_head import EPS, TOLERANCE, DraftHead
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3RotaryEmbedding, apply_rotary_pos_emb

import eagle_kernels
from eagle_decoding.numerics.audit import outputs_of
from eagle_decoding.numerics.cases import with_fp8_weights

OP = "draft_qkv_rope"
OUTPUTS = ("query", "key_cache", "value_cache")
NORMS = pytest.mark.parametrize("norms", [False, True], ids=["plain", "norms"])


def make_case(head: DraftHead, bias: bool = True, norms: bool = False) -> dict[str, Any]:
    outputs = (head.heads + 2 * head.kv_heads) * head.head_dim
    angles = torch.rand(head.positions, head.head_dim // 2, generator=head.generator) * 6
    cache_shape = (head.batch, head.kv_heads, head.cache_length, head.head_dim)
    cache_rows = torch.stack(
        [torch.randperm(head.cache_length, generator=head.generator)[: head.rows] for _ in range(head.batch)]
    )
    cache_rows[-1, head.rows // 2] = -1
    case = {
        "x": head.random(head.batch, head.rows, 2 * head.hidden),
        "qkv_weight": head.weight(outputs, 2 * head.hidden),
        "qkv_bias": head.random(outputs) if bias else None,
        "rope_cos": angles.cos().to(head.device),
        "rope_sin": angles.sin().to(head.device),
        "position_ids": head.integers(0, head.positions, head.batch, head.rows),
        "key_cache": poisoned(cache_shape, head.dtype, head.device),
        "value_cache": poisoned(cache_shape, head.dtype, head.device),
        "cache_rows": cache_rows.int().to(head.device),
        "num_heads": head.heads,
    }
    if norms:
        weights = {name: head.random(head.head_dim) for name in ("q_norm_weight", "k_norm_weight")}
        case |= {"qkv_scale": None, "page_table": None, **weights, "norm_eps": EPS}
    return case


def with_own_caches(case: dict) -> dict:
    return case | {name: case[name].clone() for name in ["key_cache", "value_cache"]}


SHAPES = {
    "small": {},
    "one row": {"batch": 1, "rows": 1},
    "head of 64": {"head_dim": 64, "heads": 3, "kv_heads": 1},
    "head of 96": {"head_dim": 96, "heads": 2, "kv_heads": 1},
    "head of 128": {"head_dim": 128, "heads": 2, "kv_heads": 1},
    "head of 256": {"head_dim": 256, "heads": 1, "kv_heads": 1},
    "head of 290": {"head_dim": 290, "heads": 2, "kv_heads": 1},
    "head of 2": {"head_dim": 2},
    "more rows than a product takes": {"batch": 3, "rows": 50, "heads": 2, "kv_heads": 1, "cache_length": 70},
}


@NORMS
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_matches_reference(backend, device, dtype, shape, bias, norms):
    case = make_case(DraftHead(dtype, device, **shape), bias, norms)
    expected = outputs_of(OP, "reference", tuple(case.values()), {}, exactly=True)
    query = eagle_kernels.draft_qkv_rope(**case)
    assert query.dtype == dtype and query.is_contiguous()
    actual = query, case["key_cache"], case["value_cache"]
    for name, a, e in zip(OUTPUTS, actual, expected, strict=True):  # rows not written stay NaN
        assert_close(a, e, TOLERANCE[dtype], TOLERANCE[dtype], name)


def test_norms_of_fp8_products(backend, device, dtype):
    case = make_case(DraftHead(dtype, device), norms=True)
    arguments, scales = with_fp8_weights(OP, tuple(case.values())[:10])
    others = scales | {name: case[name] for name in ("q_norm_weight", "k_norm_weight", "norm_eps")}
    expected = outputs_of(OP, "reference", arguments, others, exactly=True)
    query = eagle_kernels.draft_qkv_rope(*arguments, **others)
    for name, a, e in zip(OUTPUTS, (query, case["key_cache"], case["value_cache"]), expected, strict=True):
        assert_close(a, e, TOLERANCE[dtype], TOLERANCE[dtype], name)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_serves_the_attention_of_qwen3(backend, device, bias):
    sizes = {"hidden_size": 72, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 20}
    config = Qwen3Config(**sizes, attention_bias=bias, num_hidden_layers=1, rms_norm_eps=1e-3)
    layer = Qwen3Attention(config, 0).to(device).requires_grad_(False)
    for parameter in layer.parameters():
        parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    x, positions = torch.randn(2, 5, 72, device=device), torch.randint(50, (2, 5), device=device)
    cos, sin = Qwen3RotaryEmbedding(config).to(device)(x, torch.arange(50, device=device)[None])
    projections = layer.q_proj, layer.k_proj, layer.v_proj
    query, key, value = (p(x).unflatten(-1, (-1, 20)) for p in projections)
    query, key = apply_rotary_pos_emb(
        layer.q_norm(query).transpose(1, 2), layer.k_norm(key).transpose(1, 2), cos[0][positions], sin[0][positions]
    )
    caches = [poisoned((2, 2, 5, 20), torch.float32, device) for _ in range(2)]
    actual = eagle_kernels.draft_qkv_rope(
        x,
        torch.cat([p.weight for p in projections]),
        torch.cat([p.bias for p in projections]) if bias else None,
        cos[0, :, :10].contiguous(),
        sin[0, :, :10].contiguous(),
        positions.int(),
        *caches,
        torch.arange(5, dtype=torch.int32, device=device).repeat(2, 1),
        num_heads=6,
        q_norm_weight=layer.q_norm.weight,
        k_norm_weight=layer.k_norm.weight,
        norm_eps=1e-3,
    )
    for name, a, e in zip(OUTPUTS, (actual, *caches), (query, key, value.transpose(1, 2)), strict=True):
        assert_close(a, e, 1e-5, 1e-5, name)


@NORMS
def test_strided_caches_and_input(backend, device, dtype, norms):
    case = make_case(DraftHead(dtype, device), norms=norms)
    plain = with_own_caches(case)
    views = case | {name: strided(case[name]) for name in ["x", "key_cache", "value_cache"]}
    assert_bitwise(eagle_kernels.draft_qkv_rope(**views), eagle_kernels.draft_qkv_rope(**plain), "query")
    for name in ["key_cache", "value_cache"]:
        assert_bitwise(views[name], plain[name], name)


@NORMS
@pytest.mark.parametrize("head_dim", [20, 256])
def test_rows_do_not_depend_on_the_batch(dtype, head_dim, norms):
    case = make_case(DraftHead(dtype, batch=1, rows=24, head_dim=head_dim), norms=norms)
    whole = with_own_caches(case)
    query = eagle_kernels.draft_qkv_rope(**whole)
    for row in [0, 7, 23]:
        alone = with_own_caches(case)
        for name in ["x", "position_ids", "cache_rows"]:
            alone[name] = case[name][:, row : row + 1].contiguous()
        assert_bitwise(eagle_kernels.draft_qkv_rope(**alone), query[:, :, row : row + 1], f"row {row}")
        cache_row = int(case["cache_rows"][0, row])
        if cache_row >= 0:
            for name in ["key_cache", "value_cache"]:
                assert_bitwise(alone[name][:, :, cache_row], whole[name][:, :, cache_row], name)


@NORMS
def test_opcheck(device, norms):
    case = make_case(DraftHead(torch.float32, device), norms=norms)
    for name in ["key_cache", "value_cache"]:
        case[name].zero_()
    torch.library.opcheck(torch.ops.eagle_kernels.draft_qkv_rope.default, tuple(case.values()))


def test_errors_name_op_and_tensor():
    case = make_case(DraftHead(torch.float32))
    with pytest.raises(RuntimeError, match=r"draft_qkv_rope: qkv_weight has 200 rows, .* num_heads = 5"):
        eagle_kernels.draft_qkv_rope(**case | {"num_heads": 5})
    with pytest.raises(RuntimeError, match="draft_qkv_rope: head_dim is 20 but rope_cos has 9 columns"):
        tables = {name: case[name][:, :9].contiguous() for name in ["rope_cos", "rope_sin"]}
        eagle_kernels.draft_qkv_rope(**case | tables)
    with pytest.raises(RuntimeError, match="draft_qkv_rope: position_ids holds 50, expected 0 <= index < 50"):
        eagle_kernels.draft_qkv_rope(**case | {"position_ids": torch.full_like(case["position_ids"], 50)})
    with pytest.raises(RuntimeError, match="draft_qkv_rope: cache_rows holds 33, expected -1 <= index < 33"):
        eagle_kernels.draft_qkv_rope(**case | {"cache_rows": torch.full_like(case["cache_rows"], 33)})


def test_errors_of_norms():
    case = make_case(DraftHead(torch.float32), norms=True)
    weight = case["q_norm_weight"]
    for missing, given in (("q_norm_weight", "k_norm_weight"), ("k_norm_weight", "q_norm_weight")):
        with pytest.raises(RuntimeError, match=f"draft_qkv_rope: {given} was given without {missing}; give both"):
            eagle_kernels.draft_qkv_rope(**case | {missing: None})
    for name in ("q_norm_weight", "k_norm_weight"):
        with pytest.raises(RuntimeError, match=rf"draft_qkv_rope: {name} must be \[d\] with d = 20, got \[10\]"):
            eagle_kernels.draft_qkv_rope(**case | {name: weight[:10]})
        with pytest.raises(RuntimeError, match=f"draft_qkv_rope: {name} must have the dtype of x"):
            eagle_kernels.draft_qkv_rope(**case | {name: weight.half()})
        with pytest.raises(RuntimeError, match=f"draft_qkv_rope: {name} must be contiguous"):
            eagle_kernels.draft_qkv_rope(**case | {name: weight.repeat_interleave(2)[::2]})

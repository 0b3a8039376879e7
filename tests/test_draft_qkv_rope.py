"""draft_qkv_rope: against the reference, poisoned caches, and rows that do not depend on their batch."""

import pytest
import torch
from compare import assert_bitwise, assert_close, poisoned, strided
from draft_head import TOLERANCE, DraftHead

import eagle_kernels


def make_case(head: DraftHead, bias: bool = True) -> dict:
    outputs = (head.heads + 2 * head.kv_heads) * head.head_dim
    angles = torch.rand(head.positions, head.head_dim // 2, generator=head.generator) * 6
    cache_shape = (head.batch, head.kv_heads, head.cache_length, head.head_dim)
    cache_rows = torch.stack(
        [torch.randperm(head.cache_length, generator=head.generator)[: head.rows] for _ in range(head.batch)]
    )
    cache_rows[-1, head.rows // 2] = -1
    return {
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


def with_own_caches(case: dict) -> dict:
    return case | {name: case[name].clone() for name in ["key_cache", "value_cache"]}


SHAPES = {
    "small": {},
    "one row": {"batch": 1, "rows": 1},
    "head of 64": {"head_dim": 64, "heads": 3, "kv_heads": 1},
    "head of 256": {"head_dim": 256, "heads": 1, "kv_heads": 1},
    "head of 2": {"head_dim": 2},
    "more rows than a product takes": {"batch": 3, "rows": 50, "cache_length": 70},
}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_matches_reference(backend, device, dtype, shape, bias):
    case = make_case(DraftHead(dtype, device, **shape), bias)
    actual, expected = with_own_caches(case), with_own_caches(case)
    query = eagle_kernels.draft_qkv_rope(**actual)
    tolerance = TOLERANCE[dtype]
    assert query.dtype == dtype and query.is_contiguous()
    assert_close(query, eagle_kernels.draft_qkv_rope(**expected, backend="reference"), tolerance, tolerance, "query")
    for name in ["key_cache", "value_cache"]:  # rows not written stay NaN
        assert_close(actual[name], expected[name], tolerance, tolerance, name)


def test_strided_caches_and_input(backend, device, dtype):
    case = make_case(DraftHead(dtype, device))
    plain = with_own_caches(case)
    views = case | {name: strided(case[name]) for name in ["x", "key_cache", "value_cache"]}
    assert_bitwise(eagle_kernels.draft_qkv_rope(**views), eagle_kernels.draft_qkv_rope(**plain), "query")
    for name in ["key_cache", "value_cache"]:
        assert_bitwise(views[name], plain[name], name)


def test_rows_do_not_depend_on_the_batch(dtype):
    case = make_case(DraftHead(dtype, batch=1, rows=24))
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


def test_opcheck(device):
    case = make_case(DraftHead(torch.float32, device))
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

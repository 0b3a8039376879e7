"""write_kv: every backend against the reference, on strided and paged caches; other rows keep their bits."""

import pytest
import torch
from compare import assert_bitwise, poisoned, strided
from hypothesis import given, settings
from hypothesis import strategies as st
from paged import WILD_IDS, random_table, scattered
from test_paged_caches import BACKENDS

import eagle_kernels

ROWS = [[4, -1, 39, 0, 17], [0, 1, 2, 3, 4], [-1, -1, -1, -1, 38]]


def make_case(dtype: torch.dtype, device: str, head_dim: int = 8) -> list[torch.Tensor]:
    """Heads last, as projections leave them; caches hold NaN."""
    states = [torch.randn(3, 5, 2, head_dim).to(dtype).transpose(1, 2) for _ in range(2)]
    caches = [poisoned((3, 2, 40, head_dim), dtype) for _ in range(2)]
    return [t.to(device) for t in (*states, *caches, torch.tensor(ROWS, dtype=torch.int32))]


@pytest.mark.parametrize("head_dim", [1, 5, 8, 64, 80])
@pytest.mark.parametrize("view", [torch.clone, strided], ids=["contiguous", "strided"])
def test_matches_reference(backend, device, dtype, head_dim, view):
    *states, rows = make_case(dtype, device, head_dim)
    actual, expected = [view(t) for t in states], [t.clone() for t in states]
    eagle_kernels.write_kv(*actual, rows)
    eagle_kernels.write_kv(*expected, rows, backend="reference")
    for name, a, e in zip(("keys", "values"), actual[2:], expected[2:], strict=True):
        assert_bitwise(a, e, name)


def test_rows_go_where_they_belong(backend, device, dtype):
    key_states, value_states, key_cache, value_cache, rows = make_case(dtype, device)
    eagle_kernels.write_kv(key_states, value_states, key_cache, value_cache, rows)
    for states, cache in ((key_states, key_cache), (value_states, value_cache)):
        for b, positions in enumerate(ROWS):
            untouched = torch.ones(40, dtype=torch.bool)
            for i, position in enumerate(positions):
                if position >= 0:
                    assert_bitwise(cache[b, :, position], states[b, :, i], f"request {b}, row {position}")
                    untouched[position] = False
            assert cache[b][:, untouched].isnan().all()


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_pages(backend, data):
    """Any page sizes, missing pages and rows: the bits that a contiguous cache would get, and nothing else."""
    draw = data.draw
    page_size, columns, batch, nodes = (draw(st.integers(1, high)) for high in (6, 9, 3, 7))
    length, num_pages = page_size * columns, batch * columns + 2
    torch.manual_seed(draw(st.integers(0, 2**31)))
    table = random_table(batch, columns, num_pages)
    states = [torch.randn(batch, 2, nodes, 8).to(torch.bfloat16) for _ in range(2)]
    caches = [torch.randn(batch, 2, length, 8).to(torch.bfloat16) for _ in range(2)]
    shuffled = torch.stack([torch.randperm(length + nodes)[:nodes] for _ in range(batch)])
    rows = torch.where(shuffled < length, shuffled, -1).int()
    heads_last = draw(st.booleans())
    pools = [scattered(cache, table, num_pages, heads_last) for cache in caches]
    wild = torch.where(torch.rand(table.shape) < 0.1, draw(st.sampled_from([*WILD_IDS, num_pages])), table).int()
    there = ((wild >= 0) & (wild < num_pages)).repeat_interleave(page_size, dim=1)
    written = torch.where((rows >= 0) & there.gather(1, rows.clamp(min=0).long()), rows, -1).int()
    eagle_kernels.write_kv(*states, *caches, written, backend="reference")
    eagle_kernels.write_kv(*states, *pools, rows, wild, backend=backend)
    for pool, cache in zip(pools, caches, strict=True):
        assert_bitwise(pool, scattered(cache, table, num_pages))


def test_opcheck(device):
    *case, rows = make_case(torch.float32, device)
    torch.library.opcheck(torch.ops.eagle_kernels.write_kv.default, (*case, rows))
    pools = [torch.randn(25, 2, 3, 8, device=device) for _ in range(2)]
    table = random_table(3, 13, 39).clamp(max=24).to(device)
    torch.library.opcheck(torch.ops.eagle_kernels.write_kv.default, (*case[:2], *pools, rows.clamp(max=30), table))


def test_errors_name_op_and_tensor():
    key_states, value_states, key_cache, value_cache, rows = make_case(torch.float32, "cpu")
    with pytest.raises(RuntimeError, match=r"write_kv: cache_rows must be \[B, Q\] with B = 3, .*got \[2, 5\]"):
        eagle_kernels.write_kv(key_states, value_states, key_cache, value_cache, rows[:2])
    with pytest.raises(RuntimeError, match="write_kv: value_cache must have the dtype of key_states"):
        eagle_kernels.write_kv(key_states, value_states, key_cache, value_cache.half(), rows)
    with pytest.raises(RuntimeError, match="write_kv: cache_rows holds 40, expected -1 <= index < 40"):
        eagle_kernels.write_kv(key_states, value_states, key_cache, value_cache, rows + 1)
    with pytest.raises(RuntimeError, match="write_kv: the last dimension of key_states must be contiguous"):
        eagle_kernels.write_kv(key_states[..., ::2], value_states, key_cache[..., :4], value_cache[..., :4], rows)

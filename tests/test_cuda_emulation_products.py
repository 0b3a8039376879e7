"""The CUDA kernels of attention and the draft head, run on the CPU by tests/cuda_emulation. Needs no GPU."""

from collections.abc import Iterator

import pytest
import torch
from compare import assert_bitwise, assert_close, strided
from cuda_emulation import emulated, emulated_products
from draft_head import EPS, TOLERANCE, DraftHead
from fp8_cases import CALLS, random_fp8, results_of
from paged import WILD_IDS, random_table, scattered
from test_decoder_layers import MODELS
from test_decoder_layers import make_case as make_layers
from test_decoder_layers import run as run_layers
from test_paged_caches import attention_cases
from test_tree_attention import TOLERANCE as ATTENTION_TOLERANCE
from test_tree_attention import exact, make_case

import eagle_kernels

# Tensor cores take rows of a multiple of 8 elements, in steps of 64; others take the plain kernels.
SIZES = [{"hidden": 72, "intermediate": 1032}, {"hidden": 1088, "intermediate": 136}, {"hidden": 37, "intermediate": 9}]


AMPERE, HOPPER = 8, 9  # compute capability


@pytest.fixture(params=[4, 64], ids=["4 multiprocessors", "64 multiprocessors"])
def multiprocessors(request: pytest.FixtureRequest) -> None:
    """Few split nothing, many split keys and inner dimensions."""
    emulated.library().set_device(request.param, AMPERE)


@pytest.fixture(params=[4, 64], ids=["4 multiprocessors", "64 multiprocessors"])
def hopper(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test in which warpgroups must have multiplied."""
    library = emulated.library()
    library.set_device(request.param, HOPPER)
    before = library.warpgroup_products()
    yield
    assert library.warpgroup_products() > before
    library.set_device(request.param, AMPERE)


# heads, kv heads, head_dim, rows and contexts: every instance of the kernel, odd sizes, one and two mask words
@pytest.mark.parametrize("view", [torch.clone, strided], ids=["contiguous", "strided"])
@pytest.mark.parametrize(
    ("shape", "contexts"),
    [
        ((4, 2, 64, 5), [100, 0]),
        ((9, 3, 64, 24), [63, 129]),
        ((8, 1, 96, 20), [70]),
        ((4, 1, 64, 40), [90]),
        ((4, 1, 128, 40), [90]),
        ((2, 1, 128, 7), [300]),
        ((2, 2, 256, 9), [250, 3]),
        ((3, 3, 80, 65), [40]),
        ((4, 4, 5, 7), [129, 1]),
    ],
)
def test_tree_attention(multiprocessors, dtype, shape, contexts, view):
    case = make_case(shape, contexts, dtype)
    case[:3] = [view(t) for t in case[:3]]
    tolerance = ATTENTION_TOLERANCE[dtype]
    assert_close(emulated_products.tree_attention(*case), exact(*case), tolerance, tolerance)


def heads_last(t: torch.Tensor) -> torch.Tensor:
    return t.transpose(1, 2).contiguous().transpose(1, 2)


# More than 64 packed rows a kv head: one and two warpgroups, one and two row blocks, one tile and several
WARPGROUP_CASES = [
    ((4, 1, 64, 17), [100, 0]),
    ((8, 2, 128, 33), [63, 400]),
    ((3, 1, 104, 60), [190]),
    ((2, 1, 48, 40), [7]),
]


@pytest.mark.parametrize("view", [torch.clone, heads_last], ids=["contiguous", "heads last"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("shape", "contexts"), WARPGROUP_CASES)
def test_tree_attention_by_warpgroups(hopper, dtype, shape, contexts, view):
    case = make_case(shape, contexts, dtype)
    case[:3] = [view(t) for t in case[:3]]
    tolerance = ATTENTION_TOLERANCE[dtype]
    assert_close(emulated_products.tree_attention(*case), exact(*case), tolerance, tolerance)


@pytest.mark.parametrize("scale", [0.0, -0.1, 1e-40])
def test_tree_attention_of_any_scale(multiprocessors, scale):
    """The maximum of scores is not that of products where the scale is not positive."""
    case = make_case((4, 2, 64, 5), [70, 0], torch.bfloat16)
    case[-1] = scale
    assert_close(emulated_products.tree_attention(*case), exact(*case), 8e-3, 8e-3)


def test_tree_attention_reads_nothing_past_the_cache(multiprocessors):
    query, key, value, _, mask, scale = make_case((4, 2, 64, 9), [40], torch.bfloat16)
    short = [t[:, :, :44].contiguous() for t in (key, value)]
    for context in (40, 44, 2**31 - 1):
        case = (query, *short, torch.tensor([context], dtype=torch.int32), mask, scale)
        assert_close(emulated_products.tree_attention(*case), eagle_kernels.tree_attention(*case), 8e-3, 8e-3)


@pytest.mark.parametrize(
    ("shape", "contexts", "page_size", "heads_last"),
    [
        ((9, 3, 64, 24), [63, 129], 1, False),
        ((4, 1, 128, 40), [90], 3, True),
        ((2, 2, 256, 9), [250, 3], 16, False),
        ((3, 3, 80, 65), [40], 48, True),
        ((4, 4, 5, 7), [129, 1], 7, False),
    ],
)
def test_tree_attention_on_pages(multiprocessors, dtype, shape, contexts, page_size, heads_last):
    check_pages(dtype, shape, contexts, page_size, heads_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("case", "page_size"), list(zip(WARPGROUP_CASES, [1, 16, 48, 7], strict=True)))
def test_tree_attention_by_warpgroups_on_pages(hopper, dtype, case, page_size):
    check_pages(dtype, *case, page_size, heads_last=page_size == 16)


def check_pages(dtype, shape, contexts, page_size, heads_last):
    """The bits of the contiguous cache; with pages missing, what the CPU kernel computes."""
    contiguous, paged = attention_cases(make_case(shape, contexts, dtype), page_size, heads_last)
    assert_bitwise(emulated_products.tree_attention(*paged), emulated_products.tree_attention(*contiguous))
    table, tolerance = paged[-1], ATTENTION_TOLERANCE[dtype]
    table.view(-1)[::5] = torch.tensor(WILD_IDS, dtype=torch.int32)[torch.arange(len(table.view(-1)[::5])) % 4]
    actual, expected = emulated_products.tree_attention(*paged), eagle_kernels.tree_attention(*paged)
    assert_close(actual, expected, tolerance, tolerance, "without some pages")


@pytest.mark.parametrize("version", [80, 90])
@pytest.mark.parametrize("rows, inner, outputs", [(1, 64, 130), (8, 1032, 40), (33, 2120, 129), (70, 8, 5), (3, 7, 9)])
def test_linear(multiprocessors, dtype, rows, inner, outputs, version):
    head = DraftHead(dtype)
    input, weight, bias = head.random(rows, inner), head.weight(outputs, inner), head.random(outputs)
    for b in (bias, None):
        with emulated.code_for(version):
            actual = emulated_products.linear(input, weight, b)
            assert_bitwise(emulated_products.linear(strided(input), weight, b), actual)
        assert_close(actual, eagle_kernels.linear(input, weight, b), TOLERANCE[dtype], TOLERANCE[dtype])


def test_linear_of_an_inner_dimension_in_more_ranges_than_are_read_at_once():
    emulated.library().set_device(64, AMPERE)
    head = DraftHead(torch.float16)
    input, weight = head.random(2, 5000), head.weight(8, 5000)
    with emulated.code_for(80):
        actual = emulated_products.linear(input, weight)
    assert_close(actual, eagle_kernels.linear(input, weight), TOLERANCE[torch.float16], TOLERANCE[torch.float16])


@pytest.mark.parametrize("version", [80, 90])
@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: str(sizes["hidden"]))
def test_draft_layer(multiprocessors, dtype, sizes, version):
    head = DraftHead(dtype, batch=1, rows=9, head_dim=20, **sizes)
    hidden, width, tokens = head.hidden, head.heads * head.head_dim, head.integers(0, head.vocabulary, 1, 9)
    norms, states = [head.random(hidden) for _ in range(2)], head.hidden_states()
    cases = {
        "rms_norm": [states, norms[0], EPS],
        "silu_mul": [states, head.hidden_states()],
        "draft_input": [tokens, states, head.weight(head.vocabulary, hidden), *norms, EPS],
        "draft_output": [head.random(1, 9, width), head.weight(hidden, width), states, norms[0], EPS],
        "draft_mlp": [
            head.hidden_states(),
            head.weight(2 * head.intermediate, hidden),
            head.weight(hidden, head.intermediate),
            states,
        ],
    }
    for name, case in cases.items():
        with emulated.code_for(version):
            actual = getattr(emulated_products, name)(*case)
        expected = getattr(eagle_kernels, name)(*case)
        pairs = zip(actual, expected, strict=True) if isinstance(actual, tuple) else [(actual, expected)]
        for a, e in pairs:
            assert_close(a, e, TOLERANCE[dtype], TOLERANCE[dtype], name)


@pytest.mark.parametrize("model", MODELS)
def test_decoder_layers(multiprocessors, dtype, model):
    case = make_layers(model, dtype)
    actual = run_layers(emulated_products.decoder_layers, case)
    expected = run_layers(eagle_kernels.decoder_layers, case)
    tolerance = 4 * len(case["o_weight"]) * TOLERANCE[dtype]
    for name, a, e in zip(("hidden", "states", "caches"), actual, expected, strict=True):
        assert_close(a, e, tolerance, tolerance, name)


@pytest.mark.parametrize("size", [8192, 8200, 16411])
def test_norms_of_rows_that_registers_do_not_hold(multiprocessors, dtype, size):
    head = DraftHead(dtype, batch=1, rows=2, hidden=size)
    states, weight = head.hidden_states(), head.random(size)
    assert_close(
        emulated_products.rms_norm(states, weight, EPS), eagle_kernels.rms_norm(states, weight, EPS),
        TOLERANCE[dtype], TOLERANCE[dtype],
    )  # fmt: skip
    case = head.random(1, 2, 600), head.weight(size, 600), states, weight, EPS
    for actual, expected in zip(emulated_products.draft_output(*case), eagle_kernels.draft_output(*case), strict=True):
        assert_close(actual, expected, TOLERANCE[dtype], TOLERANCE[dtype])


@pytest.mark.parametrize("norms", [False, True], ids=["plain", "norms"])
@pytest.mark.parametrize("inner, head_dim", [(144, 64), (1040, 20), (37, 10), (72, 96), (72, 256)])
def test_draft_qkv_rope(multiprocessors, dtype, inner, head_dim, norms):
    head = DraftHead(dtype, rows=3, head_dim=head_dim)
    outputs = (head.heads + 2 * head.kv_heads) * head_dim
    inputs = head.random(2, 3, inner), head.weight(outputs, inner), head.random(outputs)
    tables = [head.random(head.positions, head_dim // 2).float() for _ in range(2)]
    positions = head.integers(0, head.positions, 2, 3)
    rows = torch.tensor([[4, -1, 7], [0, 32, 3]], dtype=torch.int32)
    caches = [head.random(2, head.kv_heads, head.cache_length, head_dim) for _ in range(2)]
    others = {name: head.random(head_dim) for name in ("q_norm_weight", "k_norm_weight")} if norms else {}
    results = []
    for op in (emulated_products.draft_qkv_rope, eagle_kernels.draft_qkv_rope):
        written = [cache.clone() for cache in caches]
        query = op(*inputs, *tables, positions, *written, rows, head.heads, **others, norm_eps=EPS)
        results.append([query, *written])
    for name, actual, expected in zip(("query", "key_cache", "value_cache"), *results, strict=True):
        assert_close(actual, expected, TOLERANCE[dtype], TOLERANCE[dtype], name)


def test_draft_qkv_rope_on_pages(multiprocessors, dtype):
    """The bits of the contiguous cache in the pages of the table; rows of missing pages are not written."""
    head = DraftHead(dtype, rows=3, cache_length=36)
    outputs = (head.heads + 2 * head.kv_heads) * head.head_dim
    inputs = head.random(2, 3, 72), head.weight(outputs, 72), None
    tables = [head.random(head.positions, head.head_dim // 2).float() for _ in range(2)]
    positions, table = head.integers(0, head.positions, 2, 3), random_table(2, 12, 27)
    caches = [head.random(2, head.kv_heads, head.cache_length, head.head_dim) for _ in range(2)]
    pools = [scattered(cache, table, 27) for cache in caches]
    wild = table.clone()
    wild[0, 4], wild[1, 0] = WILD_IDS[0], 27
    rows = [torch.tensor(r, dtype=torch.int32) for r in ([[12, 35, 7], [0, 36, 3]], [[-1, 35, 7], [-1, -1, 3]])]
    query = emulated_products.draft_qkv_rope(*inputs, *tables, positions, *pools, rows[0], head.heads, page_table=wild)
    assert_bitwise(query, emulated_products.draft_qkv_rope(*inputs, *tables, positions, *caches, rows[1], head.heads))
    for pool, cache in zip(pools, caches, strict=True):
        assert_bitwise(pool, scattered(cache, table, 27))


@pytest.mark.parametrize(
    "rows, vocabulary, k, hidden",
    [(20, 300, 10, 72), (20, 1000, 64, 37), (1, 3, 3, 64), (10, 700, 1, 1088), (60, 17000, 64, 8)],
)
def test_lm_head_topk(dtype, rows, vocabulary, k, hidden):
    """Integers, so that sums are exact and ids must agree, ties too; one row in four has no law."""
    head = DraftHead(dtype, batch=1, rows=rows, hidden=hidden, vocabulary=vocabulary)
    states, weight = head.random(1, rows, hidden).sign(), head.integers(-1, 2, vocabulary, hidden).to(dtype)
    states[0, 1::8, 0], states[0, 5::8, 0] = torch.nan, torch.inf
    weight[:80] = states[0, 0]  # the best of one row lie in one tile
    d2t = head.integers(0, 1000, vocabulary)
    case = (states, torch.ones(hidden, dtype=dtype), 0.0, weight, k, d2t)
    actual, expected = emulated_products.lm_head_topk(*case), eagle_kernels.lm_head_topk(*case)
    for name, a, e in zip(("normed", "logprobs"), actual, expected, strict=False):
        assert_close(a, e, 1e-5, 1e-5, name)
    assert_bitwise(actual[2], expected[2], "token_ids")
    assert_bitwise(actual[3], expected[3], "valid")
    assert not actual[3][0, 1::4].any() and actual[3][0, ::2].all()


def test_rope(dtype):
    head = DraftHead(dtype)
    case = head.random(2, 3, 5, 14), head.random(2, 1, 5, 14), head.random(2, 5, 14), head.random(2, 5, 14)
    for actual, expected in zip(emulated_products.rope(*case), eagle_kernels.rope(*case), strict=True):
        assert_bitwise(actual, expected)
    states = [heads_last(states) for states in case[:2]]
    for actual, expected in zip(emulated_products.rope(*states, *case[2:]), eagle_kernels.rope(*case), strict=True):
        assert_bitwise(actual, expected)


@pytest.mark.parametrize("inner", [64, 80, 77])
def test_every_fp8_number_in_every_place_is_exact(multiprocessors, dtype, inner):
    """The identity times a weight is the weight; 77 elements take the plain kernel."""
    weight, scale = random_fp8(300, inner, largest_exponent=0)
    expected = (weight.float() * scale[:, None]).T.to(dtype)
    assert_bitwise(emulated_products.linear(torch.eye(inner).to(dtype), weight, None, scale), expected)


# Tensor cores take fp8 rows of a multiple of 16 elements that begin at a multiple of 16 bytes.
@pytest.mark.parametrize(
    "rows, inner, outputs", [(1, 64, 130), (8, 1040, 40), (33, 2128, 129), (70, 16, 5), (3, 24, 9)]
)
def test_fp8_linear(multiprocessors, dtype, rows, inner, outputs):
    input, bias = torch.randn(rows, inner).to(dtype), torch.randn(outputs).to(dtype)
    weight, scale = random_fp8(outputs, inner, largest_exponent=1)
    shifted = torch.zeros(weight.numel() + 1, dtype=torch.uint8)[1:].view(weight.dtype).view_as(weight)
    shifted.view(torch.uint8).copy_(weight.view(torch.uint8))
    expected = eagle_kernels.linear(input, weight, bias, scale)
    size = 448 * inner**0.5
    for w in (weight, shifted):
        actual = emulated_products.linear(input, w, bias, scale)
        assert_close(actual, expected, TOLERANCE[dtype], size * TOLERANCE[torch.float32])
        assert_bitwise(emulated_products.linear(strided(input), w, bias, scale), actual)


@pytest.mark.parametrize("op", CALLS)
@pytest.mark.parametrize("sizes", [{"hidden": 80, "intermediate": 1040, "head_dim": 16}, {"hidden": 37}], ids=str)
def test_fp8_draft_head(multiprocessors, dtype, op, sizes):
    call = CALLS[op](DraftHead(dtype, **{"rows": 9} | sizes))
    actual = results_of(op, getattr(emulated_products, op), *call)
    expected = results_of(op, getattr(eagle_kernels, op), *call)
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        if a.is_floating_point():
            assert_close(a, e, 2 * TOLERANCE[dtype], 10 * TOLERANCE[dtype], f"output {i}")

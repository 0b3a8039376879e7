"""The CUDA kernels, run on the CPU by tests/cuda_emulation, against the CPU kernels. Needs a C++ compiler, no GPU."""

import pytest
import torch
from compare import assert_bitwise, assert_close, strided
from cuda_emulation import emulated
from paged import WILD_IDS, random_table, scattered
from sampled_rounds import make_requests, make_round
from torch import Tensor
from trees import empty_history

import eagle_kernels

# Groups of 256 logits, warps of four groups: below, at and above their borders.
VOCABULARIES = [1, 7, 255, 256, 257, 9001]


def check_all(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...], names: str) -> None:
    for name, a, e in zip(names.split(), actual, expected, strict=True):
        assert_bitwise(a, e, name)


def random_rows(*shape: int) -> Tensor:
    """Peaked, flat, tied and constant rows, a different law at each first index."""
    logits = torch.randn(shape) * torch.tensor([1.0, 4.0, 0.1, 3.0, 0.0])[: shape[0]].view(-1, *[1] * (len(shape) - 1))
    logits[3:4] = logits[3:4].round()
    return logits


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_topk_logprobs(dtype, vocabulary):
    logits = strided(random_rows(5, vocabulary).to(dtype))
    d2t = torch.randint(0, 1000, (vocabulary,), dtype=torch.int32)
    for k in {1, min(10, vocabulary), min(64, vocabulary)}:
        logprobs, token_ids, valid = emulated.topk_logprobs(logits, k, d2t)
        expected = eagle_kernels.topk_logprobs(logits, k, d2t)
        assert_bitwise(token_ids, expected[1], f"token_ids, k = {k}")
        assert_close(logprobs, expected[0], rtol=1e-6, atol=1e-6, name="logprobs")
        assert valid.all()


def test_topk_logprobs_of_rows_without_a_law():
    logits = torch.randn(5, 600)
    logits[0, 599], logits[1, 3], logits[2], logits[3, 5:] = torch.nan, torch.inf, -torch.inf, -torch.inf
    logprobs, token_ids, valid = emulated.topk_logprobs(logits, 8)
    expected = eagle_kernels.topk_logprobs(logits, 8)
    assert valid.tolist() == [False, False, False, True, True]
    assert_bitwise(token_ids, expected[1], "token_ids")
    assert_close(logprobs, expected[0], rtol=1e-6, atol=1e-6, name="logprobs")


@pytest.mark.parametrize("vocabulary", [1, 257, 9001])
@pytest.mark.parametrize("top_k, top_p, min_p", [(0, 1, 0), (20, 1, 0), (0, 0.95, 0), (0, 1, 0.1), (300, 0.5, 0.01)])
def test_sample_tokens(dtype, vocabulary, top_k, top_p, min_p):
    """The CPU kernel's tokens, bit for bit: greedy, cold, plain and hot requests."""
    logits = strided(random_rows(5, 2, vocabulary).to(dtype))
    positions = torch.randint(0, 10000, (5, 2), dtype=torch.int32)
    temperature = torch.tensor([1.0, 0.3, 0.7, 0.0, 2.0])
    requests = torch.arange(5) - 2, temperature, *(torch.full((5,), value) for value in (top_k, top_p, min_p))
    requests = requests[0], requests[1], requests[2].int(), requests[3].float(), requests[4].float()
    actual = emulated.sample_tokens(logits, positions, *requests)
    assert_bitwise(actual, eagle_kernels.sample_tokens(logits, positions, *requests), "token_ids")


def test_sample_tokens_of_rows_without_a_law():
    logits = torch.randn(1, 4, 600)
    logits[0, 0, 599], logits[0, 1, 3], logits[0, 2] = torch.nan, torch.inf, -torch.inf
    positions = torch.arange(4, dtype=torch.int32)[None]
    requests = torch.tensor([5]), torch.ones(1), torch.tensor([9], dtype=torch.int32), torch.ones(1), torch.zeros(1)
    actual = emulated.sample_tokens(logits, positions, *requests)
    assert_bitwise(actual, eagle_kernels.sample_tokens(logits, positions, *requests), "token_ids")
    assert actual[0, :3].tolist() == [-1, -1, -1]


def test_sample_tokens_at_infinite_temperature():
    """Sums of exponentials are needed there too."""
    logits, positions = torch.randn(1, 50, 600), torch.arange(50, dtype=torch.int32)[None]
    requests = make_requests(1, "cpu", temperature=torch.inf, top_p=0.5)
    actual = emulated.sample_tokens(logits, positions, *requests.values())
    assert_bitwise(actual, eagle_kernels.sample_tokens(logits, positions, **requests), "token_ids")


FILTERED = {
    "temperature": torch.tensor([1.0, 0.0, 0.7, 1.4, 0.9, 2.0]),
    "top_k": torch.tensor([0, 0, 20, 0, 300, 0]),
    "top_p": torch.tensor([1.0, 1.0, 0.9, 0.8, 1.0, 1.0]),
    "min_p": torch.tensor([0.0, 0.0, 0.0, 0.02, 0.0, 0.0]),
}


@pytest.mark.parametrize("vocabulary", [5, 257, 3001])
def test_sample_children(dtype, vocabulary):
    """The CPU kernel's children: every kind of filter, fixed ones, tied rows and rows without a law."""
    max_children = min(vocabulary, 9)
    logits = strided((2 * torch.randn(6, 3, vocabulary)).to(dtype))
    logits[3] = logits[3].float().round().to(dtype)
    logits[5, 0, 1], logits[5, 1, 2:], logits[5, 2, 0] = torch.nan, -torch.inf, torch.inf
    node_ids = torch.arange(3, dtype=torch.int32).expand(6, 3).contiguous()
    counts, fixed = (torch.randint(0, 11, (6, 3), dtype=torch.int32) for _ in range(2))
    requests = make_requests(6, "cpu", seed=torch.arange(6) - 2, **FILTERED)
    d2t = torch.arange(vocabulary, dtype=torch.int32)
    inputs = logits, node_ids, counts, fixed - 1, torch.arange(6).int(), *requests.values(), max_children, d2t
    actual = emulated.sample_children(*inputs)
    expected = torch.ops.eagle_kernels.sample_children(*inputs)
    assert_bitwise(actual[0], expected[0], "child_tokens")
    assert_close(actual[1], expected[1], rtol=1e-6, atol=1e-6, name="child_logprobs")


@pytest.mark.parametrize("version", [80, 90])
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("rule", ["sampled", "hybrid", "traversal"])
def test_verify_rejection(rule, mapped, version):
    """The CPU kernel's walks: bushes with every kind of filter, invalid rows, equal laws and malformed nodes."""
    parents, vocabulary = [-1, 0, 0, 0, 1, 1, 2, 4], 700
    drafts = torch.randperm(vocabulary)[:630].sort().values if mapped else torch.arange(vocabulary)
    target = 2.5 * torch.randn(9, len(parents), vocabulary)
    draft = (target + torch.randn_like(target))[..., drafts].bfloat16()
    draft[0] = target[0, :, drafts].bfloat16()
    target[0] = torch.full_like(target[0], -torch.inf).index_copy(1, drafts, draft[0].float())
    target[4, 1], target[5, 0], draft[6, 0] = torch.nan, -torch.inf, torch.nan
    requests = make_requests(
        9, "cpu", seed=torch.arange(9) - 3, **{name: values.repeat(2)[:9] for name, values in FILTERED.items()}
    )
    fixed = [2, 1, 0, 0, 0, 0, 0, 0] if rule == "hybrid" else None
    d2t = (drafts - torch.arange(len(drafts))).int() if mapped else None
    round = make_round(parents, strided(target), strided(draft), requests, d2t=d2t, num_fixed=fixed)
    round["draft_tokens"][7, 1:4] = torch.tensor([2**31 - 1, -1, vocabulary])
    round["parent"][8, 3:] = torch.tensor([5, 2**31 - 1, -9, 6, 0])
    order = (
        "target_logits draft_logits draft_tokens parent num_fixed context_len seed temperature top_k top_p min_p d2t"
    )
    round.setdefault("num_fixed", torch.zeros_like(round["parent"]))
    inputs = *(round[name] for name in order.split()), 2, rule == "traversal"
    with emulated.code_for(version):
        actual = emulated.verify_rejection(*inputs)
    expected = torch.ops.eagle_kernels.verify_rejection(*inputs)
    check_all(actual, expected, "accept_index accept_length bonus_token")
    assert expected[1].sum() > 2


@pytest.mark.parametrize(
    ("num_nodes", "dtype"), [(33, torch.float16), (128, torch.bfloat16), (150, torch.float32)], ids=str
)
@pytest.mark.parametrize("traversal", [False, True])
def test_verify_rejection_of_large_trees(num_nodes, dtype, traversal):
    """Children of a node lie 32 nodes apart and more, and beyond what shared memory holds."""
    parents = [-1, *(int(node * torch.rand(()) ** 3) for node in range(1, num_nodes))]
    target = 2 * torch.randn(4, num_nodes, 40)
    draft = (target + 0.3 * torch.randn_like(target)).to(dtype)
    target = target.to(dtype)
    requests = make_requests(4, "cpu", seed=torch.arange(4), temperature=torch.tensor([1.0, 0.0, 0.8, 1.3]))
    fixed = [0 if traversal else parents.count(node) * 2 // 3 for node in range(num_nodes)]
    round = make_round(parents, target, draft, requests, num_fixed=fixed)
    logits, tree, context = ("target_logits", "draft_logits"), ("draft_tokens", "parent"), round["context_len"]
    inputs = *(round[name] for name in logits + tree), round["num_fixed"], context, *requests.values()
    inputs = *inputs, None, 6, traversal
    actual, expected = emulated.verify_rejection(*inputs), torch.ops.eagle_kernels.verify_rejection(*inputs)
    check_all(actual, expected, "accept_index accept_length bonus_token")
    assert expected[1].sum() > 4


def test_gumbel_noise():
    seed, positions = torch.tensor([0, -1, 2**40 + 3]), torch.randint(-5, 2**31 - 1, (3, 2), dtype=torch.int32)
    for num_tokens, stream in [(1, 0), (1025, 1), (2050, 4)]:
        actual = emulated.gumbel_noise(seed, positions, num_tokens, stream)
        assert_bitwise(actual, eagle_kernels.gumbel_noise(seed, positions, num_tokens, stream), "noise")


@pytest.mark.parametrize("num_nodes", [1, 2, 31, 32, 33, 100])
def test_verify_tree(num_nodes):
    """Few tokens, so that paths are long; any parents, malformed ones too."""
    for max_depth in (0, 3, num_nodes - 1):
        tokens = torch.randint(0, 2, (40, num_nodes), dtype=torch.int32)
        parent = torch.randint(-1, max(num_nodes // 4, 1), (40, num_nodes), dtype=torch.int32)
        target = torch.randint(-1, 2, (40, num_nodes), dtype=torch.int32).clamp(min=-(torch.rand(()) < 0.1).int())
        actual = emulated.verify_tree(tokens, parent, target, max_depth)
        expected = eagle_kernels.verify_tree(tokens, parent, target, max_depth)
        check_all(actual, expected, "accept_index accept_length bonus_token")


@pytest.mark.parametrize("frontier, branching", [(1, 1), (1, 10), (10, 10), (12, 23), (3, 64)])
def test_expand_tree(frontier, branching):
    batch, words, slots = 3, 2, 5 + frontier * branching
    inputs = [
        torch.randn(batch, frontier),
        torch.randint(0, 50, (batch, frontier), dtype=torch.int32),
        torch.randint(-(2**62), 2**62, (batch, frontier, words)),
        torch.randn(batch, frontier, branching).round(),
        torch.randint(0, 1000, (batch, frontier, branching), dtype=torch.int32),
    ]
    inputs[0][0] = torch.nan
    inputs[3][1, :, ::2] = -torch.inf
    histories = [empty_history(batch, slots) for _ in range(2)]
    actual = emulated.expand_tree(*inputs, *histories[0], 3, 61)
    expected = eagle_kernels.expand_tree(*inputs, *histories[1], 3, 61)
    check_all(actual, expected, "next_scores next_slots next_tokens next_origin next_mask")
    check_all(*histories, "node_scores node_tokens node_parents")


@pytest.mark.parametrize("num_nodes", [1, 2, 60, 64, 65, 128])
@pytest.mark.parametrize("slots", [128, 711])
def test_build_tree(num_nodes, slots):
    """Histories of a good shape, with ties, and wild ones: any parent, any score."""
    parents = (torch.rand(4, slots) * torch.arange(slots)).int()
    scores = -torch.rand(4, slots).mul(4).round()
    scores[0] = 0
    for slot in range(1, slots):
        scores[0, slot] = scores[0, parents[0, slot]] - torch.rand(())
    wild = torch.tensor([torch.nan, torch.inf, -torch.inf, 3.0, 0.0, -0.0, -1.0, -1.5])
    scores[2:] = wild[torch.randint(0, 8, (2, slots))]
    parents[3] = torch.randint(-(2**31), 2**31 - 1, (slots,), dtype=torch.int32)
    parents[3, : slots // 2] %= slots
    history = scores, torch.randint(0, 1000, (4, slots), dtype=torch.int32), parents, torch.arange(4).int() * 100
    actual = emulated.build_tree(*history, num_nodes)
    expected = eagle_kernels.build_tree(*history, num_nodes)
    check_all(actual, expected, "draft_tokens parent depth position_ids ancestor_mask node_slots")


@pytest.mark.parametrize("hidden", [1, 5, 64, 3000])
def test_commit_step(dtype, hidden):
    accept_index = torch.tensor([[0, 3, 7, 8], [0, -1, -1, -1], [0, 1, 11, -1]], dtype=torch.int32)
    accept_length = torch.tensor([3, 0, 2], dtype=torch.int32)
    states = torch.randn(3, 12, hidden).to(dtype)
    for hidden_states in (states, strided(states)):
        inputs = (
            torch.randint(0, 1000, (3, 12), dtype=torch.int32),
            accept_index,
            accept_length,
            torch.tensor([70, 71, 72], dtype=torch.int32),
            hidden_states,
            torch.tensor([5, 28, 0], dtype=torch.int32),
        )
        actual, expected = emulated.commit_step(*inputs), eagle_kernels.commit_step(*inputs)
        check_all(actual, expected, "next_tokens next_hidden next_positions next_context_len")


@pytest.mark.parametrize("head_dim", [5, 64])
def test_compact_kv(dtype, head_dim):
    """Strided caches of unequal heads, more than a launch takes; paths of all lengths, one over the rows in flight."""
    accept_index = torch.full((3, 12), -1, dtype=torch.int32)
    accept_index[0, :12] = torch.tensor([0, 1, 3, 4, 6, 7, 8, 11, 12, 15, 18, 19])
    accept_index[1, 0], accept_index[2, :2] = 0, torch.tensor([0, 9])
    path = accept_index, torch.tensor([11, 0, 1], dtype=torch.int32), torch.tensor([5, 28, 0], dtype=torch.int32)
    actual = [strided(torch.randn(3, heads, 40, head_dim).to(dtype)) for heads in (2, 1)]
    actual += [torch.randn(3, 4, 40, head_dim).to(dtype), *torch.randn(128, 3, 1, 40, head_dim).to(dtype)]
    expected = [cache.clone() for cache in actual]
    emulated.compact_kv(actual, *path)
    eagle_kernels.compact_kv(expected, *path)
    check_all(tuple(actual), tuple(expected), " ".join(map(str, range(len(actual)))))


@pytest.mark.parametrize("head_dim", [5, 64, 80])
def test_write_kv(dtype, head_dim):
    """Heads last and strided caches; rows that are not written; on pages, some of them missing."""
    states = [torch.randn(3, 7, 3, head_dim).to(dtype).transpose(1, 2) for _ in range(2)]
    rows = torch.stack([torch.randperm(41)[:7] - 1 for _ in range(3)]).int()
    table = random_table(3, 10, 35)
    caches = [torch.randn(3, 3, 40, head_dim).to(dtype) for _ in range(2)]
    pools = [scattered(cache, table, 35, heads_last=True) for cache in caches]
    table.view(-1)[::7] = torch.tensor([*WILD_IDS, 35], dtype=torch.int32)
    for targets, view, pages in ((caches, torch.clone, []), (caches, strided, []), (pools, torch.clone, [table])):
        actual, expected = [[view(target) for target in targets] for _ in range(2)]
        emulated.write_kv(*states, *actual, rows, *pages)
        eagle_kernels.write_kv(*states, *expected, rows, *pages)
        check_all(tuple(actual), tuple(expected), "key_cache value_cache")


@pytest.mark.parametrize("page_size", [1, 3, 16])
def test_compact_kv_on_pages(dtype, page_size):
    """What the CPU kernel does to the same pools: wild ids, rows past the end, and a length past the path's."""
    columns = -(-40 // page_size)
    table = random_table(3, columns, 3 * columns + 2)
    caches = [torch.randn(3, heads, columns * page_size, dim).to(dtype) for heads, dim in ((2, 64), (1, 5))]
    actual = [scattered(cache, table, 3 * columns + 2, heads_last=True) for cache in caches]
    expected = [pool.clone() for pool in actual]
    table.view(-1)[::7] = torch.tensor(WILD_IDS, dtype=torch.int32)[torch.arange(len(table.view(-1)[::7])) % 4]
    path = torch.tensor([[0, 3, 4, 9], [0, 1, 30, 31], [0, 2, 5, 6]], dtype=torch.int32)
    path = path, torch.tensor([3, 3, 9], dtype=torch.int32), torch.tensor([5, 28, 0], dtype=torch.int32)
    emulated.compact_kv(actual, *path, table)
    eagle_kernels.compact_kv(expected, *path, table)
    check_all(tuple(actual), tuple(expected), "first second")


def test_the_emulation_exposes_a_missing_barrier():
    numbers, reversed_numbers = torch.arange(1, 65, dtype=torch.int32), torch.zeros(64, dtype=torch.int32)
    emulated.call("reverse_64", numbers, reversed_numbers, 1)
    assert_bitwise(reversed_numbers, numbers.flip(0))
    emulated.call("reverse_64", -numbers, reversed_numbers, 0)
    assert not torch.equal(reversed_numbers, -numbers.flip(0))


def test_the_emulation_exposes_lanes_in_different_collectives():
    with pytest.raises(RuntimeError, match="threads meet in different collectives"):
        emulated.call("diverge_64", torch.zeros(64, dtype=torch.int32))


def test_the_emulation_exposes_a_thread_that_does_not_wait_for_earlier_kernels():
    with pytest.raises(RuntimeError, match="a thread does not wait for earlier kernels"):
        emulated.call("leave_early_64", torch.zeros(64, dtype=torch.int32))


def test_the_emulation_exposes_mistakes_between_the_blocks_of_a_cluster():
    told = torch.zeros(4, 3, dtype=torch.int32)
    emulated.call("tell_next_block", told, 4, 0)
    assert_bitwise(told, torch.tensor([3, 1, 2], dtype=torch.int32).expand(4, 3))
    with pytest.raises(RuntimeError, match="before it has waited for it"):
        emulated.call("tell_next_block", told, 4, 1)
    told.zero_()
    emulated.call("tell_next_block", told, 4, 2)
    assert (told == 0).any()
    with pytest.raises(RuntimeError, match="wait for one that has ended"):
        emulated.call("tell_next_block", told, 4, 3)


def test_the_emulation_exposes_mistakes_in_a_warpgroups_products():
    right = torch.zeros(128, dtype=torch.int32)
    emulated.call("multiply_ones_128", right, 0)
    assert right.all()
    mistakes = (
        "not shown to products",
        "without begin_products",
        "operand has changed",
        "sums have changed",
        "waited for",
    )
    for number, message in enumerate(mistakes, start=1):
        with pytest.raises(RuntimeError, match=message):
            emulated.call("multiply_ones_128", right, number)
    read_early = torch.ones(128, dtype=torch.int32)
    emulated.call("multiply_ones_128", read_early, len(mistakes) + 1)
    assert 0 < read_early.sum() < 128

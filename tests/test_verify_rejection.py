"""verify_rejection: the kernel equals the reference on the same bits, output laws by chi-square, edge cases."""

import mmap

import pytest
import torch
from compare import assert_bitwise, strided
from sampled_rounds import chi_square, emitted_tokens, make_requests, make_round

import eagle_kernels
from eagle_kernels.reference.philox import ACCEPT, RESIDUAL, gumbel, philox_bits, uniform
from eagle_kernels.reference.verify_rejection import log_law

MAP_NORESERVE = 0x4000  # the mmap module names it from Python 3.13 on
NAMES = ("accept_index", "accept_length", "bonus_token")
TREES = {
    "root": [-1],
    "chain": [-1, 0, 1, 2],
    "bush": [-1, 0, 0, 0, 1, 1, 2, 4],
    "wide": [-1] + [0] * 12,
}
FILTERS = [(1.0, 0, 1.0, 0.0), (0.6, 20, 0.9, 0.0), (1.5, 0, 1.0, 0.1), (0.0, 0, 1.0, 0.0)]


def check(round: dict[str, torch.Tensor], **options: object) -> tuple[torch.Tensor, ...]:
    actual = eagle_kernels.verify_rejection(**round, **options)
    expected = eagle_kernels.verify_rejection(**round, **options, backend="reference")
    for name, a, e in zip(NAMES, actual, expected, strict=True):
        assert_bitwise(a, e, name)
    return actual


def random_logits(batch: int, nodes: int, vocabulary: int, device: str, drafts: torch.Tensor | None = None):
    """Target logits and, close to them, draft logits in bfloat16 for the tokens in `drafts`."""
    target = 2.5 * torch.randn(batch, nodes, vocabulary)
    draft = target + torch.randn_like(target)
    return target.to(device), (draft if drafts is None else draft[..., drafts]).to(device, torch.bfloat16)


@pytest.mark.parametrize("temperature, top_k, top_p, min_p", FILTERS)
@pytest.mark.parametrize("rule", ["sampled", "hybrid", "traversal"])
@pytest.mark.parametrize("tree", TREES)
def test_matches_reference(device, tree, rule, temperature, top_k, top_p, min_p):
    parents = TREES[tree]
    batch, vocabulary = 16, 131
    requests = make_requests(
        batch, device, seed=torch.arange(batch) - 3, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p
    )
    counts = [parents.count(node) for node in range(len(parents))]
    fixed = [max(count - 1, 0) for count in counts] if rule == "hybrid" else None
    target, draft = random_logits(batch, len(parents), vocabulary, device)
    check(
        make_round(parents, strided(target), strided(draft), requests, num_fixed=fixed), traversal=rule == "traversal"
    )


@pytest.mark.parametrize("traversal", [False, True])
def test_reduced_draft_vocabulary(device, traversal):
    drafts = torch.randperm(300)[:90].sort().values
    d2t = (drafts - torch.arange(90)).to(device, torch.int32)
    requests = make_requests(12, device, seed=torch.arange(12))
    target, draft = random_logits(12, 8, 300, device, drafts)
    round = make_round(TREES["bush"], target, draft, requests, d2t=d2t)
    assert torch.isin(round["draft_tokens"][:, 1:].cpu(), torch.cat([drafts, torch.tensor([-1])])).all()
    _, accept_length, _ = check(round, traversal=traversal)
    assert accept_length.sum() > 0


def sample_outputs(device, draws, vocabulary, tree, rule="sampled", temperature=0.6, alter=None):
    """Tokens of `draws` independent requests and the two laws that they should follow."""
    parents = TREES[tree]
    depth = [0] * len(parents)
    for node, above in enumerate(parents[1:], 1):
        depth[node] = depth[above] + 1
    target = torch.randn(max(depth) + 1, vocabulary)
    draft = target + torch.randn_like(target)
    requests = make_requests(draws, device, seed=torch.arange(draws), temperature=temperature, top_k=12)
    params = [requests[name][0].cpu() for name in ("temperature", "top_k", "top_p", "min_p")]
    laws = torch.stack([log_law(row, *params).exp() for row in target])[:2]
    target, draft = (rows[depth].expand(draws, -1, -1).to(device) for rows in (target, draft))
    counts = [parents.count(node) for node in range(len(parents))]
    fixed = {"hybrid": [max(c - 1, 0) for c in counts], "deterministic": counts}.get(rule)
    round = make_round(parents, target, draft, requests, num_fixed=fixed)
    if alter is not None:
        alter(round)
    verdict = eagle_kernels.verify_rejection(**round, traversal=rule == "traversal")
    return emitted_tokens(round, verdict, laws), laws


@pytest.mark.parametrize("rule", ["sampled", "hybrid", "deterministic", "traversal"])
@pytest.mark.parametrize("tree", ["chain", "bush"])
def test_outputs_follow_the_target(device, rule, tree):
    output, laws = sample_outputs(device, 20_000, 16, tree, rule)
    assert chi_square(output, laws) < 4


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.6, 1.0])
@pytest.mark.parametrize("vocabulary", [16, 4096])
@pytest.mark.parametrize("rule", ["sampled", "hybrid", "deterministic", "traversal"])
def test_long_runs_follow_the_target(device, rule, vocabulary, temperature):
    output, laws = sample_outputs(
        device, 200_000 if vocabulary == 16 else 20_000, vocabulary, "bush", rule, temperature
    )
    assert chi_square(output, laws) < 4


def share_noise(round: dict[str, torch.Tensor]) -> None:
    """Broken on purpose: the root's child is drawn with the noise of its residual."""
    draft = round["draft_logits"][:, 0]
    scores = draft.double() / round["temperature"][:, None]
    scores = scores.masked_fill(scores < scores.topk(12).values[:, -1:], -torch.inf)
    bits = philox_bits(round["seed"], round["context_len"][:, None], draft.shape[-1], RESIDUAL)
    round["draft_tokens"][:, 1] = (scores + gumbel(bits)[:, 0]).argmax(-1)


def claim_sampled(round: dict[str, torch.Tensor]) -> None:
    """Broken on purpose: the draft's top tokens go through the test for sampled siblings."""
    round["num_fixed"] = torch.zeros_like(round["num_fixed"])


def prune_by_value(round: dict[str, torch.Tensor]) -> None:
    """Broken on purpose: sampled children are dropped because the draft finds them unlikely."""
    probs = round["draft_logits"][:, 0].softmax(-1).gather(1, round["draft_tokens"][:, 1:4].long())
    round["parent"][:, 1:4] = torch.where(probs < 0.1, -1, round["parent"][:, 1:4])


@pytest.mark.parametrize(
    "alter, tree, rule",
    [(share_noise, "chain", "sampled"), (claim_sampled, "bush", "deterministic"), (prune_by_value, "bush", "sampled")],
)
def test_broken_drafts_are_noticed(device, alter, tree, rule):
    output, laws = sample_outputs(device, 20_000, 16, tree, rule, alter=alter)
    assert chi_square(output, laws) > 10


@pytest.mark.parametrize("traversal", [False, True])
@pytest.mark.parametrize("temperature", [1e-6, 1.0, 100.0])
def test_equal_laws_accept_everything(device, temperature, traversal):
    target, _ = random_logits(8, 4, 70, device)
    requests = make_requests(8, device, seed=torch.arange(8), temperature=temperature)
    _, accept_length, _ = check(make_round(TREES["chain"], target, target, requests), traversal=traversal)
    assert (accept_length == 3).all()


@pytest.mark.parametrize("traversal", [False, True])
@pytest.mark.parametrize("top_p", [0.0, 1.0])
def test_edge_rows(device, traversal, top_p):
    target, draft = random_logits(5, 4, 70, device)
    draft = target.clone()
    target[0, 1, 3] = torch.nan  # the walk ends at node 1 if it gets there
    target[1, 0] = -torch.inf  # nothing can be emitted after the root
    target[2] = -torch.inf
    target[2, :, 17] = -3.0  # one allowed token
    draft[3] = torch.nan  # nothing can have been drawn
    target[4, :, 40:] = -torch.inf  # the draft may propose what the target forbids
    requests = make_requests(5, device, seed=torch.arange(5), top_p=top_p)
    round = make_round(TREES["chain"], target, draft, requests)
    round["draft_tokens"][3] = 2
    round["parent"][3] = torch.tensor(TREES["chain"])
    _, accept_length, bonus_token = check(round, traversal=traversal)
    assert bonus_token[0] == -1 and accept_length[0] == 1
    assert bonus_token[1] == -1 and accept_length[1] == 0
    assert bonus_token[2] == 17
    assert accept_length[3] == 0 and bonus_token[3] >= 0
    assert 0 <= bonus_token[4] < 40


def test_malformed_trees_stay_in_bounds(device):
    """Wild tokens and parents, duplicate siblings and padding are never accepted; -1 tokens neither."""
    target, draft = random_logits(1, 8, 70, device)
    round = make_round([-1] + [0] * 7, target, draft, make_requests(1, device))
    round["draft_tokens"][:, 1:5] = torch.tensor([2**31 - 1, -1, 70, -(2**31)])
    round["parent"][:, 5:] = torch.tensor([5, 2**31 - 1, -9])
    _, accept_length, bonus_token = check(round)
    assert accept_length.item() == 0
    assert 0 <= bonus_token.item() < 70


def test_max_depth_cuts_the_walk(device):
    target, _ = random_logits(4, 4, 70, device)
    round = make_round(TREES["chain"], target, target, make_requests(4, device, seed=torch.arange(4)))
    for depth in range(3):
        accept_index, accept_length, _ = check(round, max_depth=depth)
        assert accept_index.shape == (4, depth + 1)
        assert (accept_length == depth).all()


@pytest.mark.parametrize("traversal", [False, True])
def test_nothing_underflows_at_low_temperatures(device, traversal):
    """The draft's second choice is the target's first, and both laws leave exp(-200) for everything else."""
    target, draft = torch.zeros(2, 1, 4, 70)
    target[..., 5], target[..., 9] = 4.0, 2.0
    draft[..., 9], draft[..., 5] = 4.0, 2.0
    round = make_round([-1, 0, 0, 2], target.to(device), draft.to(device), make_requests(1, device, temperature=0.01))
    assert round["draft_tokens"][0, 1:].tolist() == [9, 5, 9]
    accept_index, accept_length, bonus_token = check(round, traversal=traversal)
    assert accept_index[0, :2].tolist() == [0, 2] and accept_length.item() == 1 and bonus_token.item() == 5


def extreme_seeds() -> torch.Tensor:
    """Two seeds of 2^16: node 1's coin in context 10 is closest to 0 with the first, to 1 with the second."""
    seeds = torch.arange(2**16)
    bits = philox_bits(seeds, torch.full((2**16, 1), 10, dtype=torch.int32), 2, ACCEPT)[:, 0, 1]
    return seeds[torch.stack([bits.argmin(), bits.argmax()])]


@pytest.mark.parametrize("traversal", [False, True])
def test_extreme_coins(device, traversal):
    """What the target forbids is refused by the smallest coin, what is certain is accepted by the largest."""
    for child, accepted in ((3, 0), (4, 1)):  # the target never emits 3, and emits 4 exactly as the draft does
        seeds = extreme_seeds()
        target, draft = torch.full((2, 2, 2, 70), -torch.inf)
        target[..., 4], draft[..., child] = 1.0, 1.0
        round = make_round([-1, 0], target.to(device), draft.to(device), make_requests(2, device, seed=seeds))
        round["context_len"].fill_(10)
        _, accept_length, bonus_token = check(round, traversal=traversal)
        assert accept_length.tolist() == [accepted, accepted] and bonus_token.tolist() == [4, 4]


@pytest.mark.parametrize("bits, coin", [(0, 2.0**-33), (2**32 - 1, 1 - 2.0**-33)])
def test_coins_are_never_0_and_never_1(bits, coin):
    assert float(uniform(torch.tensor(bits))) == coin


def far_apart(logits: torch.Tensor) -> torch.Tensor:
    """The same values, the rows of successive requests more than 2^31 elements apart in address space alone."""
    batch, nodes, vocabulary = logits.shape
    distance = 2**31 + 64 * 1001
    size = ((batch - 1) * distance + nodes * vocabulary) * logits.element_size()
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    buffer = torch.frombuffer(mmap.mmap(-1, size, flags=flags), dtype=logits.dtype)
    view = buffer.as_strided(logits.shape, (distance, vocabulary, 1))
    return view.copy_(logits)


@pytest.mark.parametrize("traversal", [False, True])
def test_offsets_beyond_32_bits(traversal):
    """Logits spread over 2^32 elements and more: pages that are not touched take no memory."""
    target, draft = random_logits(3, 4, 70, "cpu")
    round = make_round(TREES["chain"], target, draft, make_requests(3, "cpu", seed=torch.arange(3)))
    expected = eagle_kernels.verify_rejection(**round, traversal=traversal)
    spread = round | {"target_logits": far_apart(target), "draft_logits": far_apart(draft)}
    assert spread["target_logits"].stride(0) * 2 > 2**32
    for name, a, e in zip(NAMES, check(spread, traversal=traversal), expected, strict=True):
        assert_bitwise(a, e, name)


def test_shapes_beyond_32_bits():
    """Batch * nodes * vocabulary above 2^32: shapes follow without a buffer."""
    batch, nodes, vocabulary = 512, 64, 152_064
    assert batch * nodes * vocabulary > 2**32
    with torch.device("meta"):
        logits = torch.empty(batch, nodes, vocabulary, dtype=torch.bfloat16)
        per_node = torch.empty(batch, nodes, dtype=torch.int32)
        requests = make_requests(batch, "meta")
        context_len = torch.empty(batch, dtype=torch.int32)
        verdict = torch.ops.eagle_kernels.verify_rejection(
            logits, logits, per_node, per_node, per_node, context_len, *requests.values(), None, 8, False
        )
        tokens = torch.ops.eagle_kernels.sample_tokens(logits, per_node, *requests.values())
    assert [tuple(t.shape) for t in verdict] == [(batch, 9), (batch,), (batch,)]
    assert tokens.shape == per_node.shape


def test_opcheck(device):
    target, draft = random_logits(2, 4, 70, device)
    round = make_round(TREES["chain"], target, draft, make_requests(2, device))
    fixed = torch.zeros_like(round["parent"])
    args = [round[n] for n in ("target_logits", "draft_logits", "draft_tokens", "parent")] + [fixed]
    args += [round[n] for n in ("context_len", "seed", "temperature", "top_k", "top_p", "min_p")]
    torch.library.opcheck(torch.ops.eagle_kernels.verify_rejection.default, (*args, None, 3, False))


def test_errors_name_op_and_tensor():
    target, draft = random_logits(2, 4, 70, "cpu")
    round = make_round(TREES["chain"], target, draft, make_requests(2, "cpu"))
    with pytest.raises(ValueError, match="traversal needs a tree of sampled children"):
        eagle_kernels.verify_rejection(**round, num_fixed=round["parent"], traversal=True)
    with pytest.raises(RuntimeError, match=r"verify_rejection: draft_logits must be \[B, N, D\] with B = 2, N = 4"):
        eagle_kernels.verify_rejection(**(round | {"draft_logits": draft[:, :3]}))
    with pytest.raises(RuntimeError, match="verify_rejection: d2t must be int32"):
        eagle_kernels.verify_rejection(**(round | {"d2t": torch.zeros(70, dtype=torch.int64)}))

"""sample_children: every backend against the reference, the law of draws without replacement, budgets, edge rows."""

from itertools import permutations

import pytest
import torch
from compare import assert_bitwise, assert_close, strided
from sampled_rounds import make_requests

import eagle_kernels
from eagle_kernels.sample_children import child_budget


def make_case(device, dtype=torch.float32, batch=4, nodes=5, vocabulary=700, **params):
    logits = (2 * torch.randn(batch, nodes, vocabulary)).to(device, dtype)
    node_ids = torch.arange(nodes, dtype=torch.int32, device=device).expand(batch, nodes).contiguous()
    num_children = torch.randint(0, 9, (batch, nodes), dtype=torch.int32, device=device)
    context_len = torch.arange(batch, dtype=torch.int32, device=device) + 5
    return (logits, node_ids, num_children, context_len), make_requests(batch, device, **params)


def check(args, requests, **options):
    actual = eagle_kernels.sample_children(*args, **requests, **options)
    expected = eagle_kernels.sample_children(*args, **requests, **(options | {"backend": "reference"}))
    assert_bitwise(actual[0], expected[0], "child_tokens")
    assert_close(actual[1], expected[1], rtol=2e-6, atol=2e-6, name="child_logprobs")
    return actual


@pytest.mark.parametrize(
    "temperature, top_k, top_p, min_p", [(1, 0, 1, 0), (0.7, 6, 0.9, 0), (2, 0, 0.5, 0.01), (0, 0, 1, 0)]
)
@pytest.mark.parametrize("view", [torch.clone, strided], ids=["contiguous", "strided"])
@pytest.mark.parametrize("fixed", [False, True])
def test_matches_reference(device, dtype, view, fixed, temperature, top_k, top_p, min_p):
    args, requests = make_case(
        device, dtype, seed=torch.arange(4), temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p
    )
    num_fixed = (args[2] - 1).clamp(min=0) if fixed else None
    check((view(args[0]), *args[1:]), requests, max_children=8, num_fixed=num_fixed)


@pytest.mark.parametrize("max_children", [1, 5])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("backend", ["triton"])
def test_triton_matches_reference(backend, device, dtype, tied, max_children):
    """One request per kind of filter, few rows; as many fixed children as there are requests before."""
    (logits, node_ids, num_children, context_len), requests = make_case(
        device,
        dtype,
        batch=6,
        nodes=1,
        vocabulary=300,
        seed=torch.arange(6) - 2,
        temperature=torch.tensor([0.0, 1.0, 0.7, 1.5, 1.0, 0.8]),
        top_k=torch.tensor([5, 0, 20, 0, 0, 3]),
        top_p=torch.tensor([1.0, 1.0, 1.0, 0.8, 1.0, 0.9]),
        min_p=torch.tensor([0.0, 0.0, 0.0, 0.0, 0.1, 0.05]),
    )
    logits = strided(logits.float().round().to(dtype) if tied else logits)
    num_children[:] = torch.tensor([9, 3, 5, 4, 0, 5], device=device)[:, None]
    fixed = torch.arange(6, dtype=torch.int32, device=device)[:, None] - 1
    args = logits, node_ids, num_children, context_len
    check(args, requests, max_children=max_children, num_fixed=fixed, backend=backend)


def test_vocabulary_map(backend, device):
    args, requests = make_case(device, batch=1, nodes=3)
    d2t = torch.arange(700, dtype=torch.int32, device=device)  # doubles every id
    tokens, _ = check(args, requests, max_children=8, d2t=d2t)
    assert (tokens[tokens >= 0] % 2 == 0).all()


def test_draws_without_replacement(device):
    """Ordered pairs follow q(a) q(b) / (1 - q(a)), by chi-square over 20000 nodes."""
    draws = 20_000
    logits = torch.tensor([1.5, 1.0, 0.5, 0.0, -0.5], device=device)
    probs = logits.softmax(-1).cpu().double()
    node_ids = torch.arange(draws, dtype=torch.int32, device=device)[None]
    tokens, logprobs = eagle_kernels.sample_children(
        logits.expand(1, draws, 5), node_ids, torch.full_like(node_ids, 2), node_ids[:, 0].contiguous(),
        **make_requests(1, device), max_children=2,
    )  # fmt: skip
    tokens = tokens[0].cpu()
    pairs = list(permutations(range(5), 2))
    counts = torch.tensor([(tokens == torch.tensor(pair)).all(-1).sum() for pair in pairs]).double()
    expected = torch.tensor([draws * probs[a] * probs[b] / (1 - probs[a]) for a, b in pairs])
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert counts.sum() == draws
    assert statistic < 45, f"chi-square {statistic:.1f} with 19 degrees of freedom"
    assert_close(logprobs[0].cpu(), probs.log()[tokens.long()], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fixed", [None, 8])
def test_edge_rows(backend, device, dtype, fixed):
    (logits, *rest), requests = make_case(device, dtype, batch=1, nodes=5, vocabulary=90)
    logits[0, 0, 3] = torch.nan
    logits[0, 1] = -torch.inf
    logits[0, 2, 89] = torch.inf
    logits[0, 3, 2:] = -torch.inf  # two tokens for eight children
    logits[0, 4] = 1.0
    rest[1].fill_(8)
    num_fixed = None if fixed is None else torch.full_like(rest[1], fixed)
    tokens, logprobs = check((logits, *rest), requests, max_children=8, num_fixed=num_fixed)
    assert (tokens[0, :3] == -1).all() and (logprobs[0, :3] == -torch.inf).all()
    assert sorted(tokens[0, 3].tolist()) == [-1] * 6 + [0, 1]
    assert len(set(tokens[0, 4].tolist())) == 8


def test_budget_goes_to_the_likeliest_places(device):
    scores = torch.tensor([[-0.1, -1.0, -torch.inf, torch.nan]], device=device)
    logprobs = torch.tensor([-0.5, -1.5, -2.0], device=device).expand(1, 4, 3)
    assert child_budget(scores, logprobs, 4).tolist() == [[3, 1, 0, 0]]
    assert child_budget(scores, logprobs, 100).tolist() == [[3, 3, 0, 0]]
    assert child_budget(scores, logprobs, 0).tolist() == [[0, 0, 0, 0]]


def test_opcheck(device):
    (logits, node_ids, num_children, context_len), requests = make_case(device)
    args = (logits, node_ids, num_children, num_children, context_len, *requests.values(), 4, None)
    torch.library.opcheck(torch.ops.eagle_kernels.sample_children.default, args)


def test_errors_name_op_and_tensor():
    args, requests = make_case("cpu")
    with pytest.raises(RuntimeError, match=r"max_children must be 1 to min\(draft vocabulary, 64\), got 65"):
        eagle_kernels.sample_children(*args, **requests, max_children=65)
    with pytest.raises(RuntimeError, match=r"sample_children: context_len must be \[B\] with B = 4"):
        eagle_kernels.sample_children(*args[:3], args[3][:2], **requests, max_children=4)

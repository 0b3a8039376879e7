"""sample_tokens: every backend against the reference, kept sets against transformers, edge rows."""

import itertools

import pytest
import torch
from compare import assert_bitwise, strided
from transformers.generation.logits_process import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

import eagle_kernels
from eagle_kernels.reference.filters import filtered_scores
from eagle_kernels.reference.philox import SAMPLE, gumbel, philox_bits

FILTERS = list(itertools.product([0, 1, 50, 10**6], [0.0, 0.3, 0.95, 1.0], [0.0, 0.05, 1.0]))


def make_requests(batch: int, device: str, **params: object) -> dict[str, torch.Tensor]:
    values = {"seed": 7, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | params
    types = {"seed": torch.int64, "top_k": torch.int32}
    return {
        name: torch.as_tensor(value, dtype=types.get(name, torch.float32), device=device).expand(batch).contiguous()
        for name, value in values.items()
    }


def positions(batch: int, nodes: int, device: str) -> torch.Tensor:
    return torch.arange(batch * nodes, dtype=torch.int32, device=device).view(batch, nodes) + 100


def assert_same_choice(actual, logits, position_ids, requests):
    """The reference's token, or one whose float64 score is within the float32 rounding of the best."""
    expected = eagle_kernels.sample_tokens(logits, position_ids, **requests, backend="reference")
    if torch.equal(actual, expected):
        return
    params = {name: requests[name][:, None] for name in ("temperature", "top_k", "top_p", "min_p")}
    params["temperature"] = torch.where(params["temperature"] <= 0, 1, params["temperature"])
    scores = filtered_scores(logits, **params)
    scores += gumbel(philox_bits(requests["seed"], position_ids, logits.shape[-1], SAMPLE))
    for b, n in (actual != expected).nonzero().tolist():
        assert requests["temperature"][b] > 0, f"greedy row {b, n}: {actual[b, n]} != {expected[b, n]}"
        gap = scores[b, n, expected[b, n]] - scores[b, n, actual[b, n]]
        assert gap < 1e-5, f"row {b, n}: token {actual[b, n]}, expected {expected[b, n]}, which wins by {gap}"


@pytest.mark.parametrize("vocabulary", [1, 5, 63, 64, 65, 1000, 4099])
@pytest.mark.parametrize("view", [torch.clone, strided], ids=["contiguous", "strided"])
def test_matches_reference(device, dtype, vocabulary, view):
    batch, nodes = 4, 5
    logits = view((3 * torch.randn(batch, nodes, vocabulary)).to(device, dtype))
    position_ids = positions(batch, nodes, device)
    requests = make_requests(
        batch,
        device,
        seed=torch.tensor([0, -1, 2**40 + 3, 99]),
        temperature=torch.tensor([0.0, 0.6, 1.0, 2.0]),
        top_k=torch.tensor([3, 20, 0, 0]),
        top_p=torch.tensor([0.5, 0.9, 1.0, 0.8]),
        min_p=torch.tensor([0.0, 0.0, 0.02, 0.0]),
    )
    assert_same_choice(eagle_kernels.sample_tokens(logits, position_ids, **requests), logits, position_ids, requests)


@pytest.mark.parametrize("top_k, top_p, min_p", FILTERS)
def test_filters_match_reference(device, top_k, top_p, min_p):
    """Peaked, flat and tied rows under every combination of filters."""
    logits = torch.randn(6, 8, 3001, device=device) * torch.tensor([0.1, 1, 3, 8, 30, 3], device=device)[:, None, None]
    logits[5] = logits[5].round()
    position_ids = positions(6, 8, device)
    requests = make_requests(6, device, temperature=0.8, top_k=top_k, top_p=top_p, min_p=min_p)
    assert_same_choice(eagle_kernels.sample_tokens(logits, position_ids, **requests), logits, position_ids, requests)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("backend", ["triton"])
def test_triton_matches_reference(backend, device, dtype, tied):
    """One request per kind of filter: few rows, because the interpreter searches thresholds slowly."""
    logits = 3 * torch.randn(6, 1, 300)
    logits = strided((logits.round() if tied else logits).to(device, dtype))
    requests = make_requests(
        6,
        device,
        seed=torch.arange(6) - 2,
        temperature=torch.tensor([0.0, 1.0, 0.7, 1.5, 1.0, 0.8]),
        top_k=torch.tensor([5, 0, 20, 0, 0, 40]),
        top_p=torch.tensor([1.0, 1.0, 1.0, 0.8, 1.0, 0.9]),
        min_p=torch.tensor([0.0, 0.0, 0.0, 0.0, 0.1, 0.05]),
    )
    position_ids = positions(6, 1, device)
    actual = eagle_kernels.sample_tokens(logits, position_ids, **requests, backend=backend)
    assert_same_choice(actual, logits, position_ids, requests)


@pytest.mark.parametrize("top_k, top_p, min_p", FILTERS)
@pytest.mark.parametrize("scale", [0.5, 4])
def test_reference_keeps_what_transformers_keeps(top_k, top_p, min_p, scale):
    logits = (scale * torch.randn(7, 300, dtype=torch.float64)).bfloat16().double()  # bfloat16: many ties
    expected = logits / 0.75
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    expected = MinPLogitsWarper(min_p)(None, expected)
    params = (torch.tensor([value], dtype=torch.float64) for value in (0.75, top_k, top_p, min_p))
    actual = filtered_scores(logits, *params)
    # Sorted, because transformers' sort is not stable: which of several equal scores it drops is arbitrary.
    assert_bitwise(actual.sort().values, expected.sort().values, "kept scores")


def test_frequencies_follow_softmax(device):
    """Chi-square of 40000 draws at different positions against the filtered softmax."""
    logits = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5], device=device)
    draws = 40000
    requests = make_requests(1, device, temperature=0.7, top_k=6)
    tokens = eagle_kernels.sample_tokens(logits.expand(1, draws, 8), positions(1, draws, device), **requests)
    probs = torch.where(logits >= logits[5], logits / 0.7, -torch.inf).softmax(-1).double().cpu()
    counts = torch.bincount(tokens.flatten().long().cpu(), minlength=8).double()
    assert counts[6:].sum() == 0
    statistic = ((counts - draws * probs) ** 2 / (draws * probs))[:6].sum()
    assert statistic < 20.5, f"chi-square {statistic:.1f} with 5 degrees of freedom (0.1 % above 20.5)"


def test_independent_of_batch_and_order(device):
    logits = torch.randn(5, 7, 2000, device=device)
    position_ids = positions(5, 7, device)
    requests = make_requests(5, device, seed=torch.arange(5), temperature=torch.linspace(0.0, 2, 5), top_p=0.9)
    together = eagle_kernels.sample_tokens(logits, position_ids, **requests)
    for b in range(5):
        alone = {name: value[b : b + 1] for name, value in requests.items()}
        single = eagle_kernels.sample_tokens(logits[b : b + 1, 3:4], position_ids[b : b + 1, 3:4].contiguous(), **alone)
        assert single.item() == together[b, 3].item()


@pytest.mark.parametrize("temperature", [0.0, 1e-6, 1.0, 100.0])
def test_edge_rows(device, dtype, temperature):
    rows = torch.zeros(8, 200)
    rows[0, 150] = torch.nan
    rows[1, 199] = torch.inf
    rows[2] = -torch.inf
    rows[3] = -torch.inf
    rows[3, 77] = -5.0  # one allowed token
    rows[4, 123] = 4.0
    rows[5] = -60000.0
    rows[6, 1:] = -torch.inf
    rows[7, 0] = -torch.inf
    rows[7, 1] = -torch.nan
    logits = rows[None].to(device, dtype)
    for top_k, top_p, min_p in [(0, 1.0, 0.0), (500, 0.0, 0.0), (1, 1.0, 0.0), (0, 0.9, 1.0)]:
        requests = make_requests(1, device, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        tokens = eagle_kernels.sample_tokens(logits, positions(1, 8, device), **requests)
        assert tokens[0, [0, 1, 2, 3, 6, 7]].tolist() == [-1, -1, -1, 77, 0, -1]
        if temperature < 0.01:
            assert tokens[0, 4] == 123
        assert 0 <= tokens[0, 5] < 200
        assert_same_choice(tokens, logits, positions(1, 8, device), requests)


def test_greedy_ties_go_to_the_lowest_token(backend, device):
    logits = torch.zeros(1, 1, 130, device=device)
    logits[..., [70, 71, 129]] = 2.0
    requests = make_requests(1, device, temperature=0.0, top_p=0.0)
    assert eagle_kernels.sample_tokens(logits, positions(1, 1, device), **requests).item() == 70


def test_offsets_beyond_32_bits(device):
    """Rows 2^32 elements apart, in a buffer of which only they are touched."""
    buffer = torch.empty(2**32 + 100, dtype=torch.bfloat16, device=device)
    logits = buffer.as_strided((2, 1, 100), (2**32, 100, 1))
    logits.copy_(torch.eye(100, device=device)[[3, 71], None])
    requests = make_requests(2, device, temperature=0.0)
    assert eagle_kernels.sample_tokens(logits, positions(2, 1, device), **requests).tolist() == [[3], [71]]


def test_opcheck(device):
    requests = make_requests(2, device)
    args = (torch.randn(2, 3, 70, device=device), positions(2, 3, device), *requests.values())
    torch.library.opcheck(torch.ops.eagle_kernels.sample_tokens.default, args)


def test_errors_name_op_and_tensor():
    logits, requests = torch.randn(2, 3, 10), make_requests(2, "cpu")
    with pytest.raises(RuntimeError, match=r"sample_tokens: position_ids must be \[B, N\] with B = 2, N = 3"):
        eagle_kernels.sample_tokens(logits, positions(2, 4, "cpu"), **requests)
    with pytest.raises(RuntimeError, match="sample_tokens: seed must be int64"):
        eagle_kernels.sample_tokens(logits, positions(2, 3, "cpu"), **(requests | {"seed": requests["top_k"]}))
    with pytest.raises(RuntimeError, match="logits must have a last dimension that is contiguous"):
        eagle_kernels.sample_tokens(logits.mT, positions(2, 10, "cpu"), **requests)

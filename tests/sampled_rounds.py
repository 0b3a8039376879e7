"""Draft trees of sampled children for tests: laws that depend on the depth only, so that the output's law is known."""

import torch
from torch import Tensor

import eagle_kernels


def make_requests(batch: int, device: str, **params: object) -> dict[str, Tensor]:
    """Per-request sampling parameters; numbers are repeated for every request."""
    values = {"seed": 7, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | params
    types = {"seed": torch.int64, "top_k": torch.int32}
    return {
        name: torch.as_tensor(value, dtype=types.get(name, torch.float32), device=device).expand(batch).contiguous()
        for name, value in values.items()
    }


def make_round(
    parents: list[int],
    target_logits: Tensor,
    draft_logits: Tensor,
    requests: dict[str, Tensor],
    d2t: Tensor | None = None,
    num_fixed: list[int] | None = None,
    backend: str | None = None,
) -> dict[str, Tensor]:
    """The tree `parents` for every request, its children drawn by sample_children: the arguments of verify_rejection.

    target_logits, draft_logits: [batch, num_nodes, vocabulary]
    """
    batch, nodes = draft_logits.shape[:2]
    device = draft_logits.device
    context_len = torch.arange(batch, dtype=torch.int32, device=device) + 10
    counts = [parents.count(node) for node in range(nodes)]

    def per_node(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device).expand(batch, nodes).contiguous()

    fixed = None if num_fixed is None else per_node(num_fixed)
    most = min(max(*counts, 1), draft_logits.shape[-1])  # no more than there are tokens: the rest is padding
    children, _ = eagle_kernels.sample_children(
        draft_logits, per_node(list(range(nodes))), per_node(counts).clamp(max=most), context_len, **requests,
        max_children=most, d2t=d2t, num_fixed=fixed, backend=backend,
    )  # fmt: skip
    children = torch.nn.functional.pad(children, (0, nodes - most), value=-1)
    tokens = per_node([0] * nodes)
    rank = [0] * nodes
    for node, above in enumerate(parents[1:], 1):
        tokens[:, node] = children[:, above, rank[above]]
        rank[above] += 1
    parent = per_node(parents).masked_fill(tokens < 0, -1)
    round = {"target_logits": target_logits, "draft_logits": draft_logits, "draft_tokens": tokens, "parent": parent}
    return round | {"context_len": context_len} | requests | {"d2t": d2t} | ({"num_fixed": fixed} if num_fixed else {})


def emitted_tokens(round: dict[str, Tensor], verdict: tuple[Tensor, ...], laws: Tensor) -> Tensor:
    """[batch, length]: the verdict's tokens, continued by plain sampling from laws [length, vocabulary]."""
    accept_index, accept_length, bonus_token = (t.long().cpu() for t in verdict)
    draft_tokens = round["draft_tokens"].long().cpu()
    batch, length = len(bonus_token), len(laws)
    output = torch.multinomial(laws.expand(batch, -1, -1).flatten(0, 1), 1).view(batch, length)
    for i in range(length):
        if i + 1 < accept_index.shape[1]:
            path = draft_tokens.gather(1, accept_index[:, i + 1 : i + 2].clamp(min=0))[:, 0]
            output[:, i] = torch.where(accept_length > i, path, output[:, i])
        output[:, i] = torch.where(accept_length == i, bonus_token, output[:, i])
    return output


def chi_square(output: Tensor, laws: Tensor) -> float:
    """Standard deviations by which the statistic of the joint counts of two tokens exceeds its mean."""
    vocabulary = laws.shape[1]
    expected = len(output) * (laws[0, :, None] * laws[1]).flatten()
    counts = torch.bincount(output[:, 0] * vocabulary + output[:, 1], minlength=vocabulary**2).double()
    order = expected.argsort()
    cell = (expected[order].cumsum(0) / 10).long()  # cells of at least 10 expected counts, small ones merged
    cell = torch.unique(cell, return_inverse=True)[1]
    expected = torch.zeros(int(cell.max()) + 1, dtype=torch.float64).scatter_add(0, cell, expected[order])
    counts = torch.zeros_like(expected).scatter_add(0, cell, counts[order])
    statistic = float(((counts - expected) ** 2 / expected.clamp(min=1e-12)).sum())
    degrees = len(expected) - 1
    return (statistic - degrees) / (2 * degrees) ** 0.5

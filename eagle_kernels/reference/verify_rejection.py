"""verify_rejection in plain torch: the algorithms of rejection.py on logits and keyed noise, in float64."""

import torch
from torch import Tensor

from eagle_kernels.reference.filters import filtered_scores, valid_rows
from eagle_kernels.reference.philox import ACCEPT, BONUS, RESIDUAL, gumbel, philox_bits, uniform
from eagle_kernels.reference.rejection import verify_by_traversal, verify_recursively
from eagle_kernels.reference.sample_tokens import lowest_argmax


def log_law(logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor | None:
    """Log of one row's filtered law, float64 [vocabulary]; one-hot at temperature <= 0; None for an invalid row."""
    if not valid_rows(logits):
        return None
    if temperature <= 0:
        return torch.nn.functional.one_hot(lowest_argmax(logits), len(logits)).double().log()
    return filtered_scores(logits, temperature, top_k, top_p, min_p).log_softmax(-1)


class Request:
    """One request of the batch as rejection.Round."""

    def __init__(
        self,
        target_logits: Tensor,
        draft_logits: Tensor,
        draft_tokens: Tensor,
        parent: Tensor,
        num_fixed: Tensor,
        context_len: Tensor,
        seed: Tensor,
        params: list[Tensor],
        d2t: Tensor | None,
        max_depth: int,
    ) -> None:
        self.target_logits, self.draft_logits, self.d2t = target_logits, draft_logits, d2t
        self.tokens, self.fixed = draft_tokens.tolist(), num_fixed.tolist()
        self.context_len, self.seed, self.params = context_len.view(1, 1), seed.view(1), params
        self.offspring: list[list[int]] = [[] for _ in self.tokens]
        depth = [0] * len(self.tokens)
        for node, above in enumerate(parent.tolist()):
            if 0 <= above < node and depth[above] < max_depth and (above == 0 or depth[above] > 0):
                depth[node] = depth[above] + 1
                self.offspring[above].append(node)

    def children(self, node: int) -> list[int]:
        return self.offspring[node]

    def num_fixed(self, node: int) -> int:
        return max(self.fixed[node], 0) if self.params[0] > 0 else len(self.offspring[node])

    def token(self, node: int) -> int:
        return self.tokens[node]

    def target(self, node: int) -> Tensor | None:
        return log_law(self.target_logits[node], *self.params)

    def draft(self, node: int) -> Tensor:
        never = torch.full(self.target_logits.shape[-1:], -torch.inf, dtype=torch.float64)
        proposal = never.to(self.target_logits.device)
        drafted = log_law(self.draft_logits[node], *self.params)
        if drafted is None:
            return proposal
        token_ids = torch.arange(len(drafted), device=proposal.device)
        return proposal.index_copy(0, token_ids if self.d2t is None else token_ids + self.d2t, drafted)

    def coin(self, node: int, probability: float) -> bool:
        return bool(uniform(philox_bits(self.seed, self.context_len, node + 1, ACCEPT)[..., node]) < probability)

    def draw(self, node: int, log_law: Tensor) -> int:
        stream = RESIDUAL if self.offspring[node] else BONUS
        node_ids = torch.full_like(self.context_len, node)
        noise = gumbel(philox_bits(self.seed, self.context_len, len(log_law), stream, node_ids))[0, 0]
        return int(lowest_argmax(log_law + noise))


def verify_rejection(
    target_logits: Tensor,
    draft_logits: Tensor,
    draft_tokens: Tensor,
    parent: Tensor,
    num_fixed: Tensor,
    context_len: Tensor,
    seed: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    d2t: Tensor | None,
    max_depth: int,
    traversal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    batch = draft_tokens.shape[0]
    accept_index = torch.full((batch, max_depth + 1), -1, dtype=torch.int32)
    accept_length, bonus_token = torch.zeros(2, batch, dtype=torch.int32)
    for b in range(batch):
        params = [value[b] for value in (temperature, top_k, top_p, min_p)]
        request = Request(
            target_logits[b],
            draft_logits[b],
            draft_tokens[b],
            parent[b],
            num_fixed[b],
            context_len[b],
            seed[b],
            params,
            d2t,
            max_depth,
        )
        verify = verify_by_traversal if traversal and temperature[b] > 0 else verify_recursively
        path, bonus_token[b] = verify(request)
        accept_index[b, : len(path)] = torch.tensor(path)
        accept_length[b] = len(path) - 1
    device = draft_tokens.device
    return accept_index.to(device), accept_length.to(device), bonus_token.to(device)

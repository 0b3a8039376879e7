"""Typical acceptance, which is LOSSY: what a draft proposes is kept when the target finds it plausible enough."""

from dataclasses import dataclass

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.tree import DraftTree
from eagle_kernels.reference.filters import filtered_scores


@dataclass(frozen=True)
class TypicalAcceptance:
    """Medusa's rule (Cai et al. 2024, arXiv 2401.10774, section 2.3.1). LOSSY: the text has not the target's law.

    A draft token is kept if its probability p(x) under the target, after temperature and filters, exceeds
    min(threshold, alpha * exp(-entropy(p))): a fixed bar where the target is sure, a lower one where it is not. The
    longest kept path wins. More tokens a round than any lossless rule, in exchange for text that leans to the draft.
    """

    threshold: float = 0.09
    alpha: float = 0.3

    def __post_init__(self) -> None:
        if not (0 < self.threshold <= 1 and 0 < self.alpha <= 1):
            raise ValueError(f"Typical acceptance needs threshold and alpha in (0, 1], got {self}.")


def verify_typically(
    rule: TypicalAcceptance, logits: Tensor, tree: DraftTree, params: dict[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """LOSSY. Returns accept_index, accept_length and bonus_token as `verify_tree` does.

    logits: [batch, num_nodes, vocab], the target's after each node
    params: seed, temperature, top_k, top_p and min_p as `sample_tokens` takes them; greedy requests accept the argmax
    """
    target_tokens = eagle_kernels.sample_tokens(logits, tree.position_ids + 1, **params)
    laws = node_laws(logits, params)
    entropy = -torch.special.xlogy(laws, laws).sum(-1)
    bar = (rule.alpha * (-entropy).exp()).clamp(max=rule.threshold)
    parent = tree.parent.clamp(min=0).long()
    tokens = tree.draft_tokens.long()[..., None]
    proposed = laws.gather(1, parent[..., None].expand_as(laws)).gather(-1, tokens).squeeze(-1)
    plausible = (proposed > bar.gather(1, parent)) & (tree.parent >= 0)
    kept = torch.zeros_like(plausible)
    kept[:, 0] = True
    for node in range(1, tree.num_nodes):
        kept[:, node] = plausible[:, node] & kept.gather(1, parent[:, node : node + 1]).squeeze(1)
    accept_length = torch.where(kept, tree.depth, 0)
    node = accept_length.argmax(1, keepdim=True)  # the first of the deepest
    bonus_token = target_tokens.gather(1, node).squeeze(1)
    accept_length = accept_length.amax(1).int()
    accept_index = torch.full((len(parent), tree.max_depth + 1), -1, dtype=torch.int32, device=parent.device)
    for _ in range(tree.max_depth + 1):
        accept_index.scatter_(1, tree.depth.gather(1, node).long(), node.int())
        node = parent.gather(1, node)
    return accept_index, accept_length, bonus_token


def node_laws(logits: Tensor, params: dict[str, Tensor]) -> Tensor:
    """The target's law after each node, float64 [batch, num_nodes, vocab]; one-hot for greedy requests."""
    temperature, *filters = (params[name][:, None] for name in ("temperature", "top_k", "top_p", "min_p"))
    greedy = (temperature <= 0)[..., None]
    laws = filtered_scores(logits, torch.where(temperature <= 0, 1.0, temperature), *filters).softmax(-1)
    best = torch.zeros_like(laws).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    return torch.where(greedy, best, laws).nan_to_num(0.0)

"""Growing a tree with a model that continues from its own guesses: what EAGLE heads and small language models share."""

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.base import TreeRows
from eagle_decoding.drafts.coupled import coupling
from eagle_decoding.drafts.drawn import propose_drawn
from eagle_decoding.drafts.rules import RULES, RuleChooser
from eagle_decoding.sampling import SamplingParams
from eagle_decoding.tree import DraftTree

MAX_TOPK = 64  # of the ops that find or draw a node's children


class GrowingDraft:
    """Grows a tree level by level from `root_state`, in one of the ways of TreeConfig.children.

    A subclass runs nodes (`run`) and says what follows them: `logits`, what children continue from (`fed_back`), and
    `likeliest` where a fused op finds them without storing logits. A state is whatever a row of the model left behind:
    [batch, rows, width].

    root_state: the state that predicts the root's children
    vocab_size: the target's; draft_vocab_size: columns of `logits`
    d2t:        [draft_vocab_size] int32 offset from a draft id to the target's, or None
    """

    on_device = True
    tree: TreeConfig
    dtype: torch.dtype
    device: torch.device
    vocab_size: int
    draft_vocab_size: int
    d2t: Tensor | None = None
    root_state: Tensor
    params: SamplingParams

    def logits(self, state: Tensor) -> Tensor:
        """[batch, rows, draft_vocab_size] after each row."""
        raise NotImplementedError

    def fed_back(self, state: Tensor) -> Tensor:
        """What a child of each row continues from."""
        return state

    def run(self, rows: TreeRows, fed_back: Tensor) -> Tensor:
        """The states of nodes that continue from rows of fed_back."""
        raise NotImplementedError

    def likeliest(self, state: Tensor, topk: int) -> tuple[Tensor, Tensor, Tensor]:
        """(log-probabilities, target ids int32, both [batch, rows, topk], what they continue from) after each row."""
        logits = self.logits(state)
        logprobs, token_ids, _ = eagle_kernels.topk_logprobs(logits.flatten(0, 1), topk, self.d2t)
        shape = (*logits.shape[:2], topk)
        return logprobs.view(shape), token_ids.view(shape), self.fed_back(state)

    def start(self, prompt: Tensor, lengths: Tensor, params: SamplingParams) -> None:
        if params is not getattr(self, "params", None):
            self.make_room(len(prompt), params)
        elif self.chooser is not None:
            self.chooser.forget()

    def make_room(self, batch: int, params: SamplingParams) -> None:
        """Makes what a batch of requests needs from round to round, for requests that sample as `params` says."""
        rule, sampling = self.tree.children, bool((params.temperature > 0).any())
        self.params = params
        self.coupling = coupling(rule, params, self.vocab_size, self.d2t)
        self.drawn = sampling and self.tree.drawn
        self.chooser = RuleChooser(batch, self.device) if rule == "auto" else None
        if rule in RULES:
            self.rule = torch.full((batch,), RULES.index(rule), device=self.device)

    def observe(self, accept_length: Tensor) -> None:
        """Takes in what the last round accepted, [batch]."""
        if self.chooser is not None:
            self.chooser.observe(accept_length)

    def propose(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        if not self.drawn:
            return self.grow(root_tokens, context_len)
        if self.chooser is not None:
            self.rule = self.chooser.choose()
        return propose_drawn(self, root_tokens, context_len)

    def children(self, state: Tensor, topk: int, context_len: Tensor, depth: int) -> tuple[Tensor, Tensor, Tensor]:
        """As `likeliest`; in coupled drafting once the noise is known that chooses the target's token.

        context_len: [batch] int32, position of the root
        depth:       of the children
        """
        if self.coupling is None:
            return self.likeliest(state, topk)
        return *self.coupling.topk(self.logits(state), context_len + depth, topk), self.fed_back(state)

    def grow(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        """Looks at topk children of the topk best nodes of each level, then keeps the best num_nodes of all it saw.

        Expand and re-rank as in EAGLE-2 (Li et al. 2024, arXiv 2406.16858).
        """
        tree, batch = self.tree, len(root_tokens)
        scores = torch.zeros(batch, tree.num_candidates, device=self.device)
        tokens = root_tokens[:, None].repeat(1, tree.num_candidates)
        parents = torch.full_like(tokens, -1)
        words = max(1, -(-tree.num_draft_rows // 64))
        frontier = (
            torch.zeros(batch, 1, device=self.device),
            torch.zeros(batch, 1, dtype=torch.int32, device=self.device),
            torch.zeros(batch, 1, words, dtype=torch.int64, device=self.device),
        )
        state, slot = self.root_state, 1
        for depth in range(1, tree.max_depth + 1):
            row = (depth - 1) * tree.topk if depth < tree.max_depth else 0  # of the last level nothing runs
            logprobs, children, fed_back = self.children(state, tree.topk, context_len, depth)
            next_scores, next_slots, next_tokens, origin, mask = eagle_kernels.expand_tree(
                *frontier, logprobs, children, scores, tokens, parents, slot, row
            )
            if depth < tree.max_depth:
                rows = TreeRows(next_tokens, origin.long(), depth, context_len, mask, row)
                state = self.run(rows, fed_back)
            slot += children.shape[1] * tree.topk
            frontier = (next_scores, next_slots, mask)
        draft_tokens, parent, depths, position_ids, ancestor_mask, node_slots = eagle_kernels.build_tree(
            scores, tokens, parents, context_len, tree.num_nodes
        )
        node_scores = scores.gather(1, node_slots.clamp(min=0).long())
        return DraftTree(draft_tokens, parent, depths, position_ids, ancestor_mask, node_scores, tree.max_depth)


def check_topk(tree: TreeConfig, draft_vocab_size: int) -> None:
    """Raises ValueError for more children of a node than can be looked at."""
    limit = min(MAX_TOPK, draft_vocab_size)
    if tree.topk > limit:
        raise ValueError(
            f"topk must be at most {limit} for a draft that grows its trees from {draft_vocab_size} tokens, got "
            f"{tree.topk}: look at fewer children."
        )

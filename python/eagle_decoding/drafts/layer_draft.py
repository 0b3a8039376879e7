"""Drafting with one decoder layer that continues from its own output: what the heads of the EAGLE family share."""

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.checkpoint import Head
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.base import Commit, last_rows
from eagle_decoding.drafts.coupled import coupled_topk
from eagle_decoding.drafts.decoder_layer import DecoderLayer
from eagle_decoding.drafts.drawn import propose_drawn
from eagle_decoding.drafts.layer_steps import Step, steps_of
from eagle_decoding.drafts.rules import RULES, RuleChooser
from eagle_decoding.drafts.static_tree import Level, StaticTree
from eagle_decoding.sampling import SamplingParams
from eagle_decoding.tree import DraftTree

# The tree of EAGLE-1 as rank paths (SafeAILab/EAGLE, branch v1, `mc_sim_7b_63`), by the sum of their ranks counted from
# one: likelier nodes come first, and a smaller budget takes the first nodes.
PUBLISHED = "0 1 00 2 01 10 000 3 02 11 20 001 010 100 0000 21 30 002 011 020 0001 00000 021 0002 00001"
PUBLISHED_PATHS = tuple(tuple(map(int, path)) for path in PUBLISHED.split())


class LayerDraft:
    """Grows dynamic trees (expand and re-rank as in EAGLE-2, arXiv 2406.16858) or fills EAGLE-1's static one.

    The pair (feature of position i, token at i + 1) occupies row i of the draft cache. Committed rows always come
    from the target's true features; rows of a tree under construction lie behind them, until the next commit.

    A subclass says what the layer reads of a pair (`begin`, `enter`) and what its output predicts (`logits`,
    `likeliest`) and feeds back (`fed_back`).

    lm_head: [draft vocabulary, hidden]; d2t: [draft vocabulary] int32 offset from a draft id to the target's, or None
    """

    feature_layers: tuple[int, ...]
    lm_head: Tensor
    d2t: Tensor | None

    def __init__(self, head: Head, tree: TreeConfig, dtype: torch.dtype, device: torch.device):
        self.tree, self.dtype, self.device, self.vocab_size = tree, dtype, device, head.config.vocab_size
        self.static = static_tree(tree, device) if tree.static else None
        self.steps: list[Step] = steps_of(self.static) if self.static else []
        self.layer = DecoderLayer(head.config, head.tensors, "layers.0.", tree.max_depth * tree.topk, dtype, device)

    def begin(self, features: Tensor) -> Tensor:
        """Hidden states [batch, rows, hidden] from captured features [batch, rows, width]."""
        raise NotImplementedError

    def enter(self, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(what attention reads, its residual) from tokens [batch, rows] int32 and hidden states."""
        raise NotImplementedError

    def logits(self, state: Tensor) -> Tensor:
        """[batch, rows, draft vocabulary] after the layer's output."""
        raise NotImplementedError

    def likeliest(self, state: Tensor, topk: int) -> tuple[Tensor, Tensor, Tensor]:
        """(log-probabilities, target ids int32, both [batch, rows, topk], state fed back) after the layer's output."""
        raise NotImplementedError

    def fed_back(self, state: Tensor) -> Tensor:
        """What a child of each row continues from [batch, rows, hidden]."""
        raise NotImplementedError

    def start(self, prompt: Tensor, lengths: Tensor, params: SamplingParams) -> None:
        self.params, children = params, self.tree.children
        sampling = bool((params.temperature > 0).any())
        self.coupled = sampling and children == "coupled"
        self.filtered = bool(((params.top_k > 0) | (params.top_p < 1) | (params.min_p > 0)).any())
        self.drawn = sampling and children in ("sampled", "hybrid", "auto")
        self.chooser = RuleChooser(len(prompt), self.device) if children == "auto" else None
        if children in RULES:
            self.rule = torch.full((len(prompt),), RULES.index(children), device=self.device)
        self.layer.start(len(prompt))

    def extend(self, commit: Commit) -> None:
        """Rebuilds the draft cache from true features and keeps the state that predicts the root's children."""
        if self.chooser is not None:
            self.chooser.observe(commit.num_rows - 1)
        self.root_state = last_rows(self.read(commit), commit.num_rows)

    def read(self, commit: Commit) -> Tensor:
        """The layer's output [batch, rows, hidden] at every row of true features; they stay in the cache."""
        hidden = self.begin(commit.features)
        return self.layer.commit(
            commit, lambda rows: self.enter(commit.tokens[:, rows].contiguous(), hidden[:, rows].contiguous())
        )

    def propose(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        if self.drawn:
            if self.chooser is not None:
                self.rule = self.chooser.choose()
            return propose_drawn(self, root_tokens, context_len)
        return self._fill(root_tokens, context_len) if self.static else self._grow(root_tokens, context_len)

    def children(self, state: Tensor, topk: int, position_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `likeliest`, where requests sample once the noise is known that chooses the target's token.

        position_ids: [batch] int32, position of the children
        """
        if not self.coupled:
            return self.likeliest(state, topk)
        logits, vocab_size = self.logits(state), self.vocab_size
        best = coupled_topk(logits, position_ids, self.params, topk, self.d2t, vocab_size, self.filtered)
        return *best, self.fed_back(state)

    def _grow(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        """Grows max_depth levels of topk nodes, then keeps the best num_nodes of everything that was looked at."""
        tree, batch = self.tree, len(root_tokens)
        scores = torch.zeros(batch, tree.num_candidates, device=self.device)
        tokens = root_tokens[:, None].repeat(1, tree.num_candidates)
        parents = torch.full_like(tokens, -1)
        words = max(1, -(-(tree.max_depth - 1) * tree.topk // 64))
        frontier = (
            torch.zeros(batch, 1, device=self.device),
            torch.zeros(batch, 1, dtype=torch.int32, device=self.device),
            torch.zeros(batch, 1, words, dtype=torch.int64, device=self.device),
        )
        state, slot = self.root_state, 1
        for depth in range(1, tree.max_depth + 1):
            row = (depth - 1) * tree.topk
            logprobs, children, fed_back = self.children(state, tree.topk, context_len + depth)
            next_scores, next_slots, next_tokens, origin, mask = eagle_kernels.expand_tree(
                *frontier, logprobs, children, scores, tokens, parents, slot, row
            )
            if depth < tree.max_depth:
                state = self.run(next_tokens, fed_back, origin.long(), depth, context_len, mask, row)
            slot += children.shape[1] * tree.topk
            frontier = (next_scores, next_slots, mask)
        draft_tokens, parent, depths, position_ids, ancestor_mask, node_slots = eagle_kernels.build_tree(
            scores, tokens, parents, context_len, tree.num_nodes
        )
        node_scores = scores.gather(1, node_slots.clamp(min=0).long())
        return DraftTree(draft_tokens, parent, depths, position_ids, ancestor_mask, node_scores, tree.max_depth)

    def _fill(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        """Runs the inner nodes of the static tree, depth by depth, and gives every node the token of its rank."""
        batch = len(root_tokens)
        fed_back = self.root_state

        def candidates(depth: int, level: Level, tokens: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal fed_back
            state = self.root_state
            if depth:
                step = self.steps[depth - 1]
                mine, mask = tokens[:, level.parents].contiguous(), step.ancestor_mask.repeat(batch, 1, 1)
                origin = step.origin.expand(batch, -1)
                state = self.run(mine, fed_back, origin, depth, context_len, mask, step.first_row)
            logprobs, children, fed_back = self.children(state, level.topk, context_len + depth + 1)
            return logprobs, children

        assert self.static is not None
        return self.static.fill(root_tokens, context_len, candidates)

    def run(
        self,
        tokens: Tensor,
        fed_back: Tensor,
        origin: Tensor,
        depth: int,
        context_len: Tensor,
        ancestor_mask: Tensor,
        first_row: int,
    ) -> Tensor:
        """The layer's output at nodes of one depth; origin [batch, nodes]: row of fed_back that each continues from."""
        index = torch.arange(tokens.shape[1], device=self.device, dtype=torch.int32)
        hidden = fed_back.gather(1, origin[..., None].expand(-1, -1, fed_back.shape[-1]))
        return self.layer.forward(
            *self.enter(tokens, hidden),
            (context_len + depth - 1)[:, None].expand(-1, len(index)).contiguous(),
            context_len,
            ancestor_mask,
            context_len[:, None] + first_row + index,
        )


def static_tree(tree: TreeConfig, device: torch.device) -> StaticTree:
    """EAGLE-1's published tree within a depth, a number of children and a node budget."""
    fitting = [path for path in PUBLISHED_PATHS if len(path) <= tree.max_depth and max(path) < tree.topk]
    return StaticTree(fitting[: tree.num_nodes - 1], device)

"""Drafting with one decoder layer that continues from its own output: what the heads of the EAGLE family share."""

import torch
from torch import Tensor

from eagle_decoding.checkpoint import CheckpointError, Head
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.base import Commit, TreeRows, last_rows
from eagle_decoding.drafts.decoder_layer import DecoderLayer
from eagle_decoding.drafts.growth import GrowingDraft, check_topk
from eagle_decoding.drafts.layer_steps import Step, steps_of
from eagle_decoding.drafts.static_tree import Level, StaticTree, first_paths
from eagle_decoding.matrix import Matrix
from eagle_decoding.sampling import SamplingParams
from eagle_decoding.tree import DraftTree

# The tree of EAGLE-1 as rank paths (SafeAILab/EAGLE, branch v1, `mc_sim_7b_63`), by the sum of their ranks counted from
# one: likelier nodes come first, and a smaller budget takes the first nodes.
EAGLE1 = "0 1 00 2 01 10 000 3 02 11 20 001 010 100 0000 21 30 002 011 020 0001 00000 021 0002 00001"
EAGLE1_PATHS = tuple(tuple(map(int, path)) for path in EAGLE1.split())


class LayerDraft(GrowingDraft):
    """Grows dynamic trees or fills EAGLE-1's static one.

    The pair (feature of position i, token at i + 1) occupies row i of the draft cache. Committed rows always come
    from the target's true features; rows of a tree under construction lie behind them, until the next commit.

    A subclass says what the layer reads of a pair (`begin`, `enter`) and what its output predicts (`logits`).
    """

    feature_layers: tuple[int, ...]

    def __init__(
        self,
        head: Head,
        tree: TreeConfig,
        dtype: torch.dtype,
        device: torch.device,
        weight_dtype: torch.dtype | None = None,
    ):
        """dtype: of activations, the target's; weight_dtype: of the matrices, None for the same or fp8."""
        refuse_other_layers(head)
        check_topk(tree, head.config.draft_vocab_size)
        self.tree, self.dtype, self.device = tree, dtype, device
        self.weight_dtype = weight_dtype or dtype
        self.vocab_size, self.draft_vocab_size = head.config.vocab_size, head.config.draft_vocab_size
        self.d2t = head.tensors["d2t"].to(device, torch.int32) if "d2t" in head.tensors else None
        self.static = StaticTree(first_paths(EAGLE1_PATHS, tree), device) if tree.static else None
        self.steps: list[Step] = steps_of(self.static) if self.static else []
        lookahead = tree.max_depth * tree.topk
        self.numbers = torch.arange(lookahead, dtype=torch.int32, device=device)  # rows and levels of a tree
        self.layer = DecoderLayer(head.config, head.tensors, "layers.0.", lookahead, dtype, device, self.weight_dtype)

    def matrix(self, weight: Tensor) -> Matrix:
        return Matrix.served(weight, self.weight_dtype, self.device)

    def begin(self, features: Tensor) -> Tensor:
        """Hidden states [batch, rows, hidden] from captured features [batch, rows, width]."""
        raise NotImplementedError

    def enter(self, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(what attention reads, its residual) from tokens [batch, rows] int32 and hidden states."""
        raise NotImplementedError

    def make_room(self, batch: int, params: SamplingParams) -> None:
        super().make_room(batch, params)
        self.layer.start(batch)

    def extend(self, commit: Commit) -> None:
        """Rebuilds the draft cache from true features and keeps the state that predicts the root's children."""
        self.observe(commit.num_rows - 1)
        self.root_state = last_rows(self.read(commit), commit.num_rows)

    def read(self, commit: Commit) -> Tensor:
        """The layer's output [batch, rows, hidden] at every row of true features; they stay in the cache."""
        hidden = self.begin(commit.features)
        return self.layer.commit(
            commit, lambda rows: self.enter(commit.tokens[:, rows].contiguous(), hidden[:, rows].contiguous())
        )

    def grow(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        return self._fill(root_tokens, context_len) if self.static else super().grow(root_tokens, context_len)

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
                state = self.run(TreeRows(mine, origin, depth, context_len, mask, step.first_row), fed_back)
            logprobs, children, fed_back = self.children(state, level.topk, context_len, depth + 1)
            return logprobs, children

        assert self.static is not None
        return self.static.fill(root_tokens, context_len, candidates)

    def run(self, rows: TreeRows, fed_back: Tensor) -> Tensor:
        nodes, context_len = rows.tokens.shape[1], rows.context_len
        hidden = fed_back.gather(1, rows.origin[..., None].expand(-1, -1, fed_back.shape[-1]))
        return self.layer.forward(
            *self.enter(rows.tokens, hidden),
            context_len[:, None] + self.numbers[rows.depth - 1].expand(nodes),
            context_len,
            rows.ancestor_mask,
            context_len[:, None] + self.numbers[rows.first_row : rows.first_row + nodes],
        )


def refuse_other_layers(head: Head) -> None:
    """Raises CheckpointError for a head that these kernels would run as another one."""
    config = head.config
    if config.num_layers != 1:
        raise CheckpointError(
            f"The head has {config.num_layers} decoder layers, and drafting here runs one: give a head with one layer."
        )
    if config.hidden_act != "silu":
        raise CheckpointError(
            f"The head's hidden_act is {config.hidden_act!r}, and drafting here runs 'silu': give a head with that."
        )

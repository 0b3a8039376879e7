"""Medusa: a head per depth guesses from the target's state alone; a fixed tree combines the guesses."""

from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding.checkpoint import DepthHeads
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.base import Commit, last_rows
from eagle_decoding.drafts.depth_heads import HeadStack, static_tree
from eagle_decoding.drafts.static_tree import Level
from eagle_decoding.sampling import SamplingParams
from eagle_decoding.tree import DraftTree


class MedusaDraft:
    """Drafts with Medusa heads (Cai et al. 2024, arXiv 2401.10774): one pass over the heads fills the whole tree.

    Heads read the target's state after its final norm, and no other head's guess: the children of every node of a depth
    are the same candidates.
    """

    def __init__(self, heads: DepthHeads, target: PreTrainedModel, tree: TreeConfig):
        self.feature_layers: tuple[int, ...] = (target.config.num_hidden_layers + 1,)
        lm_head = target.get_output_embeddings().weight
        self.heads = HeadStack(heads, lm_head, target.dtype, target.device)
        self.tree = static_tree(heads, tree, target.device)

    def start(self, prompt: Tensor, lengths: Tensor, params: SamplingParams) -> None:
        pass

    def extend(self, commit: Commit) -> None:
        self.state = last_rows(commit.features, commit.num_rows)

    def propose(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        return self.tree.fill(root_tokens, context_len, self._candidates)

    def _candidates(self, depth: int, level: Level, tokens: Tensor) -> tuple[Tensor, Tensor]:
        logprobs, token_ids = self.heads.candidates(depth, self.state, level.topk)
        parents = len(level.parents)
        return logprobs.expand(-1, parents, -1), token_ids.expand(-1, parents, -1)

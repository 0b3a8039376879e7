"""Hydra: a head per depth guesses from the target's state and the tokens drafted before it on the path."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding.checkpoint import DepthHeads
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.base import Commit, last_rows
from eagle_decoding.drafts.depth_heads import HeadStack, static_tree
from eagle_decoding.drafts.prefix import PrefixLayer
from eagle_decoding.drafts.static_tree import Level
from eagle_decoding.sampling import SamplingParams
from eagle_decoding.tree import DraftTree


class HydraDraft:
    """Drafts with Hydra heads (Ankner et al. 2024, arXiv 2402.05109): one pass per depth, over its inner nodes.

    Head d reads the target's state after its final norm, and the embeddings of the d + 1 tokens from the root to a
    node, oldest first. With a prefix layer (Hydra++) the state has passed an attention layer over everything that was
    committed.
    """

    def __init__(self, heads: DepthHeads, target: PreTrainedModel, tree: TreeConfig):
        self.feature_layers: tuple[int, ...] = (target.config.num_hidden_layers + 1,)
        self.embed = target.get_input_embeddings().weight.detach()
        lm_head = target.get_output_embeddings().weight
        self.heads = HeadStack(heads, lm_head, target.dtype, target.device)
        self.prefix = PrefixLayer(heads, target.dtype, target.device) if heads.config.prefix else None
        self.tree = static_tree(heads, tree, target.device)

    def start(self, prompt: Tensor, lengths: Tensor, params: SamplingParams) -> None:
        if self.prefix:
            self.prefix.start(len(prompt))

    def extend(self, commit: Commit) -> None:
        self.state = self.prefix.extend(commit) if self.prefix else last_rows(commit.features, commit.num_rows)

    def propose(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        return self.tree.fill(root_tokens, context_len, self._candidates)

    def _candidates(self, depth: int, level: Level, tokens: Tensor) -> tuple[Tensor, Tensor]:
        path = F.embedding(tokens[:, level.paths], self.embed).flatten(2)
        state = self.state.expand(-1, path.shape[1], -1)
        return self.heads.candidates(depth, torch.cat((state, path), -1), level.topk)

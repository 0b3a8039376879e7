"""Hydra: a head per depth guesses from the target's state and the tokens drafted before it on the path."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding.checkpoint import DepthHeads
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.base import Commit, last_rows
from eagle_decoding.drafts.depth_heads import DepthHeadDraft
from eagle_decoding.drafts.prefix import PrefixLayer
from eagle_decoding.drafts.static_tree import Level
from eagle_decoding.sampling import SamplingParams


class HydraDraft(DepthHeadDraft):
    """Drafts with Hydra heads (Ankner et al. 2024, arXiv 2402.05109): one pass per depth, over its inner nodes.

    Head d reads the target's state after its final norm, and the embeddings of the d + 1 tokens from the root to a
    node, oldest first. With a prefix layer (Hydra++) the state has passed an attention layer over everything that was
    committed.
    """

    on_device = True

    def __init__(self, heads: DepthHeads, target: PreTrainedModel, tree: TreeConfig):
        super().__init__(heads, target, tree)
        self.embed = target.get_input_embeddings().weight.detach()
        self.prefix = PrefixLayer(heads, target.dtype, target.device) if heads.config.prefix else None

    def make_room(self, batch: int, params: SamplingParams) -> None:
        super().make_room(batch, params)
        if self.prefix:
            self.prefix.start(batch)

    def extend(self, commit: Commit) -> None:
        self.state = self.prefix.extend(commit) if self.prefix else last_rows(commit.features, commit.num_rows)

    def inputs(self, level: Level, tokens: Tensor) -> Tensor:
        path = F.embedding(tokens[:, level.paths], self.embed).flatten(2)
        return torch.cat((self.state.expand(-1, path.shape[1], -1), path), -1)

"""EAGLE-1: one decoder layer continues the target's last states, and its lm_head reads them (arXiv 2401.15077)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from eagle_decoding.checkpoint import Head
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.layer_draft import LayerDraft


class Eagle1Draft(LayerDraft):
    """Runs an EAGLE-1, EAGLE-2 or HASS head: the same weights, whatever the tree and whatever trained them.

    Features are the target's states after its final norm, and so is, nearly, what leaves the layer.
    """

    def __init__(
        self,
        head: Head,
        embed_weight: Tensor,
        lm_head_weight: Tensor,
        num_target_layers: int,
        tree: TreeConfig,
        dtype: torch.dtype,
        device: torch.device,
        weight_dtype: torch.dtype | None = None,
    ):
        """embed_weight, lm_head_weight [V, H]: the target's; a draft vocabulary takes rows of the latter."""
        super().__init__(head, tree, dtype, device, weight_dtype)
        tensors = head.tensors
        self.feature_layers = (num_target_layers + 1,)
        self.embed = embed_weight
        self.fc = self.matrix(tensors["fc.weight"])
        self.fc_bias = tensors["fc.bias"].to(device, dtype) if "fc.bias" in tensors else None
        self.lm_head = self.matrix(lm_head_weight if self.d2t is None else lm_head_weight[head.target_ids])

    def begin(self, features: Tensor) -> Tensor:
        return features

    def enter(self, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        entered = self.fc(torch.cat((F.embedding(tokens, self.embed), hidden), -1), self.fc_bias)
        return entered, entered

    def logits(self, state: Tensor) -> Tensor:
        return self.lm_head(state)

"""EAGLE-1: one decoder layer continues the target's last states, and its lm_head reads them (arXiv 2401.15077)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

import eagle_kernels
from eagle_decoding.checkpoint import Head
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.layer_draft import LayerDraft


class Eagle1Draft(LayerDraft):
    """Runs an EAGLE-1, EAGLE-2 or HASS head: the same weights, whatever the tree and whatever trained them.

    Features are the target's states after its final norm, and so is, nearly, what leaves the layer.
    """

    def __init__(self, head: Head, target: PreTrainedModel, tree: TreeConfig):
        """target: its embeddings and lm_head are used, rows of the latter if the head names a draft vocabulary."""
        dtype, device = target.dtype, target.device
        super().__init__(head, tree, dtype, device)
        tensors = head.tensors
        self.feature_layers = (target.config.num_hidden_layers + 1,)
        self.embed = target.get_input_embeddings().weight.detach()
        self.fc = tensors["fc.weight"].to(device, dtype).contiguous()
        self.fc_bias = tensors["fc.bias"].to(device, dtype) if "fc.bias" in tensors else None
        self.d2t = tensors["d2t"].to(device, torch.int32) if "d2t" in tensors else None
        self.lm_head = target.get_output_embeddings().weight.detach()
        if self.d2t is not None:
            self.lm_head = self.lm_head[self.d2t + torch.arange(len(self.d2t), device=device)].contiguous()

    def begin(self, features: Tensor) -> Tensor:
        return features

    def enter(self, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        entered = eagle_kernels.linear(torch.cat((F.embedding(tokens, self.embed), hidden), -1), self.fc, self.fc_bias)
        return entered, entered

    def logits(self, state: Tensor) -> tuple[Tensor, Tensor]:
        return eagle_kernels.linear(state, self.lm_head), state

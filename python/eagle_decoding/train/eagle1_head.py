"""The EAGLE-1 draft head as a module; HASS trains the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eagle_decoding.checkpoint import Eagle1Config
from eagle_decoding.train.head import Attention, GatedMLP, LayerHead


class Eagle1Layer(nn.Module):
    """A Llama layer without input norm: attention reads what fc made, and adds to it."""

    def __init__(self, config: Eagle1Config):
        super().__init__()
        self.self_attn = Attention(config, config.hidden_size)
        self.mlp = GatedMLP(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)


class Eagle1Head(LayerHead):
    """fc over (embedding, the target's state after its final norm) and one layer (Li et al. 2024, arXiv 2401.15077).

    What leaves the layer stands for the target's next state: it goes to the lm_head and back in as it is.
    """

    config: Eagle1Config

    def __init__(self, config: Eagle1Config, embed_tokens: Tensor, lm_head: Tensor, target_ids: Tensor):
        """Random parameters; the other arguments as in DraftHead."""
        super().__init__(config, embed_tokens, lm_head, target_ids)
        self.fc = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=config.fc_bias)
        self.layers = nn.ModuleList([Eagle1Layer(config)])

    def begin(self, aux: Tensor, final: Tensor) -> Tensor:
        """The final state itself."""
        return final

    def enter(self, embedding: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """fc of both, embedding first: attention's input and its residual."""
        entered = self.fc(torch.cat((embedding, hidden), -1))
        return entered, entered

    def finish(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's output, twice: there is no final norm."""
        return hidden, hidden

"""Cosines and sines of a draft head's rotary embedding, by position."""

import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from eagle_decoding.checkpoint import LayerConfig


def rotary_embedding(config: LayerConfig) -> LlamaRotaryEmbedding:
    """transformers' rotary embedding of a draft layer, scaling included."""
    return LlamaRotaryEmbedding(
        LlamaConfig(
            hidden_size=config.hidden_size,
            num_attention_heads=config.num_heads,
            head_dim=config.head_dim,
            max_position_embeddings=config.max_position_embeddings,
            rope_parameters=dict(config.rope_parameters),
        )
    )


class RopeTable:
    """Tables [positions, head_dim / 2] float32 that grow on demand."""

    def __init__(self, config: LayerConfig, device: torch.device):
        self.rotary = rotary_embedding(config).to(device)
        self.half = config.head_dim // 2
        self.device = device
        self.cos = self.sin = torch.empty(0, self.half, device=device)

    def up_to(self, positions: int) -> tuple[Tensor, Tensor]:
        """Tables that cover positions 0..positions-1."""
        if positions > len(self.cos):
            ids = torch.arange(2 * positions, device=self.device)[None]
            cos, sin = self.rotary(torch.empty(0, device=self.device), ids)
            self.cos, self.sin = (t[0, :, : self.half].float().contiguous() for t in (cos, sin))
        return self.cos, self.sin

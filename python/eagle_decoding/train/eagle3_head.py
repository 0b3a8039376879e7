"""The EAGLE-3 draft head as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eagle_decoding.checkpoint import HeadConfig
from eagle_decoding.train.head import Attention, GatedMLP, LayerHead


class Eagle3Layer(nn.Module):
    """A Llama layer whose attention reads (token embedding, hidden state), each with its own norm."""

    def __init__(self, config: HeadConfig):
        super().__init__()
        self.self_attn = Attention(config, 2 * config.hidden_size)
        self.mlp = GatedMLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hidden_norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)


class Eagle3Head(LayerHead):
    """fc over the fused target features, one draft layer, a final norm (Li et al. 2025, arXiv 2503.01840)."""

    config: HeadConfig

    def __init__(self, config: HeadConfig, embed_tokens: Tensor, lm_head: Tensor, target_ids: Tensor):
        """Random parameters; the other arguments as in DraftHead."""
        super().__init__(config, embed_tokens, lm_head, target_ids)
        if config.num_layers != 1 or config.norm_before_fc or config.norm_before_residual:
            raise ValueError("The trainer makes one-layer heads without norm_before_fc and norm_before_residual.")
        self.fc = nn.Linear(config.num_aux * config.target_hidden_size, config.hidden_size, bias=False)
        if config.fc_norm:
            self.fc_norm = nn.ModuleList(
                nn.RMSNorm(config.target_hidden_size, config.rms_norm_eps) for _ in range(config.num_aux)
            )
        self.layers = nn.ModuleList([Eagle3Layer(config)])
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def features(self, aux: Tensor, final: Tensor) -> Tensor:
        """[R, A, Ht]: the fused features, or for a head over a single one the final state."""
        return aux if self.config.num_aux > 1 else final[:, None]

    def begin(self, aux: Tensor, final: Tensor) -> Tensor:
        """fc over the features, each normed first if the configuration says so."""
        features = self.features(aux, final)
        chunks = [features.flatten(1)]
        if self.config.fc_norm:
            chunks = [norm(features[:, i]) for i, norm in enumerate(self.fc_norm)]
        return self.fc(torch.cat(chunks, -1))

    def enter(self, embedding: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The normed embedding and the normed hidden state side by side [R, 2H]; the residual is not normed."""
        joined = torch.cat((self.layer.input_layernorm(embedding), self.layer.hidden_norm(hidden)), -1)
        return joined, hidden

    def finish(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The normed state, and either of both fed back."""
        normed = self.norm(hidden)
        return normed, normed if self.config.norm_output else hidden

"""The EAGLE-3 draft head as a module: its parameters carry the normalised checkpoint names."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from eagle_decoding.checkpoint import HeadConfig


class Attention(nn.Module):
    """Projections of the draft layer; the attention itself depends on who runs it."""

    def __init__(self, config: HeadConfig):
        super().__init__()
        width, bias = 2 * config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(width, config.num_heads * config.head_dim, bias=bias)
        self.k_proj = nn.Linear(width, config.num_kv_heads * config.head_dim, bias=bias)
        self.v_proj = nn.Linear(width, config.num_kv_heads * config.head_dim, bias=bias)
        self.o_proj = nn.Linear(config.num_heads * config.head_dim, config.hidden_size, bias=False)


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, config: HeadConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(states)) * self.up_proj(states))


class DraftLayer(nn.Module):
    """A Llama layer whose attention reads (token embedding, hidden state), each with its own norm."""

    def __init__(self, config: HeadConfig):
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = GatedMLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hidden_norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def join(self, embedding: Tensor, hidden: Tensor) -> Tensor:
        """[R, 2H]: the normed embedding, then the normed hidden state."""
        return torch.cat((self.input_layernorm(embedding), self.hidden_norm(hidden)), -1)


class DraftHead(nn.Module):
    """fc over the fused target features, one draft layer, a final norm; embeddings and lm_head are the target's,
    frozen."""

    embed_tokens: Tensor
    lm_head: Tensor
    draft_ids: Tensor
    inv_freq: Tensor

    def __init__(self, config: HeadConfig, embed_tokens: Tensor, lm_head: Tensor, target_ids: Tensor):
        """Random parameters around the target's frozen weights, which stay outside the state dict.

        embed_tokens [V, H], lm_head [V, H]: the target's. target_ids [Vd], int64: the draft vocabulary, ascending.
        """
        super().__init__()
        self.config = config
        if config.num_layers != 1 or config.norm_before_fc or config.norm_before_residual:
            raise ValueError("The trainer makes one-layer heads without norm_before_fc and norm_before_residual.")
        self.fc = nn.Linear(config.num_aux * config.target_hidden_size, config.hidden_size, bias=False)
        if config.fc_norm:
            self.fc_norm = nn.ModuleList(
                nn.RMSNorm(config.target_hidden_size, config.rms_norm_eps) for _ in range(config.num_aux)
            )
        self.layers = nn.ModuleList([DraftLayer(config)])
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.register_buffer("embed_tokens", embed_tokens, persistent=False)
        self.register_buffer("lm_head", lm_head[target_ids].clone(), persistent=False)
        draft_ids = torch.full((config.vocab_size,), -1)
        draft_ids[target_ids] = torch.arange(config.draft_vocab_size)
        self.register_buffer("draft_ids", draft_ids, persistent=False)
        if config.has_reduced_vocab:
            self.register_buffer("d2t", target_ids - torch.arange(config.draft_vocab_size))
        rotary = LlamaRotaryEmbedding(
            LlamaConfig(
                hidden_size=config.hidden_size,
                num_attention_heads=config.num_heads,
                head_dim=config.head_dim,
                max_position_embeddings=config.max_position_embeddings,
                rope_parameters=dict(config.rope_parameters),
            )
        )
        self.register_buffer("inv_freq", rotary.inv_freq.float(), persistent=False)
        self.rope_scaling = float(rotary.attention_scaling)

    @property
    def layer(self) -> DraftLayer:
        """The one draft layer."""
        return cast(DraftLayer, self.layers[0])

    def fuse(self, aux: Tensor) -> Tensor:
        """Fused target features: aux [R, A, Ht] -> [R, H]."""
        chunks = [norm(aux[:, i]) for i, norm in enumerate(self.fc_norm)] if self.config.fc_norm else [aux.flatten(1)]
        return self.fc(torch.cat(chunks, -1))

    def finish(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(normed state for the lm_head, state fed back to the next step)."""
        normed = self.norm(hidden)
        return normed, normed if self.config.norm_output else hidden

"""What trained draft heads share: the target's frozen vocabulary, and the projections of a decoder layer."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eagle_decoding.checkpoint import LayerConfig
from eagle_decoding.drafts.rope import rotary_embedding


class DraftHead(nn.Module):
    """A head of any kind, around the target's embeddings and lm_head rows, frozen; parameters carry normalised
    checkpoint names."""

    embed_tokens: Tensor
    lm_head: Tensor
    draft_ids: Tensor

    def __init__(self, embed_tokens: Tensor, lm_head: Tensor, target_ids: Tensor):
        """The target's weights stay outside the state dict; `d2t` is part of it if the vocabulary is reduced.

        embed_tokens [V, H], lm_head [V, H]: the target's. target_ids [Vd], int64: the draft vocabulary, ascending.
        """
        super().__init__()
        vocab_size, draft_vocab_size = lm_head.shape[0], target_ids.shape[0]
        self.register_buffer("embed_tokens", embed_tokens, persistent=False)
        self.register_buffer("lm_head", lm_head[target_ids].clone(), persistent=False)
        draft_ids = torch.full((vocab_size,), -1)
        draft_ids[target_ids] = torch.arange(draft_vocab_size)
        self.register_buffer("draft_ids", draft_ids, persistent=False)
        if draft_vocab_size < vocab_size:
            self.register_buffer("d2t", target_ids - torch.arange(draft_vocab_size))


class LayerHead(DraftHead):
    """A head whose body is one decoder layer that continues from its own output: what `unroll` trains.

    A subclass fills `layers` with one module that has `self_attn`, `mlp` and `post_attention_layernorm`.
    """

    inv_freq: Tensor
    layers: nn.ModuleList

    def __init__(self, config: LayerConfig, embed_tokens: Tensor, lm_head: Tensor, target_ids: Tensor):
        super().__init__(embed_tokens, lm_head, target_ids)
        self.config = config
        inv_freq, self.rope_scaling = rotary(config)
        self.register_buffer("inv_freq", inv_freq, persistent=False)

    @property
    def layer(self) -> Any:
        """The one decoder layer."""
        return cast(Any, self.layers[0])

    def begin(self, aux: Tensor, final: Tensor) -> Tensor:
        """Hidden states [R, H] of the first step, from the target's features aux [R, A, Ht] and final [R, Ht]."""
        raise NotImplementedError

    def enter(self, embedding: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(what attention reads [R, A], what its output is added to [R, H]), from embedding and hidden state [R, H]."""
        raise NotImplementedError

    def finish(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(state for the lm_head, state fed back to the next step) from the layer's output; each [R, H]."""
        raise NotImplementedError


def rotary(config: LayerConfig) -> tuple[Tensor, float]:
    """Inverse frequencies [d / 2], float, and the factor on cosines and sines of the layer's rotary embedding."""
    embedding = rotary_embedding(config)
    return embedding.inv_freq.float(), float(embedding.attention_scaling)


class Attention(nn.Module):
    """Projections of the draft layer from `width` inputs; the attention itself depends on who runs it."""

    def __init__(self, config: LayerConfig, width: int):
        super().__init__()
        bias = config.attention_bias
        self.q_proj = nn.Linear(width, config.num_heads * config.head_dim, bias=bias)
        self.k_proj = nn.Linear(width, config.num_kv_heads * config.head_dim, bias=bias)
        self.v_proj = nn.Linear(width, config.num_kv_heads * config.head_dim, bias=bias)
        self.o_proj = nn.Linear(config.num_heads * config.head_dim, config.hidden_size, bias=False)


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, config: LayerConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(states)) * self.up_proj(states))

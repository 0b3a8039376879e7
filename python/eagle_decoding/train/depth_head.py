"""Medusa and Hydra heads as a module: a stack of residual blocks per depth, for Hydra++ behind a prefix layer."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eagle_decoding.checkpoint import DepthHeadsConfig, LayerConfig
from eagle_decoding.train.attention import rope_tables, rotate, unrolled_attention
from eagle_decoding.train.head import Attention, DraftHead, GatedMLP, rotary
from eagle_decoding.train.rows import Documents


class Blocks(nn.Module):
    """One head: its blocks, of which those after the first share their weights (all of them, if they read the state
    alone), and its map in front of the lm_head."""

    def __init__(self, config: DepthHeadsConfig):
        super().__init__()
        hidden = config.hidden_size
        self.order = config.blocks
        self.blocks = nn.ModuleList(nn.Linear(hidden, hidden) for _ in set(self.order))
        self.map = nn.Linear(hidden, hidden, bias=False)

    def forward(self, state: Tensor) -> Tensor:
        """state [R, H], the path added -> what the lm_head reads [R, H]."""
        for block in self.order:
            state = state + F.silu(self.blocks[block](state))
        return self.map(state)


class PrefixBody(nn.Module):
    """A Llama layer's modules, under their usual names."""

    def __init__(self, config: LayerConfig):
        super().__init__()
        self.self_attn = Attention(config, config.hidden_size)
        self.mlp = GatedMLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)


class Prefix(nn.Module):
    """A Llama layer and a norm over the target's states of each document (Hydra++, Ankner et al. 2024, section 4)."""

    inv_freq: Tensor

    def __init__(self, config: LayerConfig):
        super().__init__()
        self.config = config
        self.layer = PrefixBody(config)
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        inv_freq, self.rope_scaling = rotary(config)
        self.register_buffer("inv_freq", inv_freq, persistent=False)

    def forward(self, final: Tensor, documents: Documents) -> Tensor:
        """[T, H] -> [T, H]; a token sees its document up to itself."""
        layer, attention, positions = self.layer, self.layer.self_attn, documents.positions
        normed = layer.input_layernorm(final)
        cos, sin = rope_tables(self.inv_freq, positions, self.rope_scaling)
        query, key, value = (
            projection(normed).unflatten(-1, (-1, self.config.head_dim))
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        attended = [
            unrolled_attention(query[first:last], positions[first:last], key[first:last], value[first:last], [], [])
            for first, last in pairwise(documents.starts.tolist())
        ]
        hidden = final + attention.o_proj(torch.cat(attended))
        return self.norm(hidden + layer.mlp(layer.post_attention_layernorm(hidden)))


class DepthHead(DraftHead):
    """Medusa (Cai et al. 2024, arXiv 2401.10774) or Hydra heads (Ankner et al. 2024, arXiv 2402.05109) around the
    target's frozen lm_head."""

    def __init__(self, config: DepthHeadsConfig, embed_tokens: Tensor, lm_head: Tensor, target_ids: Tensor):
        """Random parameters; the other arguments as in DraftHead."""
        super().__init__(embed_tokens, lm_head, target_ids)
        if config.residual_projection or config.own_lm_head or config.shared_path != config.reads_path:
            raise ValueError("The trainer makes heads that add the state and share path matrices and the lm_head.")
        self.config = config
        self.heads = nn.ModuleList(Blocks(config) for _ in range(config.num_heads))
        if config.reads_path:
            hidden = config.hidden_size
            self.tokens = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(config.num_heads))
        if config.prefix:
            self.prefix = Prefix(config.prefix)

    def begin(self, final: Tensor, documents: Documents) -> Tensor:
        """What every head reads first, [T, H]: the target's states, for Hydra++ behind the prefix layer."""
        return self.prefix(final, documents) if self.config.prefix else final

    def forward(self, head: int, state: Tensor, path: Tensor) -> Tensor:
        """The state that the lm_head reads [R, H].

        state [R, H]: of `begin`. path [R, head + 1], int64: the tokens after it, oldest first; Medusa does not look.
        """
        return self.heads[head](self.add_path(head, state, path))

    def add_path(self, head: int, state: Tensor, path: Tensor) -> Tensor:
        """The state plus, for Hydra, the embedding of each token of the path through the matrix of its distance."""
        if self.config.reads_path:
            for i in range(head + 1):
                state = state + self.tokens[head - i](self.embed_tokens[path[:, i]])
        return state

"""Hydra++'s prefix layer: one Llama layer over the target's states of everything that was committed."""

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.cache import KvBuffer
from eagle_decoding.checkpoint import DepthHeads
from eagle_decoding.drafts.base import Commit
from eagle_decoding.drafts.depth_heads import last_rows
from eagle_decoding.drafts.eagle3 import CHUNK, causal_words
from eagle_decoding.drafts.rope import RopeTable


class PrefixLayer:
    """Keeps the layer's keys and values of the committed rows; only true states enter it, so nothing is undone."""

    def __init__(self, heads: DepthHeads, dtype: torch.dtype, device: torch.device):
        assert heads.config.prefix is not None
        self.shape, self.dtype, self.device = heads.config.prefix, dtype, device
        self.rope = RopeTable(self.shape, device)
        self.causal_mask = causal_words(CHUNK, device)

        def weight(name: str) -> Tensor:
            return heads.tensors[f"prefix.{name}"].to(device, dtype).contiguous()

        layer, bias = "layer.self_attn.", self.shape.attention_bias
        self.input_norm = weight("layer.input_layernorm.weight")
        self.qkv = torch.cat([weight(f"{layer}{x}_proj.weight") for x in "qkv"])
        self.qkv_bias = torch.cat([weight(f"{layer}{x}_proj.bias") for x in "qkv"]) if bias else None
        self.output = weight(layer + "o_proj.weight")
        self.mlp_norm = weight("layer.post_attention_layernorm.weight")
        self.gate_up = torch.cat([weight(f"layer.mlp.{x}_proj.weight") for x in ("gate", "up")])
        self.down = weight("layer.mlp.down_proj.weight")
        self.norm = weight("norm.weight")

    def start(self, batch: int) -> None:
        self.cache = KvBuffer(1, batch, self.shape.num_kv_heads, self.shape.head_dim, self.dtype, self.device)

    def extend(self, states: Tensor, commit: Commit) -> Tensor:
        """Runs committed states [batch, rows, hidden] through the layer; [batch, 1, hidden] after the last real one."""
        self.cache.reserve(commit.committed)
        outputs = []
        for start in range(0, states.shape[1], CHUNK):
            chunk = slice(start, min(start + CHUNK, states.shape[1]))
            index = torch.arange(chunk.start, chunk.stop, device=self.device, dtype=torch.int32)
            rows = torch.where(index < commit.num_rows[:, None], commit.context_len[:, None] + index, -1)
            mask = self.causal_mask[:, : len(index)].repeat(len(states), 1, 1)
            positions = commit.position_ids[:, chunk].contiguous()
            outputs.append(
                self._forward(states[:, chunk].contiguous(), positions, commit.context_len + start, mask, rows)
            )
        last = last_rows(torch.cat(outputs, 1), commit.num_rows)
        return eagle_kernels.rms_norm(last, self.norm, self.shape.rms_norm_eps)

    def _forward(
        self, states: Tensor, position_ids: Tensor, context_len: Tensor, mask: Tensor, cache_rows: Tensor
    ) -> Tensor:
        shape, eps = self.shape, self.shape.rms_norm_eps
        keys, values = self.cache.keys[0], self.cache.values[0]
        cos, sin = self.rope.up_to(self.cache.capacity)
        normed = eagle_kernels.rms_norm(states, self.input_norm, eps)
        query = eagle_kernels.draft_qkv_rope(
            normed, self.qkv, self.qkv_bias, cos, sin, position_ids, keys, values, cache_rows, shape.num_heads
        )
        attention = eagle_kernels.tree_attention(query, keys, values, context_len, mask, shape.head_dim**-0.5)
        hidden, normed = eagle_kernels.draft_output(attention.flatten(2), self.output, states, self.mlp_norm, eps)
        return eagle_kernels.draft_mlp(normed, self.gate_up, self.down, hidden)

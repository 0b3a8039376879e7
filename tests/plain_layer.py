"""The decoder layer of a draft head written down plainly, one token at a time."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from eagle_decoding.checkpoint import LayerConfig


@dataclass
class PlainLayer:
    """A head's layer with the keys and values of the positions that it has seen."""

    config: LayerConfig
    tensors: dict[str, Tensor]
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def product(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def normed(self, name: str, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape, self.tensors[f"{name}.weight"], self.config.rms_norm_eps)

    def step(self, x: Tensor, residual: Tensor) -> Tensor:
        """The output [H] at the next position; attention reads x [A] and is added to residual [H]."""
        position = len(self.keys)
        self.keys.append(self.turn(self.product("layers.0.self_attn.k_proj", x), position))
        self.values.append(self.product("layers.0.self_attn.v_proj", x).view(-1, self.config.head_dim))
        query = self.turn(self.product("layers.0.self_attn.q_proj", x), position)
        key, value = (
            torch.stack(rows, 1).repeat_interleave(len(query) // len(rows[0]), 0) for rows in (self.keys, self.values)
        )
        weights = (torch.einsum("hd,hkd->hk", query, key) / self.config.head_dim**0.5).softmax(-1)
        attended = torch.einsum("hk,hkd->hd", weights, value).flatten()
        hidden = residual + self.product("layers.0.self_attn.o_proj", attended)
        normed = self.normed("layers.0.post_attention_layernorm", hidden)
        gate, up = (self.product(f"layers.0.mlp.{name}_proj", normed) for name in ("gate", "up"))
        return hidden + self.product("layers.0.mlp.down_proj", F.silu(gate) * up)

    def turn(self, flat: Tensor, position: int) -> Tensor:
        """Heads [n, d] rotated to a position."""
        theta, head_dim = self.config.rope_parameters["rope_theta"], self.config.head_dim
        angle = torch.cat((position * theta ** -(torch.arange(0, head_dim, 2) / head_dim),) * 2)
        heads = flat.view(-1, head_dim)
        first, second = heads.chunk(2, -1)
        return heads * angle.cos() + torch.cat((-second, first), -1) * angle.sin()

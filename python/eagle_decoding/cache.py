"""Static KV cache with room for a draft tree behind the committed rows; grows by reallocation."""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache

import eagle_kernels

GRANULE = 128  # rows; capacities are multiples of it
AT_ONCE = 4096  # rows: no more than these are added before they are asked for


class KvBuffer:
    """Keys and values of some attention layers: [2, layers, batch, num_kv_heads, capacity, head_dim]."""

    def __init__(
        self, num_layers: int, batch: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ):
        self.data = torch.empty(2, num_layers, batch, num_kv_heads, 0, head_dim, dtype=dtype, device=device)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    @property
    def capacity(self) -> int:
        return self.data.shape[4]

    def reserve(self, rows: int) -> None:
        """Makes room for `rows` rows; what is there stays. Grows by half or AT_ONCE, so that copies stay rare.

        The others are zero: rows of padding attend rows that nobody writes, and a NaN there would spread to their tile.
        """
        if rows <= self.capacity:
            return
        rows = max(rows, self.capacity + min(self.capacity // 2, AT_ONCE))
        capacity = (rows + GRANULE - 1) // GRANULE * GRANULE
        grown = self.data.new_zeros(*self.data.shape[:4], capacity, self.data.shape[5])
        grown[..., : self.capacity, :] = self.data
        self.data = grown
        self.keys, self.values = list(grown[0].unbind(0)), list(grown[1].unbind(0))

    def clear(self) -> None:
        """Gives the memory back, and all that is in it."""
        self.data = self.data.new_empty(*self.data.shape[:4], 0, self.data.shape[5])
        self.keys, self.values = [], []


class TreeCache(Cache):
    """The target's cache as transformers' attention layers see it.

    Before a forward the loop says where its rows go: `write_prompt()` for a prompt, `write_tree(...)` for a tree behind
    the committed rows. During a prompt the layers attend what they just computed, during a tree the buffer.
    """

    def __init__(self, config: Any, batch: int, dtype: torch.dtype, device: torch.device):
        super().__init__(layers=[])
        shape = (config.num_hidden_layers, batch, config.num_key_value_heads, head_dim(config))
        self.buffer = KvBuffer(*shape, dtype, device)
        self.batch = batch
        self.rows: Tensor | None = None

    def write_prompt(self) -> None:
        self.rows = None

    def write_tree(self, context_len: Tensor, num_nodes: int) -> None:
        """context_len: [batch] int32; node i of request b goes to row context_len[b] + i."""
        self.rows = context_len[:, None] + torch.arange(num_nodes, dtype=torch.int32, device=context_len.device)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Stores [batch, num_kv_heads, tokens, head_dim] states; returns what the layer attends."""
        keys, values = self.buffer.keys[layer_idx], self.buffer.values[layer_idx]
        if self.rows is None:
            keys[:, :, : key_states.shape[2]] = key_states
            values[:, :, : value_states.shape[2]] = value_states
            return key_states, value_states
        eagle_kernels.write_kv(key_states, value_states, keys, values, self.rows)
        return keys, values

    def compact(self, accept_index: Tensor, accept_length: Tensor, context_len: Tensor) -> None:
        """Moves the accepted path's rows behind the committed ones, in all layers."""
        eagle_kernels.compact_kv(self.buffer.keys + self.buffer.values, accept_index, accept_length, context_len)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0  # position ids are always given; transformers must not derive them from the cache


def head_dim(config: Any) -> int:
    """Numbers in a head of a transformers model."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

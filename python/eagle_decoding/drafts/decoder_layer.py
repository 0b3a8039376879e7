"""The decoder layer of a draft head as it is served: weights, rotary tables, a cache, and a forward over tree rows."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from eagle_decoding.attention import Rotation, TreeContext
from eagle_decoding.cache import KvBuffer
from eagle_decoding.checkpoint import LayerConfig
from eagle_decoding.drafts.base import Commit
from eagle_decoding.drafts.rope import RopeTable
from eagle_decoding.layer import AttentionBlock, GatedMlp
from eagle_decoding.matrix import Matrix
from eagle_decoding.tree import causal_words

CHUNK = 64  # committed rows run at a time: one mask word


class DecoderLayer:
    """Runs rows of committed text or of a tree; keys and values stay in a cache of the layer's own.

    tensors:      the head's, under normalised names; prefix: what precedes the layer's own names
    lookahead:    positions and cache rows that a tree takes behind the committed ones
    dtype:        of activations, norms and the cache
    weight_dtype: of the matrices, dtype or fp8
    """

    def __init__(
        self,
        config: LayerConfig,
        tensors: Mapping[str, Tensor],
        prefix: str,
        lookahead: int,
        dtype: torch.dtype,
        device: torch.device,
        weight_dtype: torch.dtype,
    ):
        self.config, self.lookahead, self.dtype, self.device = config, lookahead, dtype, device
        self.rope = RopeTable(config, device)
        self.causal_mask = causal_words(CHUNK, device)

        def joined(pattern: str, parts: Iterable[str]) -> Tensor:
            return torch.cat([tensors[prefix + pattern.format(part)] for part in parts])

        def matrix(pattern: str, *parts: str) -> Matrix:
            return Matrix.served(joined(pattern, parts), weight_dtype, device)

        self.attention = AttentionBlock(
            qkv=matrix("self_attn.{}_proj.weight", *"qkv"),
            qkv_bias=joined("self_attn.{}_proj.bias", "qkv").to(device, dtype) if config.attention_bias else None,
            output=matrix("self_attn.{}_proj.weight", "o"),
            norm=tensors[prefix + "post_attention_layernorm.weight"].to(device, dtype).contiguous(),
            eps=config.rms_norm_eps,
            num_heads=config.num_heads,
            scale=config.head_dim**-0.5,
        )
        self.mlp = GatedMlp(matrix("mlp.{}_proj.weight", "gate", "up"), matrix("mlp.{}_proj.weight", "down"))

    def start(self, batch: int) -> None:
        """Forgets everything and makes room for new requests."""
        self.cache = KvBuffer(1, batch, self.config.num_kv_heads, self.config.head_dim, self.dtype, self.device)

    def commit(self, rows: Commit, enter: Callable[[slice], tuple[Tensor, Tensor]]) -> Tensor:
        """Takes in committed rows, CHUNK at a time; returns the layer's output [batch, rows, hidden].

        enter: what attention reads of a slice of the rows [batch, slice, width], and its residual
        """
        self.cache.reserve(rows.committed + self.lookahead)
        batch, count = rows.tokens.shape
        outputs = []
        for start in range(0, count, CHUNK):
            chunk = slice(start, min(start + CHUNK, count))
            index = torch.arange(chunk.start, chunk.stop, device=self.device, dtype=torch.int32)
            outputs.append(
                self.forward(
                    *enter(chunk),
                    rows.position_ids[:, chunk].contiguous(),
                    rows.context_len + start,
                    self.causal_mask[:, : len(index)].repeat(batch, 1, 1),
                    torch.where(index < rows.num_rows[:, None], rows.context_len[:, None] + index, -1),
                )
            )
        return torch.cat(outputs, dim=1)

    def forward(
        self,
        x: Tensor,
        residual: Tensor,
        position_ids: Tensor,
        context_len: Tensor,
        ancestor_mask: Tensor,
        cache_rows: Tensor,
    ) -> Tensor:
        """The layer's output [batch, rows, hidden].

        x:             [batch, rows, width], what attention reads
        residual:      [batch, rows, hidden], what its output is added to
        position_ids:  [batch, rows] int32
        context_len:   [batch] int32, committed rows, which every row attends
        ancestor_mask: [batch, rows, words] int64, bits over cache rows behind context_len
        cache_rows:    [batch, rows] int32, where each row's key and value go, -1 nowhere
        """
        rotation = Rotation(*self.rope.up_to(self.cache.capacity + self.lookahead), position_ids)
        keys, values = self.cache.keys[0], self.cache.values[0]
        tree = TreeContext(context_len, ancestor_mask)
        hidden, normed = self.attention(x, residual, rotation, keys, values, cache_rows, tree)
        return self.mlp(normed, hidden)

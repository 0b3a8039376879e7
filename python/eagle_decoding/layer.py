"""A Llama layer over the rows of a tree, in four ops behind a norm; and all layers of a target, in one op."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

import eagle_kernels
from eagle_decoding.attention import Rotation, TreeContext
from eagle_decoding.matrix import Matrix


@dataclass(frozen=True)
class AttentionBlock:
    """Everything between the norm in front of attention and the MLP.

    qkv, qkv_bias:  [(num_heads + 2 * num_kv_heads) * head_dim, width] and its bias [...], the projections to query
                    heads, key heads and value heads, one below the other
    output:         [hidden, num_heads * head_dim], the projection of what attention found
    norm, eps:      [hidden], the norm in front of the MLP; eps is that of all norms
    scale:          of the dot products
    q_norm, k_norm: [head_dim] each, the norms of every query and key head, if there are any
    window:         how many rows one sees at most, itself among them; None for all
    """

    qkv: Matrix
    qkv_bias: Tensor | None
    output: Matrix
    norm: Tensor
    eps: float
    num_heads: int
    scale: float
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None
    window: int | None = None

    def __call__(
        self,
        x: Tensor,
        residual: Tensor,
        rotation: Rotation,
        keys: Tensor,
        values: Tensor,
        cache_rows: Tensor,
        tree: TreeContext,
    ) -> tuple[Tensor, Tensor]:
        """The residual stream behind attention, and the same normed: [batch, rows, hidden] each.

        x:            [batch, rows, width], what attention reads
        residual:     [batch, rows, hidden], what its output is added to
        keys, values: the cache [batch, num_kv_heads, capacity, head_dim]
        cache_rows:   [batch, rows] int32, where each row's key and value go, -1 nowhere
        """
        query = eagle_kernels.draft_qkv_rope(
            x,
            self.qkv.weight,
            self.qkv_bias,
            rotation.cos,
            rotation.sin,
            rotation.position_ids,
            keys,
            values,
            cache_rows,
            self.num_heads,
            qkv_scale=self.qkv.scale,
            q_norm_weight=self.q_norm,
            k_norm_weight=self.k_norm,
            norm_eps=self.eps,
        )
        attention = eagle_kernels.tree_attention(
            query, keys, values, tree.context_len, tree.ancestor_mask, self.scale, window=self.window
        )
        return eagle_kernels.draft_output(
            attention.flatten(2), self.output.weight, residual, self.norm, self.eps, self.output.scale
        )


@dataclass(frozen=True)
class GatedMlp:
    """A gated MLP and the residual behind it.

    gate_up: [2 * intermediate, hidden], gate rows first
    down:    [hidden, intermediate]
    """

    gate_up: Matrix
    down: Matrix

    def __call__(self, normed: Tensor, residual: Tensor) -> Tensor:
        """The residual stream behind the MLP; normed, residual and it are [batch, rows, hidden]."""
        return eagle_kernels.draft_mlp(
            normed, self.gate_up.weight, self.down.weight, residual, self.gate_up.scale, self.down.scale
        )


@dataclass(frozen=True)
class LayerStack:
    """All layers of a target, in one op; they are alike but for their weights and windows.

    norms:  [hidden] each, the norms in front of attention
    blocks: of each layer, from there to the norm in front of the MLP
    mlps:   of each layer
    """

    norms: list[Tensor]
    blocks: list[AttentionBlock]
    mlps: list[GatedMlp]

    def __call__(
        self, hidden: Tensor, rotation: Rotation, caches: Tensor, cache_rows: Tensor, tree: TreeContext
    ) -> Tensor:
        """The residual stream behind the last layer, [batch, rows, hidden]; `tree` gets the states that it asks for.

        hidden:     [batch, rows, hidden], what enters the first layer
        caches:     [2, layers, batch, num_kv_heads, capacity, head_dim], keys and values
        cache_rows: [batch, rows] int32, where each row's key and value go
        """
        last = len(self.blocks)
        inner = sorted({boundary for boundary in tree.boundaries if 0 < boundary < last})
        output, states = eagle_kernels.decoder_layers(
            hidden,
            caches=caches,
            cache_rows=cache_rows,
            rope_cos=rotation.cos,
            rope_sin=rotation.sin,
            position_ids=rotation.position_ids,
            context_len=tree.context_len,
            ancestor_mask=tree.ancestor_mask,
            boundaries=inner,
            **self._layers,
        )
        tree.states.update({0: hidden, last: output, **dict(zip(inner, states, strict=True))})
        return output

    @cached_property
    def _layers(self) -> dict[str, Any]:
        """What the op is told of the layers at every call."""
        first = self.blocks[0]
        return {
            "norm_weight": self.norms,
            "qkv_weight": [block.qkv.weight for block in self.blocks],
            "o_weight": [block.output.weight for block in self.blocks],
            "mlp_norm_weight": [block.norm for block in self.blocks],
            "gate_up_weight": [mlp.gate_up.weight for mlp in self.mlps],
            "down_weight": [mlp.down.weight for mlp in self.mlps],
            "num_heads": first.num_heads,
            "scale": first.scale,
            "eps": first.eps,
            "qkv_bias": [block.qkv_bias for block in self.blocks if block.qkv_bias is not None],
            "q_norm_weight": [block.q_norm for block in self.blocks if block.q_norm is not None],
            "k_norm_weight": [block.k_norm for block in self.blocks if block.k_norm is not None],
            "windows": [block.window or 0 for block in self.blocks],
        }

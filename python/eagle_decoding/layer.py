"""A Llama layer over the rows of a tree, in four ops behind a norm: a draft head's, and a target's while it decodes."""

from dataclasses import dataclass

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

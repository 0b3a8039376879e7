"""Shape and conventions of a draft head, read from and written to `config.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from eagle_decoding.checkpoint.errors import CheckpointError


def default_aux_layer_ids(num_target_layers: int) -> tuple[int, ...]:
    """The three layers whose inputs EAGLE-3 fuses when a head does not name any: {2, n // 2, n - 3}.

    Every training system agrees on these three; see "EAGLE-3" (Li et al. 2025), `traineagle3` in SafeAILab/EAGLE.
    Targets of 1, 2 or 4 to 6 layers have fewer: some of the three coincide or are not there.
    """
    return tuple(sorted({2, num_target_layers // 2, num_target_layers - 3} & set(range(num_target_layers))))


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """A decoder layer that drafts, whatever it reads, and the vocabulary it drafts from.

    hidden_size, intermediate_size, num_heads, num_kv_heads, head_dim: the head's own layer.
    vocab_size: the target's vocabulary; draft_vocab_size: how many of its tokens the head can draft.
    rope_parameters: transformers' dictionary (`rope_theta`, `rope_type`, and what scaling needs).
    attention_bias: the query, key and value projections have biases.
    """

    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    draft_vocab_size: int
    num_layers: int = 1
    rms_norm_eps: float = 1e-5
    rope_parameters: dict[str, Any] = field(default_factory=lambda: {"rope_type": "default", "rope_theta": 10000.0})
    max_position_embeddings: int = 2048
    attention_bias: bool = False
    hidden_act: str = "silu"

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise CheckpointError(
                f"The head has {self.num_heads} query heads and {self.num_kv_heads} key-value heads; "
                "the first must be a multiple of the second."
            )
        if not 0 < self.draft_vocab_size <= self.vocab_size:
            raise CheckpointError(
                f"The head's draft_vocab_size is {self.draft_vocab_size}; "
                f"it must lie in 1..{self.vocab_size} (vocab_size)."
            )

    @property
    def has_reduced_vocab(self) -> bool:
        return self.draft_vocab_size < self.vocab_size

    def layer_shapes(self, prefix: str, width: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of the tensors of one layer whose attention reads `width` values."""
        q_rows, kv_rows, hidden = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim, self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for name, rows in {"q": q_rows, "k": kv_rows, "v": kv_rows}.items():
            shapes[f"{prefix}self_attn.{name}_proj.weight"] = (rows, width)
            if self.attention_bias:
                shapes[f"{prefix}self_attn.{name}_proj.bias"] = (rows,)
        shapes[f"{prefix}self_attn.o_proj.weight"] = (hidden, q_rows)
        shapes[f"{prefix}mlp.gate_proj.weight"] = (self.intermediate_size, hidden)
        shapes[f"{prefix}mlp.up_proj.weight"] = (self.intermediate_size, hidden)
        shapes[f"{prefix}mlp.down_proj.weight"] = (hidden, self.intermediate_size)
        shapes[f"{prefix}post_attention_layernorm.weight"] = (hidden,)
        return shapes


@dataclass(frozen=True, kw_only=True)
class HeadConfig(LayerConfig):
    """An EAGLE-3 draft head: one decoder layer over (token embedding, fused target features).

    target_hidden_size: width of one auxiliary feature of the target; num_aux: how many are fused.
    aux_layer_ids: boundary indices (the residual stream entering that 0-based layer; one past the last boundary stands
        for the state after the final norm), ascending; None for the default three of `default_aux_layer_ids`.
    fc_norm: RMSNorm on each auxiliary feature before `fc` (EAGLE-3.1); norm_before_fc: one RMSNorm over all of them.
    norm_output: feed the state after `norm` back instead of the state before it (EAGLE-3.1, as inference engines do).
    norm_before_residual: the attention residual is the normed hidden state.
    """

    target_hidden_size: int
    num_aux: int = 3
    aux_layer_ids: tuple[int, ...] | None = None
    fc_norm: bool = False
    norm_before_fc: bool = False
    norm_output: bool = False
    norm_before_residual: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fc_norm and self.norm_before_fc:
            raise CheckpointError("The head sets both fc_norm and norm_before_fc; they exclude each other.")

    def layer_ids(self, num_target_layers: int) -> tuple[int, ...]:
        """Boundary layer indices for a target with this many layers."""
        return default_aux_layer_ids(num_target_layers) if self.aux_layer_ids is None else self.aux_layer_ids

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor the head must have, in normalised names."""
        hidden, target = self.hidden_size, self.target_hidden_size
        shapes: dict[str, tuple[int, ...]] = {"fc.weight": (hidden, self.num_aux * target)}
        if self.fc_norm:
            shapes |= {f"fc_norm.{i}.weight": (target,) for i in range(self.num_aux)}
        if self.norm_before_fc:
            shapes["input_norm.weight"] = (self.num_aux * target,)
        for layer in range(self.num_layers):
            prefix, width = f"layers.{layer}.", 2 * hidden if layer == 0 else hidden
            shapes |= self.layer_shapes(prefix, width)
            if layer == 0:
                shapes[f"{prefix}hidden_norm.weight"] = (hidden,)
            shapes[f"{prefix}input_layernorm.weight"] = (hidden,)
        shapes["norm.weight"] = (hidden,)
        shapes["lm_head.weight"] = (self.draft_vocab_size, hidden)
        if self.has_reduced_vocab:
            shapes["d2t"] = (self.draft_vocab_size,)
        if hidden != target:
            shapes["embed_tokens.weight"] = (self.vocab_size, hidden)
        return shapes

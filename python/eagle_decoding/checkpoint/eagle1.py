"""Shape of an EAGLE-1 head, which EAGLE-2 and HASS share, read from `config.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from eagle_decoding.checkpoint.config import LayerConfig
from eagle_decoding.checkpoint.errors import CheckpointError
from eagle_decoding.checkpoint.fields import layer_from_fields


@dataclass(frozen=True, kw_only=True)
class Eagle1Config(LayerConfig):
    """An EAGLE-1 head: fc over (token embedding, the target's state after its final norm), a layer without input norm.

    fc_bias: fc adds a bias.

    What leaves the layer stands for the target's next state: the target's own lm_head turns it into logits. A reduced
    draft vocabulary therefore selects rows of that lm_head and changes no tensor (FR-Spec, arXiv 2502.14856).
    """

    fc_bias: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_layers != 1:
            raise CheckpointError(f"The EAGLE-1 head has {self.num_layers} layers; this reader takes heads with one.")

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor the head must have."""
        hidden = self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"fc.weight": (hidden, 2 * hidden)}
        if self.fc_bias:
            shapes["fc.bias"] = (hidden,)
        shapes |= self.layer_shapes("layers.0.", hidden)
        if self.has_reduced_vocab:
            shapes["d2t"] = (self.draft_vocab_size,)
        return shapes


def is_eagle1(tensors: dict[str, Tensor]) -> bool:
    """Whether normalised tensors are an EAGLE-1 head: an fc, and none of the norms that every EAGLE-3 head has."""
    return "fc.weight" in tensors and not {"norm.weight", "layers.0.hidden_norm.weight"} & tensors.keys()


def eagle1_from_fields(fields: dict[str, Any], tensors: dict[str, Tensor]) -> Eagle1Config:
    """The configuration from config.json; biases by their presence in the file, since engines disagree on the keys."""
    shape = layer_from_fields(fields, tensors)
    return Eagle1Config(
        **shape,
        draft_vocab_size=fields.get("draft_vocab_size") or fields["vocab_size"],
        fc_bias="fc.bias" in tensors,
    )

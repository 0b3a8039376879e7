"""Runs a stock model's layers, norms, rope, MLPs, linear layers and experts on this package's kernels while it decodes.

Norms, rope and the gate of MLPs are a dozen small operations each in stock modules, rounded after every one; here they
are one kernel with the same roundings. Linear layers and experts are a matter of their own: on a CPU they give a row of
a tree the very bits that it would get alone, and stream weights faster than stock layers do for a handful of rows. With
them, whole decoder layers run as a draft head's does (`fused_layer.py`). Longer inputs (prompts) take the stock linear
layers, where torch has fast ones for the weights' dtype, and the stock rope.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

import eagle_kernels
from eagle_decoding.experts import MAX_ROWS, experts_forward
from eagle_decoding.fused_decoder import DECODERS, decoder_forward
from eagle_decoding.fused_layer import LAYERS, MLPS, MODELS, RMS_NORMS, is_silu, layer_forward

ROTATED_BY_HALVES = (*MODELS, "Gemma3", "Granite", "Phi3")  # GLM-4 rotates pairs of neighbours, OLMo in float32
NORMS = (*RMS_NORMS, "GraniteRMSNorm", "Phi3RMSNorm", "Glm4RMSNorm")  # OLMo 2's rounds after the weight only
GATED = (*MLPS, "GraniteMLP", "Olmo2MLP", "Olmo3MLP")
GATED_AS_ONE = ("Phi3MLP", "Glm4MLP")  # gate and up are one projection


@contextmanager
def fused_modules(model: PreTrainedModel, linear: bool = True) -> Iterator[None]:
    """Replaces the forward of the modules it knows, and puts the stock ones back at the end.

    A forward that was replaced before stays: by a decoder that this one is called from, or by hooks of accelerate.

    linear: linear layers, experts and whole decoder layers as well
    """
    with ExitStack() as stack:
        for module in fuse(model, linear):
            stack.callback(delattr, module, "forward")
        if type(model).__name__.removesuffix("ForCausalLM") in ROTATED_BY_HALVES:
            stack.enter_context(fused_rope(sys.modules[type(model).__module__]))
        yield


def fuse(model: PreTrainedModel, linear: bool) -> list[Any]:
    """Replaces the forward of the modules it knows; deleting the attribute from a returned module undoes it."""
    fused = []
    for module in model.modules():
        forward = fused_forward(module, linear)
        if forward is not None and "forward" not in vars(module):
            module.forward = forward
            fused.append(module)
    return fused


@contextmanager
def fused_rope(modeling: Any) -> Iterator[None]:
    """Replaces the rotary function that a modeling module's attention layers call: Llama's, or Phi-3's, which leaves
    the end of a head as it is where the tables are narrower."""
    stock = modeling.apply_rotary_pos_emb

    def apply(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        whole = cos.shape[-1] == query.shape[-1] and len(cos) == len(query)
        if query.shape[2] > MAX_ROWS or unsqueeze_dim != 1 or not whole:
            return stock(query, key, cos, sin, unsqueeze_dim)
        return eagle_kernels.rope(query, key, cos, sin)

    modeling.apply_rotary_pos_emb = apply
    try:
        yield
    finally:
        modeling.apply_rotary_pos_emb = stock


def fused_forward(module: Any, linear: bool) -> Callable[..., Any] | None:
    """The fused forward of one module, or None where the stock one stays."""
    if linear and type(module) is nn.Linear:
        return linear_forward(module)
    if linear and type(module).__name__ in DECODERS:
        return decoder_forward(module)
    if linear and type(module).__name__ in LAYERS:
        return layer_forward(module)
    if type(module).__name__ in NORMS:
        return lambda hidden_states: eagle_kernels.rms_norm(hidden_states, module.weight, module.variance_epsilon)
    if type(module).__name__ in GATED and is_silu(module):
        return lambda x: module.down_proj(eagle_kernels.silu_mul(module.gate_proj(x), module.up_proj(x)))
    if type(module).__name__ in GATED_AS_ONE and is_silu(module):
        return lambda x: module.down_proj(eagle_kernels.silu_mul(*module.gate_up_proj(x).chunk(2, dim=-1)))
    return experts_forward(module) if linear else None


def linear_forward(module: nn.Linear) -> Callable[[Tensor], Tensor]:
    stock_is_fast = fast_in_torch(module.weight)

    def forward(input: Tensor) -> Tensor:
        if input.shape[-2] > MAX_ROWS and stock_is_fast:
            return functional.linear(input, module.weight, module.bias)
        return eagle_kernels.linear(input, module.weight, module.bias)

    return forward


def fast_in_torch(weight: Tensor) -> bool:
    """Whether torch's product of many rows keeps a device busy: below AVX-512, those of 16-bit numbers do not."""
    no_avx512 = eagle_kernels.info()["cpu_kernels"] in ("avx2", "baseline")
    return weight.device.type != "cpu" or weight.element_size() != 2 or not no_avx512

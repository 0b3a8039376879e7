"""Runs a stock model's linear layers, norms, rope and gated MLPs on this package's kernels during a decoding run.

On a CPU these kernels give a row of a tree the very bits that it would get alone, and stream weights faster than stock
layers do for a handful of rows. Weights stay where they are; longer inputs (prompts) take the stock path.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

import eagle_kernels

MAX_ROWS = 128  # of one request: every tree has fewer, whatever the batch
RMS_NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")


@contextmanager
def fused_modules(model: PreTrainedModel) -> Iterator[None]:
    """Replaces the forward of the modules it knows, and puts the stock ones back at the end."""
    with ExitStack() as stack:
        for module in model.modules():
            forward = fused_forward(module)
            if forward is not None:
                module.forward = forward
                stack.callback(delattr, module, "forward")
        stack.enter_context(fused_rope(sys.modules[type(model).__module__]))
        yield


@contextmanager
def fused_rope(modeling: Any) -> Iterator[None]:
    """Replaces the rotary function that a modeling module's attention layers call."""
    stock = modeling.apply_rotary_pos_emb

    def apply(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        if query.shape[2] > MAX_ROWS or unsqueeze_dim != 1:
            return stock(query, key, cos, sin, unsqueeze_dim)
        return eagle_kernels.rope(query, key, cos, sin)

    modeling.apply_rotary_pos_emb = apply
    try:
        yield
    finally:
        modeling.apply_rotary_pos_emb = stock


def fused_forward(module: Any) -> Callable[[Tensor], Tensor] | None:
    """The fused forward of one module, or None where the stock one stays."""
    if type(module) is nn.Linear:
        return linear_forward(module)
    if type(module).__name__ in RMS_NORMS:
        return lambda hidden_states: eagle_kernels.rms_norm(hidden_states, module.weight, module.variance_epsilon)
    if all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj")) and is_silu(module):
        return lambda x: module.down_proj(eagle_kernels.silu_mul(module.gate_proj(x), module.up_proj(x)))
    return None


def linear_forward(module: nn.Linear) -> Callable[[Tensor], Tensor]:
    def forward(input: Tensor) -> Tensor:
        if input.shape[-2] > MAX_ROWS:
            return functional.linear(input, module.weight, module.bias)
        return eagle_kernels.linear(input, module.weight, module.bias)

    return forward


def is_silu(module: nn.Module) -> bool:
    return type(getattr(module, "act_fn", None)).__name__ in ("SiLU", "SiLUActivation")

"""Mixtures of experts on this package's linear op: an expert runs the rows that chose it, each by itself.

Neither the products of a row nor the order of its sum, that of its choice, depends on the rows around it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.fused_layer import is_silu, untouched

MAX_ROWS = 128  # of one request: no tree has more, whatever the batch
GATED = ("MixtralSparseMoeBlock", "Qwen3MoeSparseMoeBlock")
ROUTERS = ("MixtralTopKRouter", "Qwen3MoeTopKRouter", "GptOssTopKRouter")


def experts_forward(block: Any) -> Callable[[Tensor], Any] | None:
    """A forward for rows of trees, in which prompts take the stock one; None for a module that is no known mixture.

    Nor for one whose router or experts are not what transformers made: a wrapper in their place, somebody else's hook.
    """
    router: Any = getattr(block, "gate", getattr(block, "router", None))
    if type(router).__name__ not in ROUTERS or not untouched(router) or not untouched(block.experts):
        return None
    if type(block).__name__ in GATED and is_silu(block.experts):
        return gated_forward(block)
    if type(block).__name__ == "GptOssMLP" and type(block.experts).__name__ == "GptOssExperts":
        return gpt_oss_forward(block)
    return None


def gated_forward(block: Any) -> Callable[[Tensor], Tensor]:
    """Mixtral's and Qwen3's experts: gated MLPs, weighed by a softmax over all experts or over the chosen ones."""
    gate, experts = block.gate, block.experts
    shares = getattr(gate, "norm_topk_prob", True)  # Qwen3's may keep probabilities of all experts

    def run(expert: int, states: Tensor) -> Tensor:
        gated, up = eagle_kernels.linear(states, experts.gate_up_proj[expert]).chunk(2, dim=-1)
        return eagle_kernels.linear(eagle_kernels.silu_mul(gated, up), experts.down_proj[expert])

    def forward(hidden_states: Tensor) -> Tensor:
        if hidden_states.shape[-2] > MAX_ROWS:
            return type(block).forward(block, hidden_states)
        states = hidden_states.flatten(0, -2)
        logits = eagle_kernels.linear(states, gate.weight)
        weights, chosen = logits.float().softmax(-1).topk(gate.top_k, dim=-1)
        if shares:
            weights = weights / weights.sum(-1, keepdim=True)
        return weighted_sum(states, weights.to(states.dtype), chosen, run).view_as(hidden_states)

    return forward


def gpt_oss_forward(block: Any) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """gpt-oss's experts: (up + 1) * gate * sigmoid(alpha * gate), gate and up in turn, with biases everywhere.

    The gate is computed in float32, where the stock one rounds after every operation.
    """
    router, experts = block.router, block.experts
    gate_up, down = by_outputs(experts.gate_up_proj), by_outputs(experts.down_proj)

    def run(expert: int, states: Tensor) -> Tensor:
        both = eagle_kernels.linear(states, gate_up[expert], experts.gate_up_proj_bias[expert]).float()
        gate, up = both[:, ::2].clamp(max=experts.limit), both[:, 1::2].clamp(-experts.limit, experts.limit)
        gated = eagle_kernels.silu_mul(gate * experts.alpha, (up + 1) / experts.alpha).to(states.dtype)
        return eagle_kernels.linear(gated, down[expert], experts.down_proj_bias[expert])

    def forward(hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        if hidden_states.shape[-2] > MAX_ROWS:
            stock: tuple[Tensor, Tensor] = type(block).forward(block, hidden_states)
            return stock
        states = hidden_states.flatten(0, -2)
        scores, chosen = eagle_kernels.linear(states, router.weight, router.bias).topk(router.top_k, dim=-1)
        weights = scores.softmax(-1)
        return weighted_sum(states, weights, chosen, run).view_as(hidden_states), weights

    return forward


def weighted_sum(states: Tensor, weights: Tensor, chosen: Tensor, run: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Each row's sum over the experts that it chose.

    states: [rows, hidden]; weights, chosen: [rows, choices], chosen int64; run: an expert's output for some rows
    """
    outputs = states.new_empty(*chosen.shape, states.shape[-1])
    for expert in chosen.unique().tolist():
        rows, place = (chosen == expert).nonzero(as_tuple=True)
        outputs[rows, place] = run(expert, states[rows])
    return sum((outputs * weights[..., None]).unbind(1), torch.zeros_like(states))


def by_outputs(parameter: Tensor) -> Tensor:
    """Matrices [experts, inner, outputs] as [experts, outputs, inner], contiguous: the order in which the op reads.

    Where they lie otherwise they are moved once, and the parameter keeps its shape and values.
    """
    turned = parameter.detach().transpose(1, 2)
    if not turned.is_contiguous():
        with torch.inference_mode(parameter.is_inference()), torch.no_grad():
            turned = turned.contiguous()
            parameter.data = turned.transpose(1, 2)
    return turned

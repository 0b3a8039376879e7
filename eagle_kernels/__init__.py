"""Fused operations for tree speculative decoding: functions on tensors, no models and no loop."""

from eagle_kernels.backend import BACKENDS, info
from eagle_kernels.compact_kv import compact_kv
from eagle_kernels.gumbel_noise import gumbel_noise
from eagle_kernels.sample_tokens import sample_tokens
from eagle_kernels.topk_logprobs import topk_logprobs
from eagle_kernels.verify_tree import verify_tree

__all__ = [
    "BACKENDS",
    "compact_kv",
    "gumbel_noise",
    "info",
    "sample_tokens",
    "topk_logprobs",
    "verify_tree",
]

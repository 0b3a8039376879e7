"""Fused operations for tree speculative decoding: functions on tensors, no models and no loop."""

from eagle_kernels.backend import BACKENDS, info
from eagle_kernels.compact_kv import compact_kv

__all__ = ["BACKENDS", "compact_kv", "info"]

"""Fused operations for tree speculative decoding: functions on tensors, no models and no loop."""

from eagle_kernels.backend import BACKENDS, info
from eagle_kernels.build_tree import build_tree
from eagle_kernels.commit_step import commit_step
from eagle_kernels.compact_kv import compact_kv
from eagle_kernels.expand_tree import expand_tree
from eagle_kernels.tree_attention import tree_attention

__all__ = [
    "BACKENDS",
    "build_tree",
    "commit_step",
    "compact_kv",
    "expand_tree",
    "info",
    "tree_attention",
]

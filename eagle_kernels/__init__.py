"""Fused operations for tree speculative decoding: functions on tensors, no models and no loop."""

from eagle_kernels.backend import BACKENDS, backend_in_use, can_run, info, use_backend
from eagle_kernels.build_tree import build_tree
from eagle_kernels.commit_step import commit_step
from eagle_kernels.compact_kv import compact_kv
from eagle_kernels.decoder_layers import decoder_layers
from eagle_kernels.draft_input import draft_input
from eagle_kernels.draft_mlp import draft_mlp
from eagle_kernels.draft_output import draft_output
from eagle_kernels.draft_qkv_rope import draft_qkv_rope
from eagle_kernels.expand_tree import expand_tree
from eagle_kernels.fp8 import quantize_fp8
from eagle_kernels.gumbel_noise import gumbel_noise
from eagle_kernels.linear import linear
from eagle_kernels.lm_head_topk import lm_head_topk
from eagle_kernels.rms_norm import rms_norm
from eagle_kernels.rope import rope
from eagle_kernels.sample_children import sample_children
from eagle_kernels.sample_tokens import sample_tokens
from eagle_kernels.silu_mul import silu_mul
from eagle_kernels.topk_logprobs import topk_logprobs
from eagle_kernels.tree_attention import tree_attention
from eagle_kernels.verify_rejection import verify_rejection
from eagle_kernels.verify_tree import verify_tree
from eagle_kernels.write_kv import write_kv

__all__ = [
    "BACKENDS",
    "backend_in_use",
    "build_tree",
    "can_run",
    "commit_step",
    "compact_kv",
    "decoder_layers",
    "draft_input",
    "draft_mlp",
    "draft_output",
    "draft_qkv_rope",
    "expand_tree",
    "gumbel_noise",
    "info",
    "linear",
    "lm_head_topk",
    "quantize_fp8",
    "rms_norm",
    "rope",
    "sample_children",
    "sample_tokens",
    "silu_mul",
    "topk_logprobs",
    "tree_attention",
    "use_backend",
    "verify_rejection",
    "verify_tree",
    "write_kv",
]

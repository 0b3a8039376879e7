"""Which implementation of an op runs: the C++ library, Triton or the plain-torch reference."""

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from eagle_kernels.library import _C

BACKENDS = ("cpp", "triton", "reference")


def resolve(op: str, tensor: Tensor, backend: str | None) -> Callable[..., Any]:
    """Returns the implementation of `op` for `tensor`.

    backend: None picks the C++ op where it was built for the tensor's device, else Triton on a GPU, else the
    reference. A name from BACKENDS forces one. Raises ValueError for another name.
    """
    return _implementation(op, tensor.device.type, backend)


@cache
def _implementation(op: str, device_type: str, backend: str | None) -> Callable[..., Any]:
    if backend is None:
        backend = _preferred(device_type)
    if backend not in BACKENDS:
        raise ValueError(f"{op}: backend {backend!r} is unknown, choose one of {', '.join(BACKENDS)} or None.")
    if backend == "cpp":
        return getattr(torch.ops.eagle_kernels, op).default
    return getattr(importlib.import_module(f"eagle_kernels.{backend}.{op}"), op)


def _preferred(device_type: str) -> str:
    if device_type in ("cpu", "meta") or (device_type == "cuda" and _C.with_cuda):
        return "cpp"
    return "triton" if device_type == "cuda" else "reference"


def info() -> dict[str, Any]:
    """Says what was built and what can run here: CUDA kernels, GPU, torch and Triton versions."""
    try:
        triton_version = importlib.import_module("triton").__version__
    except ImportError:
        triton_version = None
    return {
        "cuda_kernels": bool(_C.with_cuda),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "triton": triton_version,
    }

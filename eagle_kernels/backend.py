"""Which implementation of an op runs: the C++ library, Triton or the plain-torch reference."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from eagle_kernels.library import _C

BACKENDS = ("cpp", "triton", "reference")
_in_use: ContextVar[str | None] = ContextVar("backend", default=None)


@contextmanager
def use_backend(backend: str | None) -> Iterator[None]:
    """Makes `backend` the one that ops pick when they are called with backend=None, inside a with statement."""
    token = _in_use.set(backend)
    try:
        yield
    finally:
        _in_use.reset(token)


def backend_in_use() -> str | None:
    """What `use_backend` says here, None outside of it."""
    return _in_use.get()


def resolve(op: str, tensor: Tensor, backend: str | None) -> Callable[..., Any]:
    """Returns the implementation of `op` for `tensor`.

    backend: a name from BACKENDS. None takes what `use_backend` says, else the C++ op; on a GPU that it was not built
             for Triton, else the reference. Raises ValueError for another name, and for Triton on the CPU unless its
             interpreter is on.
    """
    return _implementation(op, tensor.device.type, _in_use.get() if backend is None else backend)


@cache
def _implementation(op: str, device_type: str, backend: str | None) -> Callable[..., Any]:
    if backend is None:
        backend = _preferred(op, device_type)
    if backend not in BACKENDS:
        raise ValueError(f"{op}: backend {backend!r} is unknown, choose one of {', '.join(BACKENDS)} or None.")
    if backend == "cpp":
        return getattr(torch.ops.eagle_kernels, op).default
    if backend == "triton":
        _check_triton(op, device_type)
    function = getattr(importlib.import_module(f"eagle_kernels.{backend}.{op}"), op)
    return _on_its_device(function) if (backend, device_type) == ("triton", "cuda") else function


def _on_its_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """Triton launches on the current device, wherever the tensors are: makes it that of the first one."""

    @wraps(function)
    def guarded(*arguments: Any, **options: Any) -> Any:
        first = arguments[0][0] if isinstance(arguments[0], list | tuple) else arguments[0]
        with torch.cuda.device_of(first):
            return function(*arguments, **options)

    return guarded


def _preferred(op: str, device_type: str) -> str:
    if device_type != "cuda":
        return "cpp"
    return next(backend for backend in BACKENDS if can_run(op, device_type, backend))


def can_run(op: str, device: str, backend: str) -> bool:
    """Whether `backend` has `op` for tensors on `device`, "cpu" or "cuda", here and now."""
    if backend == "cpp":
        return torch._C._dispatch_has_kernel_for_dispatch_key(f"eagle_kernels::{op}", device.upper())
    if find_spec(f"eagle_kernels.{backend}.{op}") is None:
        return False
    return backend == "reference" or (find_spec("triton") is not None and (device == "cuda" or _interpreting()))


def _interpreting() -> bool:
    return bool(importlib.import_module("triton").knobs.runtime.interpret)


def _check_triton(op: str, device_type: str) -> None:
    if find_spec(f"eagle_kernels.triton.{op}") is None:
        raise ValueError(f"{op}: there is no Triton kernel for this op, use backend='reference' or None.")
    if find_spec("triton") is None:
        raise ValueError(f"{op}: backend 'triton' needs the package triton, which is not installed.")
    if device_type == "cpu" and not _interpreting():
        raise ValueError(
            f"{op}: backend 'triton' runs on a GPU and the tensor is on the CPU: move it to a GPU, or set "
            "TRITON_INTERPRET=1 before Python starts for Triton's interpreter."
        )


def info() -> dict[str, Any]:
    """Says what was built and what can run here: CPU and CUDA kernels, GPU, torch and Triton versions.

    cpu_kernels: which of the kernels compiled for x86-64 run on this processor: "avx512_bf16", "avx512", "avx2" or
                 "baseline", the last one elsewhere too
    """
    try:
        triton_version = importlib.import_module("triton").__version__
    except ImportError:
        triton_version = None
    return {
        "cpu_kernels": _C.cpu_level,
        "cuda_kernels": bool(_C.with_cuda),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "triton": triton_version,
    }

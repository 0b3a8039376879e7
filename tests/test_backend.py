"""Choosing a backend: by name, for a block of code, and what is said when it cannot run."""

import pytest
import torch
import triton

import eagle_kernels
from eagle_kernels import backend

ROWS = torch.randn(2, 8)
WEIGHT = torch.ones(8)


def test_use_backend_decides_for_calls_that_do_not(monkeypatch):
    chosen = []
    monkeypatch.setattr(backend, "_implementation", lambda op, device, name: chosen.append(name) or torch.rms_norm)
    with eagle_kernels.use_backend("triton"):
        backend.resolve("rms_norm", ROWS, None)
        backend.resolve("rms_norm", ROWS, "reference")
        with eagle_kernels.use_backend(None):
            backend.resolve("rms_norm", ROWS, None)
    backend.resolve("rms_norm", ROWS, None)
    assert chosen == ["triton", "reference", None, None]


def test_use_backend_ends_with_its_block():
    with pytest.raises(ValueError, match="backend 'cudnn' is unknown"), eagle_kernels.use_backend("cudnn"):
        eagle_kernels.rms_norm(ROWS, WEIGHT, 1e-6)
    eagle_kernels.rms_norm(ROWS, WEIGHT, 1e-6)


def test_a_gpu_without_a_cuda_kernel_gets_triton(monkeypatch):
    monkeypatch.setattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", lambda op, key: op.endswith("::built"))
    assert backend._preferred("built", "cuda") == "cpp"
    assert backend._preferred("other", "cuda") == "triton"
    assert backend._preferred("other", "cpu") == "cpp"


def test_triton_on_the_cpu_needs_the_interpreter(monkeypatch):
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    backend._implementation.cache_clear()
    with pytest.raises(ValueError, match="rms_norm: backend 'triton' runs on a GPU and the tensor is on the CPU"):
        eagle_kernels.rms_norm(ROWS, WEIGHT, 1e-6, backend="triton")

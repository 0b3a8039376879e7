"""Runs the ops on emulated CUDA kernels where a test names no backend: pytest -p cuda_emulation.plugin."""

from collections.abc import Callable

import pytest
from cuda_emulation import emulated

from eagle_kernels import backend


@pytest.fixture(autouse=True)
def emulated_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = backend._implementation

    def implementation(op: str, device_type: str, name: str | None) -> Callable[..., object]:
        return emulated.OPS[op] if name is None and op in emulated.OPS else compiled(op, device_type, name)

    monkeypatch.setattr(backend, "_implementation", implementation)

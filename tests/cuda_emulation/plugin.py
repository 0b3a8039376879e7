"""Runs the ops on emulated CUDA kernels where a test names no backend: pytest -p cuda_emulation.plugin."""

from collections.abc import Callable

import pytest
from cuda_emulation import emulated, emulated_products

from eagle_kernels import backend

PRODUCTS = [
    emulated_products.decoder_layers,
    emulated_products.draft_input,
    emulated_products.draft_mlp,
    emulated_products.draft_output,
    emulated_products.draft_qkv_rope,
    emulated_products.linear,
    emulated_products.lm_head_topk,
    emulated_products.rms_norm,
    emulated_products.rope,
    emulated_products.silu_mul,
    emulated_products.tree_attention,
]
OPS = emulated.OPS | {op.__name__: op for op in PRODUCTS}


@pytest.fixture(autouse=True)
def emulated_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = backend._implementation

    def implementation(op: str, device_type: str, name: str | None) -> Callable[..., object]:
        return OPS[op] if (device_type, name) == ("cpu", None) else compiled(op, device_type, name)

    monkeypatch.setattr(backend, "_implementation", implementation)

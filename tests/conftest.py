"""Fixtures shared by the tests: devices, element types, backends, seeds."""

import os

if "TRITON_INTERPRET" not in os.environ:
    import torch

    os.environ["TRITON_INTERPRET"] = "0" if torch.cuda.is_available() else "1"  # read when a kernel is decorated

from collections.abc import Iterator
from typing import Any

import interpreter
import pytest
import torch

import eagle_kernels

interpreter.repair()
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=[None, "triton"], ids=["default", "triton"])
def backend(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Runs the test once with the ops that the device gets by itself, once with Triton's."""
    with eagle_kernels.use_backend(request.param):
        yield request.param


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Takes out what Triton's interpreter computes wrongly: bfloat16 on the CPU."""
    items[:] = [item for item in items if not interpreted_bfloat16(getattr(item, "callspec", None))]


def interpreted_bfloat16(case: Any) -> bool:
    chosen = {} if case is None else case.params
    return (chosen.get("backend"), chosen.get("device"), chosen.get("dtype")) == ("triton", "cpu", torch.bfloat16)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)

"""Fixtures shared by the tests: devices, element types, backends, seeds, models on disk."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read at import; tests/hub_server.py stands in for the hub
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded: a waiting thread takes no processor
if "TRITON_INTERPRET" not in os.environ:
    import torch

    os.environ["TRITON_INTERPRET"] = "0" if torch.cuda.is_available() else "1"  # read when a kernel is decorated

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import eagle_kernels

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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Takes out what Triton's interpreter computes wrongly, bfloat16, and marks as slow what takes it half a minute."""
    items[:] = [item for item in items if interpreted(item).get("dtype") != torch.bfloat16]
    for item in items:
        if sum(interpreted(item).get("contexts", [])) > 200:
            item.add_marker(pytest.mark.slow)


def interpreted(item: pytest.Item) -> dict[str, Any]:
    """The parameters of a test that runs in Triton's interpreter; empty for other tests."""
    chosen = item.callspec.params if hasattr(item, "callspec") else {}
    return chosen if (chosen.get("backend"), chosen.get("device")) == ("triton", "cpu") else {}


@pytest.fixture(autouse=True)
def state_of_torch() -> None:
    """What tests before this one changed: the generator, and subnormal numbers, which training commands turn off."""
    torch.manual_seed(0)
    torch.set_flush_denormal(False)


@pytest.fixture(autouse=True)
def gpu_without_a_fault() -> Iterator[None]:
    """A fault of a kernel fails the test that launched it and, where others can take its place, ends the process: CUDA
    would report it to every test that follows."""
    yield
    if not torch.cuda.is_available():
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        if "PYTEST_XDIST_WORKER" in os.environ:
            os._exit(70)  # pytest-xdist names the test and starts another process
        raise


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """--target and --draft for a tiny model and a head on disk."""
    from command_line import save_models

    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def captures(device: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Rounds are captured, on a CPU too, and buckets so small that texts outgrow them; counts what happens."""
    from captures import Captures

    from eagle_decoding import graph

    counted = Captures(device)
    monkeypatch.setitem(graph.CAPTURES, device, counted)
    monkeypatch.setattr(graph, "BUCKET", 16)
    return counted

"""The GPU benchmark of kernels, on a CPU: rivals compute what the op does; full sizes without memory; its rows."""

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from bench import gpu_kernels, timing
from bench.gpu import attention, kernel_names
from bench.gpu import rows as rows_module
from bench.gpu.kernel_names import KernelNames
from bench.gpu.rows import Rows, copied, sets_of
from bench.results_file import read_json
from bench.shapes import MODELS, ModelShape, sizes
from bench.timing import Call, Stopwatch
from eagle_decoding.floor.ceilings import Ceilings
from eagle_decoding.floor.work import Work

CEILINGS = Ceilings(1, "bfloat16", copy_bandwidth=1e10, read_bandwidth=1e10, flops_per_second=1e11)


@pytest.fixture
def tiny(monkeypatch) -> str:
    """A model's name; ceilings are not measured, two sets of inputs exceed the cache, and few samples are taken."""
    monkeypatch.setitem(MODELS, "tiny", ModelShape(64, 96, 8, 2, 16, 3, 97, 60))
    monkeypatch.setattr(rows_module, "CACHED_BYTES", 1)
    monkeypatch.setattr(rows_module, "SAMPLING_SECONDS", 0)
    monkeypatch.setattr(gpu_kernels, "measure_ceilings", lambda dtype, device: CEILINGS)
    return "tiny"


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_every_kernel_beside_its_rivals(tiny, tmp_path, monkeypatch):
    """Small shapes on a CPU: every rival runs and computes what the op does."""
    monkeypatch.setattr(attention, "FLEX_CONTEXT", 32)
    out = tmp_path / "kernels.json"
    gpu_kernels.main(out, tiny, "32", "1,2", "cpu")
    rows = read_json(out, "machine", "ceilings", "kernels")["kernels"]
    over_trees = [row for row in rows if row["name"] == "tree_attention"]
    assert [(row["batch"], row["nodes"]) for row in over_trees] == [(1, 1), (1, 6), (1, 60), (2, 60)]
    assert set(over_trees[-1]["rivals"]) == {"sdpa", "sdpa, heads folded", "flex"}
    assert {row["name"] for row in rows} == {
        "tree_attention", "draft forward", "sample and walk", "verify_rejection", "compact_kv", "linear",
    }  # fmt: skip
    for row in rows:
        assert row["floor_seconds"] == max(row["bytes_seconds"], row["flops_seconds"]), row
        assert row["seconds"] > 0 and not row["captured"] and row["kernels"] == []
        for rival in row["rivals"].values():
            assert rival["seconds"] > 0, rival
            assert rival.get("difference", 0) < 0.02, row
    compared = [row for row in rows for rival in row["rivals"].values() if "difference" in rival]
    assert {row["name"] for row in compared} == {"tree_attention", "draft forward", "linear"}


def test_a_rival_takes_its_kernel_s_layout(monkeypatch):
    """SDPA's kernels on a GPU may give rows of all heads together, not head after head."""

    def rows_together(*args: Any, **options: Any) -> Tensor:
        return scaled_dot_product_attention(*args, **options).transpose(1, 2).contiguous().transpose(1, 2)

    query, key, visible = torch.randn(1, 8, 6, 16), torch.randn(1, 2, 26, 16), torch.rand(1, 6, 26) < 0.9
    folded = attention.folded_sdpa(visible, 0.25, 4, query.dtype)
    expected = folded(query, key, key)
    monkeypatch.setattr(attention, "scaled_dot_product_attention", rows_together)
    assert torch.equal(folded(query, key, key), expected)


class Shapes(Rows):
    """Runs each call once on tensors without memory, instead of timing it."""

    def __init__(self) -> None:
        self.watch, self.names = type("Watch", (), {"device": "meta"}), []

    def add(
        self, name: str, calls: Sequence[Callable], work: Work, rivals: Mapping[str, Callable], **about: Any
    ) -> None:
        assert work.bytes > 0
        assert len(calls) > 1 or work.bytes > 1e8, f"the launch of a graph weighs on {name}"
        calls[0]()
        for rival, make in rivals.items():
            if rival not in ("flex", "torch, walked by the host"):  # they read values
                make()[0]()
        self.names.append(name)


def test_full_sizes_fit_together(monkeypatch):
    """All calls at Llama-3.1-8B's shape and 64k rows of context, on a device that has no memory."""
    monkeypatch.setattr(rows_module, "CACHED_BYTES", 1)
    shapes = Shapes()
    for add in gpu_kernels.groups(sizes("Llama-3.1-8B", num_nodes=60), [65536], [8]):
        add(shapes)
    assert shapes.names.count("tree_attention") == 3 and shapes.names.count("linear") == 15


def test_a_rival_that_fails_is_an_entry():
    def fails() -> list:
        raise RuntimeError("no kernel\nfound")

    rows = Rows(Stopwatch("cpu"), CEILINGS)
    rows.add("op", [lambda: None], Work(2e10, 1e11), {"torch": fails}, rows=3)
    (row,) = rows.rows
    assert row["rivals"] == {"torch": {"error": "RuntimeError: no kernel"}} and row["rows"] == 3
    assert (row["bytes_seconds"], row["flops_seconds"], row["floor_seconds"]) == (2, 1, 2)
    assert row["share_of_bandwidth"] == pytest.approx(2 / row["seconds"])


def test_a_row_tells_why_its_call_was_not_captured(monkeypatch):
    """By what the call did, rather than by the broken capture that came of it."""

    def break_off(call: Call, device: torch.device) -> Call:
        try:
            raise RuntimeError("not permitted\nwhen capturing")
        finally:
            raise RuntimeError("capture invalidated")

    monkeypatch.setattr(timing, "cuda_graph", break_off)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    watch = Stopwatch("cpu")
    rows = Rows(watch, CEILINGS)
    monkeypatch.setattr(watch, "prepare", partial(Stopwatch.prepare, type("Gpu", (), {"device": "cuda"})))
    rows.add("op", [lambda: None], Work(1, 1), {"torch": lambda: [lambda: None]})
    for entry in (rows.rows[0], rows.rows[0]["rivals"]["torch"]):
        assert entry["captured"] is False and entry["capture_error"] == "RuntimeError: not permitted"


def test_a_group_that_fails_does_not_end_the_run(tiny, tmp_path, monkeypatch):
    def fails(rows: Rows) -> None:
        raise ValueError("wrong shape")

    def succeeds(rows: Rows) -> None:
        rows.add("next", [lambda: None], Work(1, 1), {})

    monkeypatch.setattr(gpu_kernels, "groups", lambda *_: [fails, succeeds])
    with pytest.raises(typer.Exit) as stopped:
        gpu_kernels.main(tmp_path / "k.json", tiny, "32", "1", "cpu")
    assert stopped.value.exit_code == 1
    failed, measured = read_json(tmp_path / "k.json")["kernels"]
    assert failed == {"error": "ValueError: wrong shape"} and measured["name"] == "next"


def test_a_row_names_the_kernels_of_its_call(monkeypatch):
    """Of its own call, once each in order, in a pass of its own; what has not been timed gets no row."""
    launched = {"tree": ["tensor_kernel", "merge_kernel", "tensor_kernel"], "chain": ["plain_kernel"]}

    def write_trace(call: Callable[[], str], activity: object, trace: Path) -> None:
        """As if the call had launched these, and copied something."""
        kernels = [{"cat": "kernel", "name": name, "ts": at} for at, name in enumerate(launched[call()])]
        events = [*reversed(kernels), {"cat": "gpu_memcpy", "name": "Memcpy", "ts": 0}]
        with gzip.open(trace, "wt") as file:
            json.dump({"traceEvents": events}, file)

    monkeypatch.setattr(kernel_names, "profiled", write_trace)
    rows = Rows(Stopwatch("cpu"), CEILINGS)
    for collected in (rows, KernelNames(rows)):
        for name in launched:
            collected.add("op", [lambda name=name: name], Work(1, 1), {}, shape=name)
    KernelNames(rows).add("op", [lambda: "tree"], Work(1, 1), {}, shape="failed")
    assert [row["kernels"] for row in rows.rows] == [["tensor_kernel", "merge_kernel"], ["plain_kernel"]]


def test_a_profiler_that_fails_is_no_failure_of_the_row(tiny, tmp_path, monkeypatch):
    """Rows keep their times. What comes last in the first pass, attention over trees, is profiled first."""
    profiled = []

    def fails(call: Callable[[], str], activity: object, trace: Path) -> None:
        profiled.append(call())
        raise RuntimeError("no CUPTI")

    def group(rows: Rows, name: str) -> None:
        rows.add(name, [lambda: name], Work(1, 1), {})

    monkeypatch.setattr(kernel_names, "profiled", fails)
    monkeypatch.setattr(gpu_kernels, "groups", lambda *_: [partial(group, name=name) for name in ("first", "last")])
    gpu_kernels.main(tmp_path / "k.json", tiny, "32", "1", "cpu")
    rows = read_json(tmp_path / "k.json")["kernels"]
    assert [row["profile_error"] for row in rows] == ["RuntimeError: no CUPTI"] * 2 and profiled == ["last", "first"]


def test_sets_in_turn_exceed_the_cache_and_keep_their_layout(monkeypatch):
    monkeypatch.setattr(rows_module, "CACHED_BYTES", 100)
    tensor = torch.arange(6).view(2, 3).T
    sets = sets_of((tensor, 5), num_bytes=48)
    assert len(sets) == 3 and len({arguments[0].data_ptr() for arguments in sets}) == 3
    assert all(torch.equal(t, tensor) and t.stride() == tensor.stride() and five == 5 for t, five in sets)
    assert [len(sets_of([tensor], n)) for n in (1, 60, 1000)] == [100, 2, 2]
    nested = copied([[tensor], "text"])
    assert nested[1] == "text" and nested[0][0] is not tensor

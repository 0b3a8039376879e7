"""The GPU suite without a GPU: its kernels and rounds on a CPU, idle shares, claims, and the phases of the script."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from models import eagle_decoder, prompts, tiny_target
from tape import Tape
from torch.profiler import ProfilerActivity

from bench import gpu_kernels, graph_rounds
from bench.arms import Arm, speculative
from bench.gpu import rows as rows_module
from bench.gpu.claims import Claim, claims
from bench.gpu.collect import main as collect
from bench.gpu.forced import accepting, forced_path
from bench.gpu.replays import marked_replays
from bench.gpu.rows import Rows, copied, sets_of
from bench.gpu.timeline import Activity, idle_shares, profiled, read_activities
from bench.results_file import read_json
from bench.shapes import MODELS, ModelShape, sizes
from bench.timing import Stopwatch
from eagle_decoding import SpeculativeDecoder, TreeConfig, graph
from eagle_decoding.floor.ceilings import Ceilings
from eagle_decoding.floor.work import Work
from eagle_decoding.target import load_target
from eagle_decoding.tree import DraftTree

ROOT = Path(__file__).resolve().parent.parent
CEILINGS = Ceilings(1, "bfloat16", copy_bandwidth=1e10, read_bandwidth=1e10, flops_per_second=1e11)


@pytest.fixture
def tiny(monkeypatch) -> str:
    """A model's name; ceilings are not measured, and two sets of inputs exceed the cache."""
    monkeypatch.setitem(MODELS, "tiny", ModelShape(64, 96, 8, 2, 16, 2, 97, 60))
    monkeypatch.setattr(rows_module, "CACHED_BYTES", 1)
    monkeypatch.setattr(rows_module, "SAMPLING_SECONDS", 0)
    for command in (gpu_kernels, graph_rounds):
        monkeypatch.setattr(command, "measure_ceilings", lambda dtype, device: CEILINGS)
    return "tiny"


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_every_kernel_beside_its_rivals(tiny, tmp_path):
    """Small shapes on a CPU: every rival runs and computes what the op does."""
    out = tmp_path / "kernels.json"
    gpu_kernels.main(out, tiny, "32", "1,2", "cpu")
    rows = read_json(out, "machine", "ceilings", "kernels")["kernels"]
    attention = [row for row in rows if row["name"] == "tree_attention"]
    assert [(row["batch"], row["nodes"]) for row in attention] == [(1, 60), (2, 60), (1, 1), (1, 6)]
    assert set(attention[0]["rivals"]) == {"sdpa", "sdpa, heads folded", "flex"}
    assert {row["name"] for row in rows} == {
        "tree_attention", "draft forward", "sample and walk", "compact_kv", "linear",
    }  # fmt: skip
    for row in rows:
        assert row["floor_seconds"] == max(row["bytes_seconds"], row["flops_seconds"]), row
        assert row["seconds"] > 0 and not row["captured"]
        for rival in row["rivals"].values():
            assert rival["seconds"] > 0, rival
            assert rival.get("difference", 0) < 0.02, row
    compared = [row for row in rows for rival in row["rivals"].values() if "difference" in rival]
    assert {row["name"] for row in compared} == {"tree_attention", "draft forward", "linear"}


class Shapes(Rows):
    """Runs each call once on tensors without memory, instead of timing it."""

    def __init__(self) -> None:
        self.watch, self.names = type("Watch", (), {"device": "meta"}), []

    def add(
        self, name: str, calls: Sequence[Callable], work: Work, rivals: Mapping[str, Callable], **about: Any
    ) -> None:
        assert work.bytes > 0
        calls[0]()
        for rival, make in rivals.items():
            if rival != "flex":  # its mask is made of values
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


def test_a_group_that_fails_does_not_end_the_run(tiny, tmp_path, monkeypatch):
    def fails(rows: Rows) -> None:
        raise ValueError("wrong shape")

    monkeypatch.setattr(gpu_kernels, "groups", lambda *_: [fails, lambda rows: rows.rows.append({"name": "next"})])
    with pytest.raises(typer.Exit) as stopped:
        gpu_kernels.main(tmp_path / "k.json", tiny, "32", "1", "cpu")
    assert stopped.value.exit_code == 1
    assert read_json(tmp_path / "k.json")["kernels"] == [{"error": "ValueError: wrong shape"}, {"name": "next"}]


def test_sets_in_turn_exceed_the_cache_and_keep_their_layout(monkeypatch):
    monkeypatch.setattr(rows_module, "CACHED_BYTES", 100)
    tensor = torch.arange(6).view(2, 3).T
    sets = sets_of((tensor, 5), num_bytes=48)
    assert len(sets) == 3 and len({arguments[0].data_ptr() for arguments in sets}) == 3
    assert all(torch.equal(t, tensor) and t.stride() == tensor.stride() and five == 5 for t, five in sets)
    assert [len(sets_of([tensor], n)) for n in (1, 60, 1000)] == [100, 2, 2]
    nested = copied([[tensor], "text"])
    assert nested[1] == "text" and nested[0][0] is not tensor


#       0
#      / \
#     1   2
#     |   |  \
#     3   4   5      and one node of padding; 5 has a child 6
PARENT = [-1, 0, 0, 1, 2, 2, 5, -1]


def forked_tree() -> DraftTree:
    depth, masks = [], []
    for node, parent in enumerate(PARENT):
        depth.append(depth[parent] + 1 if parent >= 0 else 0)
        masks.append((masks[parent] if parent >= 0 else 0) | 1 << node)
    row = torch.tensor([PARENT, depth], dtype=torch.int32)[:, None]
    return DraftTree(row[0], row[0], row[1], row[1], torch.tensor(masks)[None, :, None], None, max_depth=4)


@pytest.mark.parametrize(
    ("accepted", "path"), [(0, [0]), (1, [0, 1]), (2, [0, 1, 3]), (3, [0, 2, 5, 6]), (4, [0, 2, 5, 6])]
)
def test_the_forced_path_is_one_of_the_tree(accepted, path):
    """Ending at the first node as deep as asked, or at the deepest there is; behind it -1."""
    accept_index, accept_length, node = forced_path(forked_tree(), accepted)
    assert accept_index.tolist() == [path + [-1] * (5 - len(path))] and accept_index.dtype == torch.int32
    assert accept_length.tolist() == [len(path) - 1] and node.tolist() == [[path[-1]]]


@pytest.mark.parametrize("accepted", [0, 2])
def test_forced_rounds_can_be_captured(accepted, monkeypatch):
    """On a tape with a graph's rules: the text of rounds one by one, and as many tokens a round as asked."""
    decoder = eagle_decoder(tiny_target(), TreeConfig(num_nodes=12, max_depth=3, topk=3))
    settings = {"do_sample": False, "max_new_tokens": 19, "eos_token_id": None}
    monkeypatch.setitem(graph.CAPTURES, "cpu", lambda step, device: Tape(step).replay)
    monkeypatch.setattr(graph, "BUCKET", 64)
    texts = []
    with accepting(accepted):
        for decoder.graph in (False, True):
            with marked_replays(Stopwatch("cpu")) as replays:
                texts.append(decoder.generate(**prompts(2), **settings))
            assert decoder.stats.tokens_per_round == accepted + 1
            assert decoder.stats.rounds == 2 * 18 // (accepted + 1)
    assert torch.equal(*texts) and len(replays.marks) >= 18 // (accepted + 1) - 2  # a round may be under way too many
    assert replays.round_seconds() > 0 and replays.device_seconds() > 0
    decoder.graph = False
    stock = decoder.generate(**prompts(2), **settings)
    assert torch.equal(stock, texts[0]) == (accepted == 0)  # a round that accepts nothing writes what the target chose


def test_graph_rounds_command(tiny, tmp_path, capsys):
    out = tmp_path / "rounds.json"
    graph_rounds.main(
        tiny, prompt=12, new_tokens=24, trees="4/3/1,12/4/3", accept=2, dtype="float32", device="cpu",
        timelines=tmp_path, out=out,
    )  # fmt: skip
    rows = read_json(out, "machine", "ceilings", "graph_rounds")["graph_rounds"]
    assert [(row["rounds"], row["fused"]) for row in rows] == [
        ("transformers", False),
        *((name, fused) for name in ("plain", "chain 4/3/1", "tree 12/4/3") for fused in (False, True)),
    ]
    assert [row["tokens_per_round"] for row in rows] == [1, 1, 1, 3, 3, 3, 3]
    assert all(0 < row["floor_seconds"] < row["eager_seconds"] for row in rows)
    for row in rows[1:]:
        assert row["graph_device_seconds"] > 0
        assert row["share_of_floor_speed"] == pytest.approx(row["floor_seconds"] / row["graph_seconds"], rel=1e-3)
    idle = [row["idle"] for row in rows if "idle" in row]
    assert [found["timeline"] for found in idle] == ["tiny-plain.json.gz", "tiny-tree.json.gz"]
    assert all(found["host_gaps"] is None and (tmp_path / found["timeline"]).exists() for found in idle)
    assert "tiny, float32, milliseconds of a round" in capsys.readouterr().out
    assert "cpu" not in graph.CAPTURES


def trace_of(events: list[dict[str, Any]], path: Path) -> Path:
    with gzip.open(path, "wt") as file:
        json.dump({"traceEvents": events}, file)
    return path


def test_idle_shares_of_a_timeline(tmp_path):
    """Three replays of two kernels at a time and a copy: 100 us apart, 10 us idle inside, 5 us idle between."""
    events = [{"ph": "X", "cat": "cuda_runtime", "name": "cudaGraphLaunch", "ts": 0, "dur": 90, "args": {}}]
    for replay in range(3):
        for category, start, length in (("kernel", 0, 50), ("kernel", 30, 10), ("gpu_memcpy", 60, 35)):
            arguments = {"correlation": replay + 7}
            events.append(
                {"ph": "X", "cat": category, "ts": 1e3 + 100 * replay + start, "dur": length, "args": arguments}
            )
    events.append({"ph": "X", "cat": "kernel", "ts": 500.0, "dur": 9, "args": {"correlation": 3}})  # launched by itself
    found = idle_shares(read_activities(trace_of(events, tmp_path / "trace.json.gz")))
    assert found["rounds"] == 2 and found["round_seconds"] == pytest.approx(1e-4)
    assert found["host_gaps"] == pytest.approx(0.05) and found["inner_gaps"] == pytest.approx(0.10)


def test_a_timeline_without_replays_has_no_shares():
    assert idle_shares([Activity(0, 1, 1), Activity(2, 3, 2)])["host_gaps"] is None
    assert idle_shares([])["rounds"] == 0


def test_a_profile_of_a_cpu_has_no_activity_of_a_device(tmp_path):
    trace = tmp_path / "folder" / "trace.json.gz"
    profiled(lambda: torch.ones(4) + 1, ProfilerActivity.CPU, trace)
    assert read_activities(trace) == [] and b"aten::add" in gzip.decompress(trace.read_bytes())


def test_rounds_logged_apart_are_those_of_the_timed_call(saved, tmp_path):
    """What a GPU does, whose timed rounds are captured: the same text, rounds and acceptance as with the log."""
    target, head, tree = load_target(saved[1], dtype=torch.float32), saved[3], TreeConfig(6, 3, 2)
    logged = speculative(target, head, tree)
    assert logged.log is logged.decoder
    apart = SpeculativeDecoder.from_pretrained(target, head, tree=tree)
    found = []
    for arm in (logged, Arm("apart", apart.generate, apart, logged.log)):
        clock, stats, rounds = arm.run(prompts(1)["input_ids"], {"do_sample": False, "max_new_tokens": 12})
        found.append((clock.tokens, stats.rounds, stats.accepted, rounds))
        assert len(clock.tokens) == clock.steps + 1 and len(rounds) == stats.rounds
    assert found[0] == found[1]


def kernel(name: str, seconds: float, **fields: Any) -> dict[str, Any]:
    return {"name": name, "seconds": seconds, "bytes_seconds": 1e-5, "times_floor": 2.0, "rivals": {}} | fields


def graph_round(name: str, fused: bool, **fields: Any) -> dict[str, Any]:
    return {"rounds": name, "fused": fused, "tokens_per_round": 1.0, "eager_seconds": 2e-2} | fields


def test_claims_follow_from_the_parts():
    attention = {"batch": 1, "nodes": 60, "rivals": {"sdpa": {"seconds": 3e-5}, "flex": {"error": "none"}}}
    parts = {
        "kernels": {
            "kernels": [
                kernel("tree_attention", 2e-5, context=8192, share_of_bandwidth=0.7, **attention),
                kernel("tree_attention", 2e-5, context=1024, share_of_bandwidth=0.2, batch=1, nodes=60),
                kernel("draft forward", 1.2e-5, weights="bfloat16", rows=10),
                kernel("sample and walk", 41e-6, settings="top-k, top-p", nodes=60),
                kernel("sample and walk", 14e-6, settings="greedy", nodes=60),
                kernel("compact_kv", 9e-6, rows=8, layers=33),
                {"error": "not measured"},
            ]
        },
        "rounds-8b": {
            "machine": {"model": "Llama-3.1-8B"},
            "graph_rounds": [
                graph_round("plain", False, share_of_floor_speed=0.79, graph_seconds=5e-3),
                graph_round("tree 60/8/10", True, share_of_floor_speed=0.66, idle={"host_gaps": 0.01}),
                graph_round("transformers", False),
            ],
        },
        "decode-bfloat16": {
            "files": {"a": {"plain": {"tokens": 30, "seconds": 2.0, "phases": {"capture": 0.5}}}},
            "equal_texts": {"plain": 1.0},
        },
    }
    found = {claim.what: claim.holds for claim in claims(parts)}
    assert list(found.values()) == [
        False, None, True, None, None, True, False, True, True, None, False, None, True, True, None, None, None, None,
    ]  # fmt: skip
    lines = [claim.line() for claim in claims(parts)]
    assert lines[0].endswith("0.7  at least 0.75: NO") and lines[8].endswith("9  at most 10: yes")
    assert [claim.measured for claim in claims(parts)][-4:] == [50, 15, 20, 1]
    assert Claim("speed", 12.0).line().endswith("12")


def test_what_was_measured_is_collected(tmp_path):
    (tmp_path / "phases.txt").write_text("build 0 70\nkernels 124 90\n")
    (tmp_path / "kernels.json").write_text(json.dumps({"kernels": [kernel("compact_kv", 1.2e-5, rows=8, layers=33)]}))
    (claim,) = collect(tmp_path, tmp_path / "out.json.partial")
    result = json.loads((tmp_path / "out.json.partial").read_text())
    assert not claim.holds and result["claims"][0]["at_most"] == 10 and "kernels" in result
    assert result["phases"][1] == {"phase": "kernels", "status": 124, "seconds": 90}


STUB = """#!/usr/bin/env bash
[[ $* == *bench.gpu.collect* ]] && exec {python} "$@"
[[ $* == "-c import xdist" ]] && exit 1
echo "$@" >> {calls}
[[ -n ${{FAILING:-}} && $* == *$FAILING* ]] && exit 5
[[ -n ${{HANGING:-}} && $* == *$HANGING* ]] && exec sleep 60
exit 0
"""


@pytest.fixture
def suite(tmp_path) -> Callable[..., tuple[int, str, dict[str, Any], list[str]]]:
    """Runs the script with a Python that does nothing: exit status, output, suite.json, commands."""
    if shutil.which("timeout") is None:
        pytest.skip("the script needs coreutils' timeout")
    calls = tmp_path / "calls"
    calls.touch()
    python, tools = tmp_path / "python", tmp_path / "bin"
    python.write_text(STUB.format(python=sys.executable, calls=calls))
    tools.mkdir()
    (tools / "compute-sanitizer").write_text(
        '#!/usr/bin/env bash\nwhile [[ $1 != *python ]]; do shift; done\nexec "$@"\n'
    )
    for file in (python, tools / "compute-sanitizer"):
        file.chmod(0o755)

    def run(**environment: str) -> tuple[int, str, dict[str, Any], list[str]]:
        path = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHON": str(python)}
        command = [str(ROOT / "bench/gpu_suite.sh"), str(tmp_path / "out")]
        done = subprocess.run(
            ["bash", *command], capture_output=True, text=True, timeout=60, env=os.environ | path | environment
        )
        assert done.stderr == ""
        result = json.loads((tmp_path / "out/suite.json").read_text())
        return done.returncode, done.stdout, result, calls.read_text().splitlines()

    return run


CORRECTNESS = {"tests", "memcheck", "racecheck"}


def test_the_script_runs_its_phases(suite):
    status, output, result, commands = suite(SMOLLM2="", QUESTIONS="")
    phases = [phase["phase"] for phase in result["phases"]]
    assert status == 0 and {phase["status"] for phase in result["phases"]} == {0}
    assert phases[:2] == ["build", "kernels-built"] and set(phases[2:5]) == CORRECTNESS
    assert phases[5:] == ["kernels", "rounds-8b", "rounds", "triton"]
    assert output.startswith("Left out: decoding with SmolLM2, because SMOLLM2 (a directory or .gguf file) and")
    assert sum("cuda-again" in command for command in commands) == 2 and not any("-n 8" in c for c in commands)
    assert all("--cuda" not in command for command in commands)


@pytest.mark.parametrize("name", ["a model", "a model.gguf"])
def test_the_script_decodes_what_it_is_given(suite, tmp_path, name):
    """A .gguf file is converted while the tests run, a directory is read as it is."""
    (tmp_path / name).mkdir()
    _, _, result, commands = suite(SMOLLM2=str(tmp_path / name), QUESTIONS=str(tmp_path))
    phases = {phase["phase"] for phase in result["phases"]}
    assert {"decode-bfloat16", "decode-float32"} < phases
    assert ({"convert-bfloat16", "convert-float32"} < phases) == name.endswith(".gguf")
    decoding = [command for command in commands if "bench.bench_decode" in command]
    assert f"{name} heads/" in decoding[0] and "--trees 5/4/1,24/5/4,60/6/10" in decoding[0]


def test_a_phase_that_fails_does_not_end_the_script(suite):
    status, output, result, _ = suite(FAILING="bench.gpu_kernels")
    by_name = {phase["phase"]: phase["status"] for phase in result["phases"]}
    assert status == 1 and by_name["kernels"] == 5 and by_name["rounds"] == 0
    assert "== kernels: exit status 5" in output


def test_without_a_build_the_script_ends(suite):
    status, output, result, commands = suite(FAILING="setup.py")
    assert status == 1 and len(result["phases"]) == 2 and "Without a build nothing can run" in output
    assert len(commands) == 2


@pytest.mark.parametrize(("command", "name"), [("bench.gpu_kernels", "kernels"), ("not triton", "tests")])
def test_a_phase_that_hangs_is_interrupted_and_later_ones_are_left_out(suite, command, name):
    """124: it ended when interrupted, in the background too, where the shell lets jobs ignore that."""
    status, _, result, commands = suite(HANGING=command, SUITE_SECONDS="3")
    by_name = {phase["phase"]: phase["status"] for phase in result["phases"]}
    assert status == 1 and by_name[name] == 124 and by_name["rounds-8b"] == 124
    assert not any("bench.graph_rounds" in command for command in commands)

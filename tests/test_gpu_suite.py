"""The GPU suite's script and what becomes of its results: phases, limits, exit statuses, claims. Needs no GPU."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.gpu.claims import Claim, claims
from bench.gpu.collect import main as collect

ROOT = Path(__file__).resolve().parent.parent


def kernel(name: str, seconds: float, **fields: Any) -> dict[str, Any]:
    return {"name": name, "seconds": seconds, "bytes_seconds": 1e-5, "times_floor": 2.0, "rivals": {}} | fields


def graph_round(name: str, linear: str, **fields: Any) -> dict[str, Any]:
    return {"rounds": name, "linear": linear, "tokens_per_round": 1.0, "eager_seconds": 2e-2} | fields


def test_claims_follow_from_the_parts():
    attention = {"batch": 1, "nodes": 60, "rivals": {"sdpa": {"seconds": 3e-5}, "flex": {"error": "none"}}}
    parts = {
        "kernels": {
            "machine": {},
            "kernels": [
                kernel("tree_attention", 2e-5, context=8192, share_of_bandwidth=0.7, **attention),
                kernel("tree_attention", 2e-5, context=1024, share_of_bandwidth=0.2, batch=1, nodes=60),
                kernel("draft forward", 1.2e-5, weights="bfloat16", rows=10),
                kernel("sample and walk", 41e-6, settings="top-k, top-p", nodes=60),
                kernel("sample and walk", 14e-6, settings="greedy", nodes=60),
                kernel("compact_kv", 9e-6, rows=8, layers=33),
                {"error": "not measured"},
            ],
        },
        "rounds-8b": {
            "machine": {"model": "Llama-3.1-8B"},
            "graph_rounds": [
                graph_round("plain", "torch", share_of_floor_speed=0.79, graph_seconds=5e-3),
                graph_round("tree 60/8/10", "ours", share_of_floor_speed=0.66, idle={"host_gaps": 0.01}),
                graph_round("transformers", "torch"),
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


def claims_of(compute_capability: list[int] | None, *rows: dict[str, Any]) -> dict[str, bool | None]:
    """What the kernels' rows show, measured on a GPU of this capability."""
    facts = {"compute_capability": compute_capability} if compute_capability else {}
    return {claim.what: claim.holds for claim in claims({"kernels": {"machine": facts, "kernels": rows}})}


WARPGROUP = "void eagle::cuda::warpgroup_attention_kernel<__nv_bfloat16, 128>(eagle::TreeAttentionParams)"


@pytest.mark.parametrize(
    ("launched", "holds"),
    [
        ({"kernels": [WARPGROUP, "merge_kernel"]}, True),
        ({"kernels": ["void eagle::cuda::tensor_attention_kernel<__nv_bfloat16, 128, 2>()"]}, False),
    ],
)
def test_hopper_must_run_attention_by_warpgroups(launched, holds):
    shape = {"context": 8192, "batch": 1, "share_of_bandwidth": 0.8}
    tree = kernel("tree_attention", 2e-5, nodes=60, rows_per_key_head=240, head_dim=128, **shape, **launched)
    claim = "tree_attention, nodes 60, context 8192, batch 1: ran warpgroup_attention_kernel"
    assert claims_of([9, 0], tree)[claim] is holds
    unseen = claims_of([9, 0], tree | {"kernels": []})
    assert (
        claim not in unseen
        and unseen[claim.replace("ran warpgroup_attention_kernel", "not profiled, kernels seen")] is None
    )
    chain = tree | {"nodes": 16, "rows_per_key_head": 64}  # so few rows go by mma.sync
    assert not any(
        "ran" in what for what in (*claims_of([9, 0], chain), *claims_of([8, 0], tree), *claims_of(None, tree))
    )


def test_rounds_and_kernels_of_a_gpu_must_be_captured():
    rows = [kernel("linear", 1e-5, rows=rows, captured=captured) for rows, captured in ((1, True), (2, False))]
    assert claims_of([9, 0], *rows) == {"linear, rows 1: captured": True, "linear, rows 2: captured": False}
    assert claims_of(None, *rows) == {}
    rounds = [graph_round("plain", "torch", graph_seconds=1e-2), graph_round("plain", "ours")]
    part = {"machine": {"model": "m", "compute_capability": [9, 0]}, "graph_rounds": rounds}
    part["graph_rounds"].append(graph_round("transformers", "torch"))
    found = {claim.what: claim.holds for claim in claims({"rounds": part}) if claim.holds is not None}
    assert found == {"m, plain: captured": True, "m, plain, our layers: captured": False}


@pytest.mark.parametrize(("difference", "holds"), [(0.004, True), (0.3, False), (float("nan"), False)])
def test_a_wrong_result_shows(difference, holds):
    compared, bare = {"seconds": 1e-5, "difference": difference}, {"seconds": 1e-5}
    rivals = {"torch": compared, "flex": {"error": "none"}, "sdpa": bare}
    row = kernel("linear", 1e-5, product="qkv", rows=10, rivals=rivals)
    assert claims_of([9, 0], row) == {"linear, product qkv, rows 10: difference from torch": holds}


def test_what_was_measured_is_collected(tmp_path, capsys):
    (tmp_path / "phases.txt").write_text("build 0 70\nkernels 124 90\n")
    kernels = {"machine": {}, "kernels": [kernel("compact_kv", 1.2e-5, rows=8, layers=33)]}
    (tmp_path / "kernels.json").write_text(json.dumps(kernels))
    collect(tmp_path, tmp_path / "out.json.partial")
    result = json.loads((tmp_path / "out.json.partial").read_text())
    (claim,) = result["claims"]
    assert not claim["holds"] and claim["at_most"] == 10 and "kernels" in result
    assert capsys.readouterr().out.count("\n") == 1
    assert result["phases"][1] == {"phase": "kernels", "status": 124, "seconds": 90}


STUB = """#!/usr/bin/env bash
[[ $* == *bench.gpu.collect* ]] && exec {python} "$@"
[[ $* == "-c import xdist" || $* == "-c import pytest_timeout" ]] && exit 1
echo "$@${{TORCH_CUDNN_SDPA_DEPRIORITIZED:+, cuDNN last}}" >> {calls}
[[ -n ${{SPILLING:-}} && $* == *setup.py* && -z ${{EAGLE_ALLOW_SPILLS:-}} ]] && echo "spilled to local memory" && exit 5
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


CORRECTNESS = {"tests", "memcheck", "racecheck", "racecheck-wgmma"}


def test_the_script_runs_its_phases(suite):
    status, output, result, commands = suite(SMOLLM2="", QUESTIONS="")
    phases = [phase["phase"] for phase in result["phases"]]
    assert status == 0 and {phase["status"] for phase in result["phases"]} == {0}
    assert phases[:2] == ["build", "kernels-built"] and set(phases[2:6]) == CORRECTNESS
    assert phases[6:] == ["kernels", "rounds-8b", "rounds", "triton"]
    assert output.startswith("Left out: decoding with SmolLM2, because SMOLLM2 (a directory or .gguf file) and")
    assert sum("cuda-again" in command for command in commands) == 3 and not any("-n 8" in c for c in commands)
    assert all("--cuda" not in command for command in commands)


@pytest.mark.parametrize("name", ["a model", "a model.gguf"])
def test_the_script_decodes_what_it_is_given(suite, tmp_path, name):
    """A .gguf file is converted while the tests run, a directory is read as it is."""
    (tmp_path / name).mkdir()
    _, _, result, commands = suite(SMOLLM2=str(tmp_path / name), QUESTIONS=str(tmp_path))
    phases = {phase["phase"] for phase in result["phases"]}
    assert {"decode-bfloat16", "decode-float32"} < phases
    assert ({"convert-bfloat16", "convert-float32"} < phases) == name.endswith(".gguf")
    beside = {"bench.graph_rounds", "bench.bench_decode"}
    assert all(command.endswith("cuDNN last") == any(name in command for name in beside) for command in commands)
    decoding = [command for command in commands if "bench.bench_decode" in command]
    assert f"{name} heads/" in decoding[0] and "--trees 5/4/1,24/5/4,60/6/10" in decoding[0]


def test_a_phase_that_fails_does_not_end_the_script(suite):
    status, output, result, _ = suite(FAILING="bench.gpu_kernels")
    by_name = {phase["phase"]: phase["status"] for phase in result["phases"]}
    assert status == 1 and by_name["kernels"] == 5 and by_name["rounds"] == 0
    assert "== kernels: exit status 5" in output


def test_where_tests_fail_some_run_again_without_early_launches(suite):
    _, _, result, commands = suite(FAILING="not triton and not exact_bits")
    by_name = {phase["phase"]: phase["status"] for phase in result["phases"]}
    assert by_name["tests"] == 5 and by_name["no-early-launch"] == 0
    assert any("back_to_back" in command for command in commands)


def test_without_a_build_the_script_ends(suite):
    status, output, result, commands = suite(FAILING="setup.py")
    assert status == 1 and len(result["phases"]) == 2 and "Without a build nothing can run" in output
    assert len(commands) == 2


def test_kernels_that_spill_are_better_than_none(suite):
    status, _, result, _ = suite(SPILLING="yes")
    by_name = {phase["phase"]: phase["status"] for phase in result["phases"]}
    assert status == 1 and by_name["build"] == 5 and by_name["build-with-spills"] == 0 and by_name["kernels"] == 0


@pytest.mark.parametrize(("command", "name"), [("bench.gpu_kernels", "kernels"), ("not triton", "tests")])
def test_a_phase_that_hangs_is_interrupted_and_later_ones_are_left_out(suite, command, name):
    """124: it ended when interrupted, in the background too, where the shell lets jobs ignore that."""
    status, _, result, commands = suite(HANGING=command, SUITE_SECONDS="3")
    by_name = {phase["phase"]: phase["status"] for phase in result["phases"]}
    assert status == 1 and by_name[name] == 124 and by_name["rounds-8b"] == 124
    assert not any("bench.graph_rounds" in command for command in commands)

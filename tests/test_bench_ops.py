"""The op benchmarks: every rival computes the same thing, and tables, noise and comparisons follow from the samples."""

import dataclasses
import json

import pytest
import torch
from typer.testing import CliRunner

from bench.__main__ import app
from bench.case import OPS
from bench.compare import changes
from bench.measure import Plan, Row, all_ops, cases
from bench.results_file import ceilings_of, read_json, rounded, write_json
from bench.shapes import sizes
from bench.spread import percentile, spread
from bench.table import figures, lead, markdown
from bench.timing import Samples, Stopwatch, sample_in_turns
from eagle_decoding.floor.ceilings import Ceilings
from eagle_decoding.numerics.cases import Maker

SMALL = dataclasses.replace(
    sizes("SmolLM2-135M", batch=2, context_len=40, num_nodes=12),
    hidden_size=72,
    intermediate_size=96,
    num_layers=2,
    vocab_size=300,
    draft_vocab_size=200,
)
RANDOM = {"gumbel_noise", "sample_children", "verify_rejection"}  # torch draws other noise
CEILINGS = Ceilings(threads=2, dtype="bfloat16", copy_bandwidth=1e9, read_bandwidth=2e9, flops_per_second=1e12)


def result(seconds: float, rival: str = "cpp") -> dict:
    """A result file's content: one case, 10 samples around `seconds`, and a reference ten times slower."""
    samples = [seconds * (1 + step / 100) for step in range(10)]
    by_rival = {rival: Samples(samples, samples), "reference": Samples([10 * seconds], [10 * seconds])}
    row = Row("linear", "tiny", "SmolLM2-135M", 2, 4000, 0, by_rival)
    ceilings = [vars(CEILINGS), vars(CEILINGS) | {"read_bandwidth": 4e9}, vars(CEILINGS)]
    machine = {"label": "a machine", "commit": "abc"}
    return {"machine": machine, "ceilings": ceilings, "rows": [dataclasses.asdict(row)]}


@pytest.mark.parametrize("op", all_ops())
def test_rivals_compute_the_same(op):
    for variant in OPS[op].variants:
        rivals, outputs = {}, {}
        for name in ("cpp", "reference", "torch"):
            case = OPS[op].case(variant, SMALL, Maker(torch.float32, "cpu"))  # anew: some ops write to their arguments
            assert case.bytes > 0 and case.flops >= 0
            rivals = dict(OPS[op].rivals(case, "cpu"))
            returned = rivals[name]()
            written = [case.arguments[0][0]] if returned is None else []
            outputs[name] = written or (list(returned) if isinstance(returned, tuple | list) else [returned])
        assert list(rivals) == ["cpp", "reference", "torch", "compiled"]
        if op not in RANDOM and variant in ("", "fp8", "greedy", "tree", "tree, fp8", "root only", "pages of 16"):
            for ours, plain, torchs in zip(*outputs.values(), strict=False):
                assert_equal(ours, plain)
                if op != "commit_step":  # torch's way leaves padding rows as they come
                    assert_equal(ours, torchs)


@pytest.mark.parametrize("op", all_ops())
def test_cases_fit_the_smallest_tree(op):
    for variant in OPS[op].variants:
        case = OPS[op].case(variant, dataclasses.replace(SMALL, num_nodes=1), Maker(torch.float32, "cpu"))
        dict(OPS[op].rivals(case, "cpu"))["cpp"]()


def assert_equal(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one.double(), other.double().view(one.shape), rtol=1e-4, atol=1e-4)


def test_every_case_of_an_op_is_planned_once():
    all_ops()
    plan = Plan(["topk_logprobs", "tree_attention"], ["SmolLM2-135M"], [1, 2], [10, 20], [8, 12], [1])
    planned = [(benchmark.op, label) for benchmark, _, _, _, label in cases(plan)]
    assert len(set(planned)) == len(planned)
    assert [op for op, _ in planned] == ["topk_logprobs"] * 2 + ["tree_attention"] * 24  # 8 and 12 nodes: one topk


def test_samples_are_taken_in_turns():
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    samples = sample_in_turns(calls, Stopwatch("cpu"), repeats=3)
    turns = [name for before, name in zip(["", *order], order, strict=False) if name != before]
    assert turns == ["a", "b"] * 5  # warm-up, estimate, three repeats
    assert all(len(s.warm) == len(s.cold) == 3 for s in samples.values())


def test_percentiles_interpolate():
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([0, 10], 0.1) == pytest.approx(1)
    whole = spread(list(range(1, 12)))
    assert (whole.median, whole.low, whole.high) == (6, 2, 10)
    assert whole.noise == pytest.approx(4 / 6)
    with pytest.raises(ValueError, match="at least one sample"):
        spread([])


def test_figures_follow_from_bytes_flops_and_seconds():
    samples = {"cpp": Samples([1e-6], [4e-6]), "torch": Samples([1e-6], [8e-6])}
    row = Row("linear", "tiny", "m", 2, bytes=4000, flops=2_000_000, samples=samples)
    f = figures(row, CEILINGS)
    assert f.bytes_per_second == pytest.approx(1e9) and f.flops_per_second == pytest.approx(5e11)
    assert f.share == pytest.approx(0.5)  # floor: 4000 bytes / 2 GB/s = 2 us = 2 Mflop / 1 Tflop/s
    assert f.ahead == {"torch": pytest.approx(2)}
    assert lead([0.5, 2, 3]) == "2 of 3, 0.50 to 3.00"


def test_compare_marks_only_what_the_noise_does_not_explain():
    def verdicts(after: float) -> list[str]:
        return [change.verdict for change in changes(result(1e-6), result(after)) if change.rival == "cpp"]

    assert verdicts(1.05e-6) == [""]
    assert verdicts(1.2e-6) == ["slower"]
    assert verdicts(0.8e-6) == ["faster"]
    other = result(1e-6)
    other["rows"][0]["case"] = "another"
    with pytest.raises(ValueError, match="no case in common"):
        changes(result(1e-6), other)


def test_result_files_round_trip_and_print(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(result(1e-6), path)
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    read = read_json(path, "rows", "ceilings")
    assert ceilings_of(read)[2].read_bandwidth == 2e9  # the median of the passes
    assert "| `linear` | tiny | 4 |" in markdown(read)
    write_json(result(2e-6), tmp_path / "b.json")
    shown = CliRunner().invoke(app, ["compare", str(path), str(tmp_path / "b.json")])
    assert shown.exit_code == 0 and "2 of 2 timings differ" in shown.output
    assert rounded({"a": [1.23456, 7]}) == {"a": [1.235, 7]}


def test_wrong_files_and_options_end_in_one_sentence(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"x": 1}))
    with pytest.raises(ValueError, match="has no rows"):
        read_json(path, "rows")
    path.write_text("nonsense")
    with pytest.raises(ValueError, match="is not JSON"):
        read_json(path, "rows")
    for wrong in (["--ops", "nope"], ["--models", "GPT-2"], ["--batch", "x"]):
        run = CliRunner().invoke(app, wrong)
        assert run.exit_code == 1


def test_a_small_run_writes_every_sample(tmp_path):
    out = tmp_path / "ops.json"
    options = ["--ops", "verify_tree,silu_mul", "--models", "SmolLM2-135M", "--nodes", "8", "--threads", "1"]
    options += ["--without", "compiled", "--passes", "2", "--repeats", "1", "--out", str(out)]
    run = CliRunner().invoke(app, options)
    assert run.exit_code == 0, run.output
    rows = read_json(out, "machine", "plan", "ceilings", "rows")["rows"]
    assert [row["op"] for row in rows] == ["verify_tree", "silu_mul"]
    assert set(rows[0]["samples"]) == {"cpp", "reference", "torch"}
    assert all(len(samples["cold"]) == 2 for row in rows for samples in row["samples"].values())

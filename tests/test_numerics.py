"""eagle-decoding numerics: a report of every backend that can run, and a planted error breaks it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import eagle_kernels
from eagle_decoding.cli import app
from eagle_decoding.numerics import audit
from eagle_decoding.numerics.measures import Finding, measure_integers, measure_variation

OPS = ("rms_norm", "verify_tree", "sample_tokens")


@pytest.fixture(autouse=True)
def few_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    every = audit.op_inputs
    monkeypatch.setattr(
        audit, "op_inputs", lambda *sizes: {op: value for op, value in every(*sizes).items() if op in OPS}
    )
    monkeypatch.setattr(audit, "variations", lambda device: iter(()))
    monkeypatch.setattr(audit, "runnable", lambda op, device, dtype: ["cpp", "reference"])


def measured(report: Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["numerics", "--report", str(report)])
    return result.exit_code, report.read_text()


def test_report_of_sound_ops(tmp_path):
    code, report = measured(tmp_path / "report.md")
    assert code == 0 and "broken" not in report
    rows = [line.split(" | ")[0:2] for line in report.splitlines() if line.startswith("| ")]
    assert {(op.strip("| "), backend) for op, backend in rows[1:]} == {
        (op, backend) for op in OPS for backend in ("cpu", "reference", "cuda")
    }


@pytest.mark.parametrize("op, error", [("rms_norm", 1e-4), ("verify_tree", 1), ("sample_tokens", 1)])
def test_a_planted_error_breaks_it(tmp_path, monkeypatch, op, error):
    sound = getattr(eagle_kernels, op)

    def broken(*arguments: object, backend: str | None = None) -> Tensor | tuple[Tensor, ...]:
        result = sound(*arguments, backend=backend)
        if backend != "cpp":
            return result
        if isinstance(result, Tensor):
            return result + error if op == "rms_norm" else result.flip(0)
        return *result[:-1], result[-1] + error

    monkeypatch.setattr(eagle_kernels, op, broken)
    code, report = measured(tmp_path / "report.md")
    assert code == 1
    assert {line.split(" | ")[0] for line in report.splitlines() if "**broken**" in line} == {f"| {op}"}


def test_ties_are_excused_and_biased_draws_are_not():
    actual, expected = torch.tensor([3, 5]), torch.tensor([3, 4])
    for gap, holds in ((1e-7, True), (1e-3, False)):
        finding = Finding("op", "cpp", "float32", "output")
        measure_integers(finding, actual, expected, torch.tensor([0.0, gap], dtype=torch.float64))
        assert finding.holds == holds and finding.mismatches == 1
    law = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    for drawn, holds in ((law, True), (torch.tensor([0.45, 0.35, 0.2], dtype=torch.float64), False)):
        finding = Finding("op", "cpp", "float32", "law")
        measure_variation(finding, torch.multinomial(drawn, 20_000, replacement=True), law)
        assert finding.holds == holds


def test_an_unknown_device_is_refused():
    result = CliRunner().invoke(app, ["numerics", "--device", "foo"])
    assert result.exit_code == 1 and "--device foo is unknown" in result.stderr

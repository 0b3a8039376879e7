"""What a run tells: bar, JSON lines, TensorBoard scalars and training curves."""

import builtins
import errno
import io
import json
from itertools import pairwise

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from eagle_decoding.figure import new_figure
from eagle_decoding.train.cli import app
from eagle_decoding.train.config import ConfigError
from eagle_decoding.train.errors import DataError
from eagle_decoding.train.plot import plot_runs, read_log
from eagle_decoding.train.progress import RunLog


def report(kind, step, tau=1.5):
    figures = {"loss": [3.0, 3.5], "accuracy": [0.4, 0.3], "scored": [1.0, 0.9], "survival": [0.4, 0.1]}
    place = {"kind": kind, "step": step, "tokens": 100 * step, "seconds": 2.0 * step, "tau_sim": tau}
    return place | figures | ({"done": step / 20, "lr": 1e-3, "grad_norm": 0.7} if kind == "train" else {})


def write_run(folder, tau=1.5):
    screen = io.StringIO()
    with RunLog(folder, Console(file=screen, width=120, force_terminal=True)) as log:
        log(report("train", 5))
        log(report("eval", 5))
        log({"kind": "note", "text": "The checkpoint was not written."})
        log(report("train", 10, tau))
        log(report("eval", 10, tau))
    return screen.getvalue()


def test_the_screen_shows_speed_loss_acceptance_survival_and_notes(tmp_path):
    screen = write_run(tmp_path)
    for words in ("50 tokens/s", "loss 3.000", "tau_sim 1.500", "accepted if reached", "0.300", "survival", "0.100"):
        assert words in screen, words
    assert "held out" in screen and "The checkpoint was not written." in screen and "50.0%" in screen
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert kinds == ["train", "eval", "note", "train", "eval"]


def test_a_log_on_a_file_shows_nothing_before_the_first_figures_and_ends_its_last_line(tmp_path):
    screen = io.StringIO()
    with RunLog(tmp_path, Console(file=screen, width=120)) as log:
        assert screen.getvalue() == ""
        log(report("train", 5))
    assert "50 tokens/s" in screen.getvalue() and screen.getvalue().endswith("\n")
    with RunLog(tmp_path, Console(file=screen)):
        before = screen.getvalue()
    assert screen.getvalue() == before


def test_a_full_disk_costs_a_log_line_only(tmp_path):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            self.flush()

    screen = io.StringIO()
    with RunLog(tmp_path, Console(file=screen, width=120)) as log:
        log._file = Full()
        log(report("train", 5))
    assert "could not be written: [Errno 28] No space left on device" in screen.getvalue()


def test_tensorboard_scalars_by_step(tmp_path):
    with RunLog(tmp_path, Console(file=io.StringIO()), tensorboard=True) as log:
        log(report("train", 5))
        log(report("eval", 10, 1.75))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"train/loss/1", "train/survival/2", "train/lr", "eval/tau_sim"} <= set(events.Tags()["scalars"])
    (scalar,) = events.Scalars("eval/tau_sim")
    assert (scalar.step, scalar.value) == (10, 1.75)


def test_tensorboard_without_the_package_is_one_sentence(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith(("tensorboard", "torch.utils.tensorboard")):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"needs the package tensorboard: run `pip install"):
        RunLog(tmp_path, Console(file=io.StringIO()), tensorboard=True)


def test_curves_of_several_runs(tmp_path):
    write_run(tmp_path / "first")
    write_run(tmp_path / "second", 1.75)
    write_run(tmp_path / "second", 2.0)
    reports = read_log(tmp_path / "second")
    assert [(r["kind"], r["step"], r["tau_sim"]) for r in reports if r["step"] == 10] == [
        ("train", 10, 2.0),
        ("eval", 10, 2.0),
    ]
    picture = tmp_path / "curves.svg"
    result = CliRunner().invoke(
        app, ["train-plot", str(tmp_path / "first"), str(tmp_path / "second" / "log.jsonl"), "--out", str(picture)]
    )
    assert result.exit_code == 0, result.output
    assert "</svg>" in picture.read_text()


def test_bars_of_survival_stand_side_by_side(tmp_path, monkeypatch):
    """Eight runs, two of which share the colour of another: none hides another, and depths stay apart."""
    figure = new_figure(13, 4)
    monkeypatch.setattr("eagle_decoding.train.plot.new_figure", lambda width, height: figure)
    for run in range(8):
        write_run(tmp_path / str(run))
    plot_runs([tmp_path / str(run) for run in range(8)], tmp_path / "curves.svg")
    bars = sorted(figure.axes[2].patches, key=lambda bar: bar.get_x())
    assert [bar.get_height() for bar in bars] == [0.4] * 8 + [0.1] * 8
    assert all(one.get_x() + one.get_width() < other.get_x() for one, other in pairwise(bars))
    assert [round(bar.get_x() + bar.get_width() / 2) for bar in bars] == [1] * 8 + [2] * 8
    assert len({(bar.get_edgecolor(), bar.get_facecolor()) for bar in bars}) == 8


def test_logs_that_cannot_be_drawn(tmp_path):
    with pytest.raises(DataError, match="no training log at"):
        plot_runs([tmp_path], tmp_path / "x.svg")
    for damaged in ('{"kin', '{"step": 3}', "5", '{"kind": "eval"}'):
        (tmp_path / "log.jsonl").write_text('{"kind": "note"}\n' + damaged + "\n")
        with pytest.raises(DataError, match=r"Line 2 of .* is no report of a run \(.*\); remove it"):
            read_log(tmp_path)


def test_a_torn_last_line_is_passed_over_and_taken_away(tmp_path):
    """As a kill leaves it: the next run's lines must not continue it."""
    write_run(tmp_path)
    log = tmp_path / "log.jsonl"
    whole = log.read_text()
    log.write_text(whole + '{"kind": "tra')
    before = read_log(tmp_path)
    with RunLog(tmp_path, Console(file=io.StringIO())) as report:
        report({"kind": "note", "text": "went on"})
    assert read_log(tmp_path) == before
    assert log.read_text() == whole + json.dumps({"kind": "note", "text": "went on"}) + "\n"

"""Every benchmark as a command: its help says what it is for, and a wrong path ends it in one sentence."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bench.command import command

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "bench").rglob("*.py")
    if re.search(r"^    command\.run\(main\)$", path.read_text(), re.MULTILINE)
)


def test_no_command_is_left_to_typer_alone():
    assert len(MODULES) == 14
    assert [path for path in (ROOT / "bench").rglob("*.py") if "typer.run(" in path.read_text()] == []


@pytest.mark.parametrize("module", MODULES)
def test_the_docstring_of_every_module_is_its_help(module):
    imported = importlib.import_module(module)
    shown = CliRunner().invoke(command(imported.main), ["--help"]).stdout
    assert " ".join(imported.__doc__.split()[:5]) in " ".join(shown.split())


def called(module: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_a_module_started_by_name_shows_its_docstring():
    shown = called("bench.report", "--help")
    assert shown.returncode == 0 and "Every table of a set of result files as one markdown document" in shown.stdout


@pytest.mark.parametrize("call", [("bench.report", "o.md", "nowhere.json"), ("bench.gpu.collect", "nowhere", "o.json")])
def test_a_wrong_path_ends_it_in_one_sentence(call, tmp_path):
    module, *paths = call
    shown = called(module, *(str(tmp_path / path) for path in paths))
    assert shown.returncode == 1
    assert shown.stderr.startswith("Error: ") and len(shown.stderr.splitlines()) == 1


def main(file: str) -> None:
    if file == "exit":
        raise typer.Exit(3)
    raise {"value": ValueError, "os": OSError, "bug": KeyError}[file]("It is wrong.\nMore.")


@pytest.mark.parametrize(("file", "code"), [("value", 1), ("os", 1), ("exit", 3)])
def test_errors_of_the_caller_are_one_sentence(file, code):
    result = CliRunner().invoke(command(main), [file])
    assert result.exit_code == code and result.stderr == ("Error: It is wrong.\n" if code == 1 else "")


def test_errors_of_ours_keep_their_traceback():
    assert isinstance(CliRunner().invoke(command(main), ["bug"]).exception, KeyError)
    assert __doc__.partition(":")[0] in CliRunner().invoke(command(main), ["--help"]).stdout

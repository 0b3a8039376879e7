"""Result files: whole or not there, and what they say of the machine and the command that made them."""

import errno
import json
import os
import socket
from pathlib import Path

import pytest

from bench.results_file import write_json
from eagle_decoding.files import DiskFullError, write_text, write_whole
from eagle_decoding.machine import command_line, machine

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["/opt/python3", "-m", "bench", "--out", "/home/someone/ops.json"], "python3 -m bench --out ops.json"),
        (["/v/bin/python", "/v/bin/eagle-decoding", "eval", "heads/mine"], "eagle-decoding eval heads/mine"),
        (["python", "x.py", "--draft=eagle-3=/data/my head/"], "x.py '--draft=eagle-3=my head'"),
        (["python", "x.py", "suffix+/data/head,/b/c"], "x.py suffix+head,c"),
        (["python", "x.py", "auto:suffix+/data/head", "8/4/4"], "x.py auto:suffix+head 8/4/4"),
        (["python"], "python"),
    ],
)  # fmt: skip
def test_the_command_is_shown_as_given_without_outer_folders(words, shown):
    assert command_line(words) == shown


def test_the_machine_is_told_without_names_and_folders():
    facts = machine("cpu")
    assert {"date", "command", "processor", "threads", "cores", "torch", "gpu", "transformers", "label"} <= facts.keys()
    text = json.dumps(facts)
    assert socket.gethostname() not in text and str(Path.home()) + "/" not in text and str(ROOT) not in text


def test_every_writer_of_a_result_says_what_made_it():
    """Each file with a call of write_json, and the two of the package that write JSON results, name the machine."""
    package = [ROOT / "python/eagle_decoding" / name for name in ("train/results.py", "bench/run.py")]
    writers = [path for path in (ROOT / "bench").rglob("*.py") if " write_json(" in path.read_text()]
    silent = {path.name for path in writers + package if '"machine":' not in path.read_text()}
    assert silent == {"__main__.py", "results_file.py"}  # measure.py makes the first one's result


def test_files_are_whole_or_not_there(tmp_path):
    path = tmp_path / "folder" / "result.json"
    write_json({"a": 1.23456789}, path)
    assert json.loads(path.read_text()) == {"a": 1.235}

    def fails(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskFullError, match=r"The disk is full: .*result\.json was not written; make room and run"):
        write_whole(path, fails)
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert json.loads(path.read_text()) == {"a": 1.235} and list(path.parent.iterdir()) == [path]

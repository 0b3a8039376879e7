"""eagle-decoding bench: the table's arithmetic, resuming, and the whole command on tiny models."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from command_line import run

from eagle_decoding.bench.journal import Journal
from eagle_decoding.bench.measure import CHECK, Key, Record
from eagle_decoding.bench.methods import catalogue, choose
from eagle_decoding.bench.picture import draw, saved_rows
from eagle_decoding.bench.questions import read_questions
from eagle_decoding.bench.summary import MEAN, complete, summarise
from eagle_decoding.generation import until_end
from eagle_decoding.terminal.models import device_named

METHODS = ("transformers", "plain", "suffix")


def record(run: int, file: str, method: str, tokens: int, seconds: float, **fields) -> Record:
    key = Key(run, 0.0, file, 0, method)
    return Record(key, method, tokens, seconds, 0.1, **{"rounds": 0, "accepted": 0, "text": "same", **fields})


def test_medians_spread_and_means():
    seconds = {"transformers": (4.0, 4.0, 4.0), "plain": (2.0, 2.0, 4.0), "suffix": (1.0, 2.0, 1.0)}
    records = [
        record(run, file, method, 20 if file == "a" else 40, taken, rounds=10, accepted=5)
        for method, by_run in seconds.items()
        for run, taken in enumerate(by_run)
        for file in ("a", "b")
    ]
    rows = {(row.method, row.file): row for row in summarise(records)}
    suffix = rows["suffix", "a"]
    assert suffix.tokens_per_second == 20
    assert (suffix.vs_transformers.median, suffix.vs_transformers.low, suffix.vs_transformers.high) == (4, 2, 4)
    assert (suffix.vs_plain.median, suffix.vs_plain.low, suffix.vs_plain.high) == (2, 1, 4)
    assert suffix.tokens_per_round == 1.5 and suffix.same_text == 1
    assert rows["suffix", MEAN].tokens_per_second == 30
    assert rows["plain", MEAN].vs_plain.median == 1


def test_texts_are_compared_with_plain_decoding():
    records = [
        record(run, "a", m, 8, 1.0, text=f"{m}{run}" if m == "suffix" else "x") for run in (0, 1) for m in METHODS
    ]
    records[2].text = "x"
    rows = {(row.method, row.file): row.same_text for row in summarise(records)}
    assert rows["suffix", "a"] == 0.5 and rows["transformers", "a"] == 1


def test_greedy_texts_in_fp32_are_compared_with_transformers():
    records = [record(0, "a", m, 8, 1.0, text="timed") for m in METHODS]
    records += [record(CHECK, "a", m, 8, 1.0, text="other" if m == "suffix" else "x") for m in METHODS]
    rows = {(row.method, row.file): row.identical for row in summarise(records)}
    assert rows["suffix", "a"] == rows["suffix", MEAN] == 0 and rows["plain", "a"] == 1
    assert all(row.identical is None and row.tokens_per_second == 8 for row in summarise(records[:3]))


def test_what_can_be_compared_of_an_unfinished_benchmark():
    keys = [Key(run, 0.0, "a", question, m) for run in (0, 1) for question in (0, 1) for m in METHODS]
    records = {key: Record(key, key.method, 8, 1.0, 0.1, 0, 0, "x") for key in keys}
    assert [r.key for r in complete(dict(list(records.items())[:5]), keys)] == keys[:3]  # the second question is open
    assert [r.key for r in complete(dict(list(records.items())[:11]), keys)] == keys[:6]  # the second run is
    assert [r.key for r in complete(records, keys)] == keys
    assert complete({}, keys) == []


def test_texts_end_with_the_end_token():
    assert until_end([5, 6, 2, 7, 2], {2, 9}) == [5, 6, 2]
    assert until_end([5, 6], {2}) == [5, 6]


def test_a_journal_resumes(tmp_path):
    settings = {"target": "t", "threads": 1}
    journal = Journal(tmp_path, settings)
    first, second = record(0, "a", "plain", 5, 1.0), record(0, "a", "suffix", 5, 0.5)
    journal.add(first)
    journal.add(second)
    whole = journal.path.read_text()
    journal.path.write_text(whole[:-9])  # killed in the middle of a line
    resumed = Journal(tmp_path, settings)
    assert resumed.known(first.key, "plain") and not resumed.known(second.key, "suffix")
    resumed.add(second)
    assert journal.path.read_text() == whole
    with pytest.raises(ValueError, match="measured as plain, not other"):
        resumed.known(first.key, "other")
    with pytest.raises(ValueError, match="with threads 1, not 2"):
        Journal(tmp_path, {**settings, "threads": 2})


@pytest.mark.parametrize(
    ("number", "damaged", "remedy"),
    [
        (1, '{"threads', "delete the file"),
        (1, "5", "delete the file"),
        (2, '{"key', "delete the line, which is then measured again"),
        (3, '{"key": 5}', "delete the line, which is then measured again"),
    ],
)
def test_a_damaged_line_of_the_journal_is_named(tmp_path, number, damaged, remedy):
    journal = Journal(tmp_path, {"threads": 1})
    for method in ("plain", "suffix"):
        journal.add(record(0, "a", method, 5, 1.0))
    lines = journal.path.read_text().splitlines()
    lines[number - 1] = damaged
    journal.path.write_text("".join(line + "\n" for line in lines))
    with pytest.raises(ValueError, match=rf"Line {number} of .*measurements\.jsonl is damaged \(.*\): {remedy}"):
        Journal(tmp_path, {"threads": 1})


def test_choosing_methods():
    specs = catalogue({"eagle-3": "heads/x"})
    assert specs["suffix+eagle-3"] == "suffix+heads/x" and specs["auto:suffix+eagle-3"] == "auto:suffix+heads/x"
    assert list(choose("suffix", specs)) == ["transformers", "plain", "suffix"]
    assert choose("all", specs) == specs
    static_first = catalogue({"eagle-1": "static:heads/x", "eagle-2": "heads/x"})
    assert static_first["suffix+eagle-2"] == "suffix+heads/x" and "suffix+eagle-1" not in static_first
    with pytest.raises(ValueError, match="--methods sufix is unknown, choose from: all, transformers"):
        choose("sufix", specs)


def test_questions_are_checked(tmp_path):
    with pytest.raises(ValueError, match="question file in"):
        read_questions(tmp_path, 3)
    (tmp_path / "a.jsonl").write_text('{"turns": ["one", "more"]}\n\n{"turns": ["two"]}\n{"turns": ["three"]}\n')
    assert read_questions(tmp_path, 2) == {"a": ["one", "two"]}
    (tmp_path / "b.jsonl").write_text('{"turns": []}\n')
    with pytest.raises(ValueError, match="question 1 is not a JSON object"):
        read_questions(tmp_path, 2)


@pytest.fixture
def questions(tmp_path) -> Path:
    folder = tmp_path / "questions"
    folder.mkdir()
    for name in ("maths", "summary"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"turns": ["w13 w14 w15 w13 w14"]}) + "\n")
    return folder


def test_the_whole_command(saved, questions, tmp_path):
    """Every method on a tiny model in fp32: all texts alike, four files written; again: nothing is measured twice."""
    out = tmp_path / "out"
    target, head = saved[1], saved[3]
    command = ["bench", "--target", target, "--draft", f"eagle-3={head}", "--dtype", "float32", "--device", "cpu"]
    command += ["--data", str(questions), "--out", str(out), "--runs", "1", "--max-new-tokens", "5", "--prompts", "1"]
    shown = run(*command, "--minutes", "0.0001")
    assert shown.code == 1 and "raise --minutes" in " ".join(shown.err.split())
    shown = run(*command)
    assert shown.code == 0, shown.err
    assert "Temperature 0" in shown.out and "Temperature 1" in shown.out
    assert "1.00x [1.00, 1.00]" in shown.out and "greedy fp32" in shown.out  # in 80 columns nothing is cut off
    rows = list(csv.DictReader((out / "table.csv").open()))
    methods = {row["method"] for row in rows}
    assert {"transformers", "transformers prompt lookup", "plain", "lookahead", "auto:suffix+eagle-3"} <= methods
    assert {float(row["identical"]) for row in rows} == {1}
    for row in rows:
        if row["temperature"] == "0.0" or "transformers" not in row["method"]:
            assert float(row["same_text"]) == 1, row
    facts = json.loads((out / "table.json").read_text())["facts"]
    assert facts["runs"] == 1 and facts["target"] == Path(target).name and facts["machine"]["command"]
    assert str(Path(target).parent) not in json.dumps(facts)
    assert (out / "table.png").read_bytes().startswith(b"\x89PNG")
    assert draw(saved_rows(out / "table.json")) == (out / "table.png").read_bytes()
    lines = (out / "measurements.jsonl").read_text()
    again = run(*command, "--minutes", "0.0001")
    assert again.code == 0 and "Out of time" not in again.err
    assert (out / "measurements.jsonl").read_text() == lines


def test_other_files_are_not_resumed_and_long_questions_are_refused(saved, questions, tmp_path):
    head = tmp_path / "head"
    shutil.copytree(saved[3], head)
    command = ["bench", "--target", saved[1], "--draft", f"h={head}", "--dtype", "float32", "--device", "cpu"]
    command += ["--data", str(questions), "--methods", "h", "--runs", "1", "--temperatures", "0"]
    for tokens in ("256", "300"):
        shown = run(*command, "--out", str(tmp_path / tokens), "--max-new-tokens", tokens)
        assert shown.code == 1 and "shorten it or lower --max-new-tokens" in " ".join(shown.err.split())
    command += ["--out", str(tmp_path / "out"), "--max-new-tokens", "4"]
    assert run(*command).code == 0
    fields = head / "config.json"
    fields.write_text(fields.read_text() + "\n")
    shown = run(*command)
    assert shown.code == 1 and "give the draft another name" in " ".join(shown.err.split())
    (questions / "maths.jsonl").write_text(json.dumps({"turns": ["w5"]}) + "\n")
    shown = run(*command)
    assert shown.code == 1 and "with questions" in " ".join(shown.err.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--draft", "heads/x"), "must be NAME=SOURCE"),
        (("--temperatures", "hot"), "not a comma-separated list of numbers"),
        (("--methods", "magic"), "--methods magic is unknown"),
        (("--draft-dtype", "int4"), "--draft-dtype int4 is unknown, choose one of float8_e4m3fn."),
    ],
)
def test_wrong_arguments_become_one_sentence(questions, tmp_path, arguments, sentence):
    shown = run("bench", "--data", str(questions), "--out", str(tmp_path / "o"), "--target", "./t", *arguments)
    assert shown.code == 1 and sentence in " ".join(shown.err.split())


@pytest.mark.parametrize("option", ["--runs", "--prompts", "--max-new-tokens", "--threads"])
def test_numbers_below_one_are_refused(option):
    shown = run("bench", "--data", "d", "--out", "o", option, "0")
    assert shown.code == 2 and f"Invalid value for '{option}'" in shown.err


def test_no_minutes_are_no_lack_of_a_limit(saved, questions, tmp_path):
    command = ("bench", "--data", str(questions), "--out", str(tmp_path / "o"), "--methods", "plain", "--prompts", "1")
    shown = run(*command, *saved[:2], "--dtype", "float32", "--max-new-tokens", "4", "--minutes", "0")
    assert shown.code == 1 and "0 minutes are too few" in shown.err


def test_devices_are_named_or_found(monkeypatch):
    for available, found in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr("torch.cuda.is_available", lambda available=available: available)
        assert device_named(None) == found and device_named("cpu") == "cpu"
    with pytest.raises(ValueError, match="--device cuda needs a GPU"):
        device_named("cuda")
    for unknown in ("tpu", "cuda:one", "cpu:0"):
        with pytest.raises(ValueError, match=f"--device {unknown} is unknown, choose cpu, cuda or cuda:NUMBER"):
            device_named(unknown)


def test_a_gpu_is_named_by_its_number(monkeypatch):
    current = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", current.append)
    assert device_named("cuda:1") == device_named("cuda") == "cuda" and current == [1]
    with pytest.raises(ValueError, match="--device cuda:2 is not there: 2 GPUs are, counted from 0"):
        device_named("cuda:2")

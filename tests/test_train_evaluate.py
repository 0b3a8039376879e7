"""A tiny head from nothing: regenerate, capture, train, export; then eval and the comparison with training."""

import json
from dataclasses import replace

import pytest
import torch
from chat_target import chat_target
from typer.testing import CliRunner

from eagle_decoding.cli import app
from eagle_decoding.config import TreeConfig
from eagle_decoding.stats import Stats
from eagle_decoding.train.acceptances import Acceptances, mean_over_files, summary
from eagle_decoding.train.agreement import Agreement, compare, rounds_of
from eagle_decoding.train.errors import DataError
from eagle_decoding.train.evaluate import arms
from eagle_decoding.train.results import Results

SETTINGS = {"target": "t", "max_new_tokens": 8}


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def must(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output + result.stderr
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a target, prompts, a training run and the head that it exported."""
    folder = tmp_path_factory.mktemp("walk")
    target = chat_target(folder / "target")
    letters = "abcdefghijkl"
    prompts = [{"prompt": f"{a} {b}"} for a in letters for b in letters[::3]]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    rows = folder / "rows.safetensors"
    shape = ("--target", target, "--dtype", "float32", "--max-new-tokens", 40, "--max-length", 100)
    must("regenerate", *shape, "--greedy", 1.0, "--out", rows, folder / "prompts.jsonl")
    (folder / "run.yaml").write_text(
        f"target: {target}\nout: {folder / 'run'}\n"
        f"data: {{tokens: [{rows}], features: {folder / 'features'}, held_out: 0.2, pack_tokens: 200}}\n"
        "unroll: {steps: 4}\noptim: {lr: 1.0e-2, epochs: 10}\nlog: {eval_every: 1000, save_every: 1000}\n"
    )
    must("capture", folder / "run.yaml")
    must("train", folder / "run.yaml")
    must("export", folder / "run", folder / "head", "--dtype", "float32")
    return folder


def test_eval_measures_every_file_and_resumes(place, tmp_path):
    for name, turns in (("one", ["a c", "b"]), ("two", ["d f"])):
        rows = [{"turns": [turn, "not asked"]} for turn in turns]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out, plot = tmp_path / "eval.json", tmp_path / "plots" / "survival.png"
    arguments = ["eval", place / "head", tmp_path / "one.jsonl", "--target", place / "target", "--dtype", "float32"]
    arguments += ["--out", out, "--max-new-tokens", 24, "--num-nodes", 8, "--max-depth", 3, "--topk", 2]
    must(*arguments)
    first = json.loads(out.read_text())
    result = must(*arguments, tmp_path / "two.jsonl", "--plot", plot, "--run", place / "run", "--run-rows", 3)
    second = json.loads(out.read_text())
    assert len(first["answers"]) == 8 and second["answers"][:8] == first["answers"] and len(second["answers"]) == 12
    for cell in (*second["summary"]["files"]["two"].values(), *second["summary"]["mean"].values()):
        assert cell["tokens_per_round"] == pytest.approx(1 + sum(cell["survival"]))
    assert set(second["summary"]["mean"]) == {"chain, T=0", "tree, T=0", "chain, T=1", "tree, T=1"}
    assert "one: rounds" in result.stdout and "mean of 2 files" in result.stdout
    assert "tau_sim" in result.stdout and second["agreement"]["rows"] == 3
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert second["machine"]["command"] and second["settings"]["target"] == "target"
    must(*arguments)
    assert len(json.loads(out.read_text())["answers"]) == 12, "answers of files that were not named are kept"
    changed = run(*arguments[:-2], "--topk", 3)
    assert changed.exit_code == 1 and "other tree; give another --out" in changed.stderr


def test_every_verb_that_runs_the_target_takes_a_device(place, tmp_path):
    target, out, prompts = ("--target", place / "target"), ("--out", tmp_path / "out"), place / "prompts.jsonl"
    for arguments in (
        ("regenerate", *target, *out, prompts),
        ("capture", place / "run.yaml"),
        ("eval", place / "head", prompts, *target, *out),
        ("probe", place / "head", prompts, *target),
    ):
        refused = run(*arguments, "--device", "tpu")
        assert refused.exit_code == 1 and "--device tpu is unknown, choose cpu, cuda or cuda:NUMBER" in refused.stderr
    must("capture", place / "run.yaml", "--device", "cpu")
    short = ("--dtype", "float32", "--max-new-tokens", 8, "--limit", 2, "--device", "cpu")
    must("probe", place / "head", prompts, *target, *short)
    must("eval", place / "head", prompts, *target, *out, *short)
    few = tmp_path / "few.jsonl"
    few.write_text(json.dumps({"prompt": "a b"}))
    must("regenerate", *target, "--out", tmp_path / "rows", few, *short[:4], "--device", "cpu")


def test_questions_and_heads_that_eval_cannot_use(place, tmp_path):
    (tmp_path / "more").mkdir()
    for file in (tmp_path / "one.jsonl", tmp_path / "more" / "one.jsonl"):
        file.write_text(json.dumps({"turns": ["a c"]}))
    rest = ["--target", place / "target", "--dtype", "float32", "--out", tmp_path / "eval.json"]
    for arguments, sentence in (
        (
            [place / "head", tmp_path / "one.jsonl", tmp_path / "more" / "one.jsonl"],
            "Two question files are called one",
        ),
        (["suffix", tmp_path / "one.jsonl"], "suffix is no directory"),
        ([place / "head", tmp_path / "one.jsonl", "--max-new-tokens", 100000], "No question leaves room for 100000"),
    ):
        refused = run("eval", *arguments, *rest)
        assert refused.exit_code == 1 and sentence in refused.stderr, refused.stderr


def test_the_engine_accepts_what_training_promised(place):
    agreement = compare(place / "head", place / "run", 12)
    assert agreement.tau_sim > 1.2, "the head of this test has learnt too little to compare"
    assert abs(agreement.tokens_per_round / agreement.tau_walk - 1) < 0.03, agreement


def test_warnings_tell_uneven_text_from_a_wrong_convention():
    agree = Agreement(steps=4, rows=1, rounds=1, tau_sim=2.0, tau_walk=1.7, tokens_per_round=1.9)
    assert agree.warning is None
    assert "training and serving agree" in str(replace(agree, tokens_per_round=1.7).warning)
    assert "eagle-decoding probe" in str(replace(agree, tokens_per_round=1.3).warning)


def test_rounds_follow_accepted_paths():
    lengths = torch.tensor([9, 9, 2, 9, 9, 0, 1, 9, 0, 0])
    assert rounds_of(lengths, first=3) == [2, 0, 1]
    assert rounds_of(lengths, first=9) == []


def test_results_of_other_settings_are_refused(tmp_path):
    results = Results(tmp_path / "r.json", SETTINGS, {})
    results.add("file", "q", "chain, T=0", Stats(rounds=2, tokens=5, accepted_by_depth=[2, 1]))
    again = Results(tmp_path / "r.json", SETTINGS, {})
    table = again.table({"file": ["q"], "other": ["q"]})
    assert table == {"file": {"chain, T=0": Acceptances(2, 5, [2, 1])}} and again.table({"file": []}) == {}
    with pytest.raises(DataError, match="other max_new_tokens"):
        Results(tmp_path / "r.json", SETTINGS | {"max_new_tokens": 9}, {})


@pytest.mark.parametrize("damaged", ["", '{"settings": {}', "[]", '{"settings": {}, "answers": [{"file": "a"}]}'])
def test_damaged_results_are_refused_in_a_sentence(tmp_path, damaged):
    (tmp_path / "r.json").write_text(damaged)
    with pytest.raises(DataError, match=r"r\.json does not hold results of this command .*; remove it or give another"):
        Results(tmp_path / "r.json", SETTINGS, {})


def test_means_weigh_files_equally():
    table = {
        "a": {"arm": Acceptances(10, 15, [5])},
        "b": {"arm": Acceptances(1, 3, [1, 1])},
        "c": {"arm": Acceptances()},
    }
    tau, survival = mean_over_files(table)["arm"]
    assert tau == pytest.approx((1.5 + 3 + 1) / 3) and survival == pytest.approx([0.5, 1 / 3])
    assert summary(table)["files"]["a"]["arm"]["survival"] == [0.5]


def test_the_chain_is_as_deep_as_the_tree():
    chosen = arms(TreeConfig(24, 5, 4))
    assert [(arm.name, arm.tree.num_nodes, arm.tree.topk) for arm in chosen[:2]] == [
        ("chain, T=0", 6, 1),
        ("tree, T=0", 24, 4),
    ]

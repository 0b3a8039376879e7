"""Several configurations trained and compared: finished ones are kept, one picture and one table result."""

import json
from unittest.mock import Mock

import pytest
import torch
from train_runs import config_for, make_workplace

from bench import train_ablation
from bench.train_ablation import Study, run_study
from eagle_decoding.train.assemble import build_trainer
from eagle_decoding.train.config import ConfigError
from eagle_decoding.train.data import limit_rows, read_token_rows
from eagle_decoding.train.errors import DataError

STUDIES = ("choices", "eagle3_paper", "scaling")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("train"))


def base(workplace):
    return [
        f"target={workplace / 'target'}",
        f"data.tokens=[{workplace / 'rows.safetensors'}]",
        f"data.features={workplace / 'features'}",
        "data.held_out=0.2",
        "data.pack_tokens=60",
        "unroll.steps=2",
        "optim.tokens=400",
        "log.every=2",
    ]


@pytest.mark.parametrize("axis", ["runs", "tokens"])
def test_a_study_is_resumed_run_by_run_and_written_as_table_and_picture(workplace, tmp_path, axis):
    runs = {"Few tokens": ["data.max_tokens=90"], "all tokens, 3 steps": ["unroll.steps=3"]}
    study = Study("A study", axis, 4, base(workplace), runs)
    results = run_study(study, tmp_path, ["optim.lr=1e-2"])
    assert [result["name"] for result in results] == list(runs)
    few, every = results
    assert few["unique_tokens"] <= 90 < every["unique_tokens"]
    assert all(400 <= result["trained_tokens"] < 500 and len(result["survival"]) == 4 for result in results)
    table = (tmp_path / "results.md").read_text()
    assert table.count("\n|") == 4 and f"**{every['tau_sim']:.3f}**" in table
    assert "</svg>" in (tmp_path / "results.svg").read_text()
    first = tmp_path / "few-tokens" / "result.json"
    kept = first.stat().st_mtime_ns
    second = tmp_path / "all-tokens-3-steps" / "result.json"
    whole = second.read_text()
    for left in (0, len(whole) // 2):
        second.write_text(whole[:left])  # damaged: measured again at the end of its run
        assert run_study(study, tmp_path, ["optim.lr=1e-2"]) == results
        assert first.stat().st_mtime_ns == kept and json.loads(second.read_text()) == every


def test_a_study_without_held_out_rows_is_refused(workplace, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.held_out=0 holds out none"):
        run_study(Study("A study", "runs", 4, base(workplace), {"one": []}), tmp_path, ["data.held_out=0"])


def test_a_token_limit_takes_part_of_what_a_larger_one_takes(workplace):
    data = read_token_rows([workplace / "rows.safetensors"])
    rows = list(range(3, 24))
    chosen = [limit_rows(data, rows, limit, seed=1) for limit in (40, 100, 200)]
    for limit, few, more in zip((40, 100), chosen, chosen[1:], strict=False):
        assert set(few) < set(more) and sum(map(data.supervised_tokens, few)) <= limit
    assert limit_rows(data, rows, 0, 1) == limit_rows(data, rows, 10**6, 1) == rows
    with pytest.raises(DataError, match=r"data\.max_tokens=1 is less than the \d+ answer tokens of one row"):
        limit_rows(data, rows, 1, 1)


@pytest.mark.parametrize("name", STUDIES)
def test_committed_studies_are_valid(name, request):
    study = Study.read(request.config.rootpath / "bench" / "studies" / f"{name}.yaml")
    for run in study.runs:
        config = study.config(run, request.config.rootpath / "out", [])
        assert config.optim.tokens > 0 or config.optim.epochs == 1
        assert config.head.draft_vocab_size > 0


def test_a_malformed_study(tmp_path):
    (tmp_path / "study.yaml").write_text("title: x\n")
    with pytest.raises(ConfigError, match=r"holds \['title'\]; it takes \['axis', 'base', 'depth', 'runs', 'title'\]"):
        Study.read(tmp_path / "study.yaml")
    (tmp_path / "study.yaml").write_text("title: [")
    for unreadable in ("study.yaml", "missing.yaml"):
        with pytest.raises(ConfigError, match=rf"The study .*{unreadable} cannot be read \(.*\); name one as in bench"):
            Study.read(tmp_path / unreadable)
    (tmp_path / "study.yaml").write_text("[]")
    with pytest.raises(ConfigError, match=r"study\.yaml holds \[\]; it takes"):
        Study.read(tmp_path / "study.yaml")
    with pytest.raises(ConfigError, match="axis is 'time'"):
        Study("", "time", 1, [], {})


def test_mistakes_and_ctrl_c_end_the_command_with_a_sentence(tmp_path, monkeypatch, capsys):
    command = [str(tmp_path / "none.yaml"), "--out", str(tmp_path), "--threads", str(torch.get_num_threads())]
    monkeypatch.setattr(train_ablation, "settle_process", lambda: None)
    for raised, status, sentence in ((None, 1, "Error: The study "), (KeyboardInterrupt, 130, "Interrupted. Finished")):
        if raised:
            monkeypatch.setattr(train_ablation.Study, "read", Mock(side_effect=raised))
        with pytest.raises(SystemExit) as end:
            train_ablation.main(command)
        assert end.value.code == status and capsys.readouterr().err.startswith(sentence)


def test_training_rows_without_an_answer_are_refused(workplace, tmp_path, monkeypatch):
    config = config_for(workplace, tmp_path)
    read = read_token_rows(config.data.tokens)
    read.supervised[:] = False
    monkeypatch.setattr("eagle_decoding.train.assemble.read_token_rows", lambda paths: read)
    with pytest.raises(DataError, match="None of the 19 training rows has a supervised token"):
        build_trainer(config, lambda report: None)

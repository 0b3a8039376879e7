"""A training run on a tiny target: it learns, reports, stops where it must, and what it exports reads back."""

import json
import os
import shutil

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from train_runs import config_for, make_workplace

from eagle_decoding.checkpoint import CheckpointError, read_head
from eagle_decoding.files import DiskFullError
from eagle_decoding.train.assemble import build_trainer
from eagle_decoding.train.capture import capture
from eagle_decoding.train.config import dump_config
from eagle_decoding.train.data import read_token_rows
from eagle_decoding.train.errors import DataError
from eagle_decoding.train.export import export_head
from eagle_decoding.train.features import FeatureShards
from eagle_decoding.train.loop import DivergedError
from eagle_decoding.train.metrics import Acceptance
from eagle_decoding.train.schedule import learning_rate
from eagle_decoding.train.target import frozen_target


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("train"))


def test_a_run_lowers_the_loss_and_reports_held_out_rows(workplace, tmp_path):
    reports = []
    trainer, facts = build_trainer(
        config_for(workplace, tmp_path / "run", "optim.epochs=15", "optim.lr=1e-2"), reports.append
    )
    assert facts.train_rows == 19 and facts.held_out_rows == 5 and 0.8 < facts.coverage <= 1
    trainer.run()
    losses = [report["loss"][0] for report in reports if report["kind"] == "train"]
    assert losses[-1] < losses[0] - 0.3
    final = reports[-1]
    assert final["kind"] == "eval" and final["tau_sim"] >= 1 and final["scored"] == [1.0, 1.0, 1.0]
    assert final["survival"] == sorted(final["survival"], reverse=True)


def test_without_held_out_rows_nothing_is_reported_on_them(workplace, tmp_path):
    config, reports = config_for(workplace, tmp_path / "run", "data.held_out=0", "optim.epochs=1"), []
    trainer, facts = build_trainer(config, reports.append)
    assert facts.train_rows == 24 and "0 rows held out" in str(facts)
    assert trainer.run() == {}
    assert reports and {report["kind"] for report in reports} == {"train"}
    with pytest.raises(DataError, match=r"data\.held_out=0\.99 holds out all 24 rows; lower it"):
        build_trainer(config_for(workplace, tmp_path, "data.held_out=0.99"), reports.append)


def test_export_writes_the_trained_head_with_the_targets_rows(workplace, tmp_path):
    trainer, _ = build_trainer(config_for(workplace, tmp_path / "run", "optim.epochs=1"), lambda report: None)
    trainer.run()
    export_head(tmp_path / "run", tmp_path / "head")
    head = read_head(tmp_path / "head")
    assert head.config == trainer.head.config
    for name, tensor in trainer.head.state_dict().items():
        assert torch.equal(head.tensors[name], tensor if name == "d2t" else tensor.to(torch.bfloat16)), name
    lm_head = frozen_target(workplace / "target").lm_head.weight
    ids = head.tensors["d2t"] + torch.arange(32)
    assert torch.equal(head.tensors["lm_head.weight"], lm_head[ids].to(torch.bfloat16))


def test_nothing_to_export(workplace, tmp_path):
    (tmp_path / "config.yaml").write_text(dump_config(config_for(workplace, tmp_path)))
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        export_head(tmp_path, tmp_path / "head")


def test_captured_features_are_the_targets_own(workplace):
    data = read_token_rows([workplace / "rows.safetensors"])
    target = frozen_target(workplace / "target")
    shard = load_file(next((workplace / "features").glob("*.safetensors")))
    start = 0
    for row in shard["row"].tolist():
        ids = data.ids[data.starts[row] : data.starts[row + 1]]
        with torch.no_grad():
            states = target.model(ids[None], output_hidden_states=True).hidden_states
        expected = torch.stack([states[i][0] for i in (2, 4, 5, 8)], 1).to(torch.bfloat16)
        actual = shard["features"][start : start + len(ids)]
        torch.testing.assert_close(actual, expected, rtol=0.02, atol=0.02)
        start += len(ids)
    assert start == len(shard["features"])


def test_capture_refuses_more_than_the_limit_and_keeps_finished_shards(workplace):
    data = read_token_rows([workplace / "rows.safetensors"])
    target = frozen_target(workplace / "target")
    with pytest.raises(DataError, match="over the limit of 1e-06 GB"):
        capture(target, data, workplace / "features", max_gb=1e-6)
    before = {path: path.stat().st_mtime_ns for path in (workplace / "features").iterdir()}
    capture(target, data, workplace / "features", max_gb=1.0)
    assert before == {path: path.stat().st_mtime_ns for path in (workplace / "features").iterdir()}


def test_a_full_disk_leaves_whole_shards_and_says_so(workplace, tmp_path, monkeypatch):
    data = read_token_rows([workplace / "rows.safetensors"])
    target = frozen_target(workplace / "target")
    monkeypatch.setattr("eagle_decoding.train.capture.ROWS_PER_SHARD", 10)
    written = []

    def save(tensors, path):
        written.append(path)
        if len(written) == 2:
            path.write_bytes(b"half")
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        save_file(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr("eagle_decoding.train.files.save_file", save)
        with pytest.raises(DiskFullError, match=r"The disk is full: .*00001.safetensors was not written"):
            capture(target, data, tmp_path, max_gb=1.0)
    assert [path.name for path in tmp_path.glob("0*")] == ["00000.safetensors"]
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(DataError, match=r"has 0\.0 GB free; make room"):
        patch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=0))
        capture(target, data, tmp_path, max_gb=1.0)
    capture(target, data, tmp_path, max_gb=1.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(f"0000{i}.safetensors" for i in range(3)),
        "plan.json",
    ]


def test_damaged_features_are_told_of_and_captured_anew(workplace, tmp_path):
    data, target = read_token_rows([workplace / "rows.safetensors"]), frozen_target(workplace / "target")
    capture(target, data, tmp_path, max_gb=1.0)
    first, plan = sorted(tmp_path.iterdir())[0], tmp_path / "plan.json"
    whole = first.read_bytes()
    for left in (0, len(whole) // 2):
        first.write_bytes(whole[:left])
        with pytest.raises(DataError, match=r"00000\.safetensors is damaged .*; run `eagle-decoding capture` again"):
            FeatureShards(tmp_path, data, target)
        capture(target, data, tmp_path, max_gb=1.0)
        assert first.read_bytes() == whole
    for damaged in ("", plan.read_text()[:9], "[1]"):
        plan.write_text(damaged)
        for reader in (lambda: FeatureShards(tmp_path, data, target), lambda: capture(target, data, tmp_path, 1.0)):
            with pytest.raises(DataError, match=r"plan\.json is damaged .*; delete the folder .* and run the command"):
                reader()


def test_features_of_other_rows_or_another_target_are_neither_kept_nor_read(workplace, tmp_path):
    one, target = workplace / "rows.safetensors", frozen_target(workplace / "target")
    rows = load_file(one)
    rows["ids"] = 39 - rows["ids"].int()
    save_file(rows, tmp_path / "other.safetensors")
    other, folder = tmp_path / "other.safetensors", tmp_path / "features"
    capture(target, read_token_rows([one, other]), folder, max_gb=1.0)
    for shards in ([other, one], [one], [one, other, other]):
        data = read_token_rows(shards)
        with pytest.raises(DataError, match=r"captured with another data\.tokens; give another data\.features"):
            FeatureShards(folder, data, target)
        with pytest.raises(DataError, match=r"captured with another data\.tokens; give another data\.features"):
            capture(target, data, folder, max_gb=1.0)
    data = read_token_rows([one, other])
    with pytest.raises(DataError, match="captured with another seed"):
        capture(target, data, folder, max_gb=1.0, seed=1)
    with pytest.raises(DataError, match="captured with another dtype"):
        capture(frozen_target(workplace / "target", torch.bfloat16), data, folder, max_gb=1.0)
    target.model.layers[3].mlp.up_proj.weight.neg_()
    with pytest.raises(DataError, match="captured with another target"):
        capture(target, data, folder, max_gb=1.0)
    with pytest.raises(DataError, match="captured with another target"):
        FeatureShards(folder, data, target)
    target.model.layers[3].mlp.up_proj.weight.neg_()
    assert FeatureShards(folder, data, target).rows == list(range(len(data)))
    (folder / "plan.json").unlink()
    with pytest.raises(DataError, match=r"without a plan\.json"):
        capture(target, data, folder, max_gb=1.0)


def test_the_optimiser_runs_as_the_configuration_says(workplace, tmp_path, monkeypatch):
    """Two epochs, each optimiser step watched: packs, rate, moments, decay, and the gradient after clipping."""
    options = ("optim.epochs=2", "optim.betas=[0.8, 0.9]", "optim.weight_decay=0.1", "optim.clip=0.01")
    reports, packs, steps = [], [], []
    trainer, _ = build_trainer(config_for(workplace, tmp_path, *options, "log.every=1"), reports.append)
    optim, step, load = trainer.config.optim, trainer.optimizer.step, trainer._load

    def watched_load(pack):
        if torch.is_grad_enabled():
            packs.append(tuple(pack))
        return load(pack)

    def watched_step():
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in trainer.head.parameters()])
        (group,) = trainer.optimizer.param_groups
        steps.append((float(norm), group["lr"], group["betas"], group["weight_decay"]))
        step()

    monkeypatch.setattr(trainer.optimizer, "step", watched_step)
    monkeypatch.setattr(trainer, "_load", watched_load)
    trainer.run()
    half, clipped = len(packs) // 2, [report["grad_norm"] for report in reports if report["kind"] == "train"]
    epochs = [[row for pack in part for row in pack] for part in (packs[:half], packs[half:])]
    assert len(steps) == len(packs) > 10 and min(clipped) > optim.clip
    assert epochs[0] != epochs[1] and sorted(epochs[0]) == sorted(epochs[1]) == trainer.train_rows
    for index, (norm, rate, betas, decay) in enumerate(steps):
        assert norm == pytest.approx(optim.clip, rel=1e-3)
        assert rate == pytest.approx(learning_rate(optim, index / len(steps)))
        assert (betas, decay) == ((0.8, 0.9), 0.1)


def test_step_j_of_the_unroll_weighs_decay_to_the_j(workplace, tmp_path):
    trainer, _ = build_trainer(config_for(workplace, tmp_path, "unroll.decay=0.5"), lambda report: None)
    pack = trainer._load(trainer.train_rows[:2])
    outputs = list(trainer.loss.objective.unroll(trainer.head, *pack, trainer.config, None))
    expected = sum(output.loss() * 0.5**output.step / (output.step + 7) for output in outputs)
    assert len(outputs) == 3
    torch.testing.assert_close(trainer.loss(pack, [7, 8, 9], None, Acceptance(3)), expected)


def test_any_seed_draws_noise_and_place_and_seed_choose_it(workplace, tmp_path):
    def noise(seed, epoch, pack, index):
        trainer.config.seed = seed
        trainer.progress |= {"epoch": epoch, "pack": pack}
        return torch.rand(8, generator=trainer._generator(index)).tolist()

    trainer, _ = build_trainer(config_for(workplace, tmp_path), lambda report: None)
    largest = 18_446_632  # whose places fit into 64 bits
    for seed in (0, 7, largest):
        stream = torch.Generator().manual_seed((seed * 1_000_003 + 2) * 1_000_003 + 3 + 4)
        assert noise(seed, 2, 3, 4) == torch.rand(8, generator=stream).tolist()
    places = [(2**31 - 1, 0, 0, 0), (2**31 - 2, 0, 0, 0), (2**31 - 1, 1, 0, 0), (2**31 - 1, 0, 1, 0)]
    assert len({tuple(noise(*place)) for place in places}) == len(places)


def test_a_diverging_run_stops_with_a_reason(workplace, tmp_path):
    trainer, _ = build_trainer(config_for(workplace, tmp_path), lambda report: None)
    with torch.no_grad():
        trainer.head.norm.weight.fill_(torch.inf)
    with pytest.raises(DivergedError, match="lower optim"):
        trainer.run()


def test_the_log_holds_one_json_object_a_line(workplace, tmp_path):
    from rich.console import Console

    from eagle_decoding.train.progress import RunLog

    with RunLog(tmp_path, Console(file=open(os.devnull, "w"))) as log:
        trainer, _ = build_trainer(config_for(workplace, tmp_path), log)
        trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"train", "eval"}
    assert all(
        {"step", "tokens", "seconds", "loss", "accuracy", "survival", "tau_sim"} <= line.keys() for line in lines
    )

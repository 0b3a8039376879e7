"""A run that is killed, or whose disk fills or tears a file, ends with the bits of one that was left alone."""

import errno
import os
import random
import signal
import time
from pathlib import Path

import pytest
from processes import start
from train_runs import assert_same_bits, config_for, last_state, make_workplace, run_to_the_end, train_in_team

from eagle_decoding.train import state as states
from eagle_decoding.train.assemble import build_trainer
from eagle_decoding.train.config import ConfigError
from eagle_decoding.train.export import export_head
from eagle_decoding.train.state import StateError, newest_state


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def whole(workplace):
    """The end of a run of 16 optimiser steps that nothing disturbed."""
    return run_to_the_end(config_for(workplace, workplace / "whole", "log.save_every=1", "optim.packs=2"))


def config_like_whole(workplace, out):
    return config_for(workplace, out, "log.save_every=1", "optim.packs=2")


def test_kills_at_random_moments_change_nothing(workplace, whole, tmp_path):
    config, kills = config_like_whole(workplace, tmp_path / "run"), 0
    checkpoints = tmp_path / "run" / "checkpoints"
    for attempt in range(3):
        run = start(train_in_team, config)
        seen = set(checkpoints.glob("step-*"))
        while run.is_alive() and set(checkpoints.glob("step-*")) <= seen:
            time.sleep(0.002)
        run.join(random.Random(attempt).uniform(0, 0.02))
        kills += run.is_alive()
        run.kill()
        run.join()
    assert kills, "every run ended before it could be killed"
    assert last_state(config).progress["step"] <= whole.progress["step"]
    assert_same_bits(run_to_the_end(config), whole)


def train_and_die_writing(config, step):
    """A run that is killed when half of the checkpoint of this step is on disk."""
    save = states.save_file

    def save_half(tensors, path, facts):
        save(tensors, path, facts)
        if f"{step:08d}" in str(path):
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    states.save_file = save_half
    train_in_team(config)


def test_a_kill_while_a_checkpoint_is_written_loses_one_step(workplace, whole, tmp_path):
    config = config_like_whole(workplace, tmp_path / "run")
    run = start(train_and_die_writing, config, 6)
    run.join()
    assert run.exitcode == -signal.SIGKILL
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000004.safetensors", "step-00000005.safetensors", "step-00000006.safetensors.tmp"]
    assert last_state(config).progress["step"] == 5
    assert_same_bits(run_to_the_end(config), whole)
    assert not list((tmp_path / "run" / "checkpoints").glob("*.tmp"))


def test_a_torn_or_altered_file_is_named_and_the_one_before_it_used(workplace, whole, tmp_path):
    config = config_like_whole(workplace, tmp_path / "run")
    run_to_the_end(config)
    older, newer = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
    content = newer.read_bytes()
    newer.write_bytes(content[:-64])
    notes: list[str] = []
    assert newest_state(newer.parent, notes.append).progress["step"] == int(older.stem[5:])
    assert len(notes) == 1 and newer.name in notes[0] and "damaged" in notes[0]
    newer.write_bytes(content[:-64] + bytes(64))
    assert newest_state(newer.parent, notes.append).progress["step"] == int(older.stem[5:])
    assert "its bytes do not add up to its checksum" in notes[1]
    reports = []
    assert_same_bits(run_to_the_end(config, reports.append), whole)
    told = [report["text"] for report in reports if report["kind"] == "note"]
    assert told == [*notes[1:], f"The run in {config.out} goes on from step {int(older.stem[5:])}."]
    for path in newer.parent.iterdir():
        path.write_bytes(b"")
    with pytest.raises(StateError, match=r"no whole checkpoint in .*: all 2 are damaged; remove them"):
        newest_state(newer.parent)


def test_a_full_disk_is_reported_and_training_goes_on(workplace, whole, tmp_path, monkeypatch):
    config, save, reports = config_like_whole(workplace, tmp_path / "run"), states.save_file, []

    def fill_up(tensors, path, facts):
        if 4 <= int(path.name[5:13]) <= 6:
            Path(path).write_bytes(b"half a file")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(tensors, path, facts)

    monkeypatch.setattr(states, "save_file", fill_up)
    assert_same_bits(run_to_the_end(config, reports.append), whole)
    notes = [report["text"] for report in reports if report["kind"] == "note"]
    assert len(notes) == 3 and all("the disk is full" in note and "Training goes on" in note for note in notes)
    assert all("step-00000003.safetensors is the newest whole one" in note for note in notes)


def test_a_disk_that_is_full_at_the_end_ends_the_run_and_keeps_what_was_saved(workplace, whole, tmp_path, monkeypatch):
    config, save = config_like_whole(workplace, tmp_path / "run"), states.save_file
    last = whole.progress["step"]

    def fill_up(tensors, path, facts):
        if int(path.name[5:13]) == last:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(tensors, path, facts)

    monkeypatch.setattr(states, "save_file", fill_up)
    with pytest.raises(StateError, match=f"the disk is full.*step-{last - 1:08d}.safetensors is the newest"):
        run_to_the_end(config)
    monkeypatch.setattr(states, "save_file", save)
    assert_same_bits(run_to_the_end(config), whole)


def test_a_run_at_its_end_says_so(workplace, whole):
    reports: list[dict] = []
    assert_same_bits(run_to_the_end(config_like_whole(workplace, workplace / "whole"), reports.append), whole)
    note, figures = reports
    assert "is at its end, step 16: raise the budget in optim" in note["text"] and figures["kind"] == "eval"


def test_a_run_goes_on_with_its_own_data_and_head_only(workplace, whole):
    begun = config_like_whole(workplace, workplace / "whole")
    begun.unroll.steps = 2
    with pytest.raises(ConfigError, match=r"begun with unroll\.steps=3, not 2; give it the same again"):
        build_trainer(begun, lambda report: None)[0].run()
    kept = workplace / "whole" / "config.yaml"
    written = kept.read_text()
    for damaged in ("", "a: [", "nothing"):
        kept.write_text(damaged)
        with pytest.raises(ConfigError, match=r"was begun with cannot be read from .*config\.yaml .*; put its config"):
            run_to_the_end(begun)
    kept.unlink()
    with pytest.raises(ConfigError, match="was begun with cannot be read from"):
        export_head(workplace / "whole", workplace / "head")
    kept.write_text(written)
    longer = config_like_whole(workplace, workplace / "whole")
    longer.log.every, longer.optim.lr = 7, 1.0
    run_to_the_end(longer)

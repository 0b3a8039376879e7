"""Runs of EAGLE-1 and HASS heads, and of EAGLE-3 over one feature: they learn, resume to the same bits, and serve what
they exported."""

from pathlib import Path

import pytest
import torch
from test_train_loop import workplace
from train_runs import config_for, run_to_the_end
from transformers import AutoModelForCausalLM

from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.checkpoint import Eagle1Config, read_head
from eagle_decoding.train.assemble import build_trainer
from eagle_decoding.train.config import ConfigError
from eagle_decoding.train.data import read_token_rows
from eagle_decoding.train.export import export_head
from eagle_decoding.train.state import newest_state

__all__ = ["workplace"]

KINDS = {
    "eagle1": ["head.kind=eagle1"],
    "hass": ["head.kind=hass", "unroll.path_floor=0.001"],
    "eagle3-final": ["head.features=final", "loss.feature=0.5"],
}
PLAIN = ["head.fc_norm=false", "head.norm_output=false", "optim.epochs=10", "optim.lr=5e-3"]


class Interrupted(Exception):
    pass


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_resumes_and_drafts(workplace, tmp_path, kind):
    options = [*PLAIN, *KINDS[kind]]
    config, reports = config_for(workplace, tmp_path / "whole", *options), []
    trainer, _ = build_trainer(config, reports.append)
    trainer.run()
    losses = [report["loss"][0] for report in reports if report["kind"] == "train"]
    assert losses[-1] < losses[0] - 0.2

    def interrupt(report):
        if report["step"] >= 20:
            raise Interrupted

    stopped = config_for(workplace, tmp_path / "stopped", *options)
    with pytest.raises(Interrupted):
        build_trainer(stopped, interrupt)[0].run()
    assert 0 < newest_state(Path(stopped.out) / "checkpoints").progress["step"] <= 20
    resumed, whole = run_to_the_end(stopped), newest_state(tmp_path / "whole" / "checkpoints")
    assert all(torch.equal(tensor, resumed.head[name]) for name, tensor in whole.head.items())

    difference = export_head(tmp_path / "whole", tmp_path / "head", "portable", torch.float32)
    assert difference == 0.0
    target = AutoModelForCausalLM.from_pretrained(workplace / "target")
    rows = read_token_rows(config.data.tokens)
    prompt = torch.stack([rows.ids[rows.starts[row] :][:4] for row in trainer.train_rows])
    settings = {"do_sample": False, "max_new_tokens": 24, "eos_token_id": None, "pad_token_id": 0}
    decoder = SpeculativeDecoder.from_pretrained(target, tmp_path / "head", tree=TreeConfig(10, 3, 3))
    assert torch.equal(decoder.generate(prompt, **settings), target.generate(prompt, **settings))
    assert decoder.stats.tokens_per_round > 1.15, "rows of the training text itself"


@pytest.mark.parametrize("format", ["vllm", "sglang", "safeailab"])
def test_a_run_exports_for_each_engine(workplace, tmp_path, format):
    config = config_for(workplace, tmp_path / "run", *PLAIN, "head.kind=eagle1", "optim.epochs=1")
    build_trainer(config, lambda report: None)[0].run()
    assert export_head(tmp_path / "run", tmp_path / "head", format) > 0
    head = read_head(tmp_path / "head")
    assert isinstance(head.config, Eagle1Config) and not head.config.has_reduced_vocab


def test_eagle1_has_no_norms_of_its_own(workplace, tmp_path):
    with pytest.raises(ConfigError, match="kind 'hass' reads the target's final state without norms"):
        build_trainer(config_for(workplace, tmp_path, "head.kind=hass"), lambda report: None)

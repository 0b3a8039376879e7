"""Any division of the same rows into packs and processes gives the same training, to rounding; it resumes exactly."""

import pytest
import torch
from processes import run_together
from train_runs import assert_same_bits, config_for, last_state, make_workplace, run_to_the_end, train_in_team

from eagle_decoding.train.assemble import build_trainer
from eagle_decoding.train.distributed import Processes
from eagle_decoding.train.metrics import Acceptance

PACKS = "optim.packs=3"  # two packs for one process and one for the other, and fewer at the end of an epoch


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("train"))


def gradients(trainer, group):
    """The gradient of one optimiser step over a group of packs, before it is clipped away."""
    trainer.optimizer.step = lambda: None
    trainer._step(group, 0.0, Acceptance(trainer.config.unroll.steps))
    return {name: parameter.grad.clone() for name, parameter in trainer.head.named_parameters()}


@pytest.mark.parametrize("objective", ["head.kind=eagle3", "loss.feature=0.5"])
def test_several_packs_in_one_step_are_one_large_pack(workplace, tmp_path, objective):
    config = config_for(workplace, tmp_path, "optim.clip=1e9", "head.warm_start=false", objective)
    trainer, _ = build_trainer(config, lambda report: None)
    rows = trainer.train_rows[:7]
    together = gradients(trainer, [rows])
    divided = gradients(trainer, [rows[:3], rows[3:4], rows[4:]])
    for name, gradient in together.items():
        torch.testing.assert_close(divided[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
        assert gradient.abs().max() > 1e-3, name


@pytest.mark.parametrize("shard", ["false", "true"])
def test_two_processes_train_as_one_and_resume_exactly(workplace, tmp_path, shard):
    options = (PACKS, f"optim.shard={shard}", "log.every=1", "optim.epochs=3")
    alone = config_for(workplace, tmp_path / "alone", *options)
    reports = []
    build_trainer(alone, reports.append)[0].run()
    team = config_for(workplace, tmp_path / "team", *options)
    run_together(2, train_in_team, team, tmp_path / "reports.pt")
    theirs = torch.load(tmp_path / "reports.pt", weights_only=True)
    assert len(theirs) == len(reports) >= 10
    for mine, other in zip(reports, theirs, strict=True):
        assert (mine["kind"], mine["step"], mine["tokens"]) == (other["kind"], other["step"], other["tokens"])
        assert mine["loss"] == pytest.approx(other["loss"], abs=2e-4)
        if mine["kind"] == "train":  # AdamW hides a gradient of the wrong size, its norm does not
            assert mine["grad_norm"] == pytest.approx(other["grad_norm"], abs=2e-4)
    expected, actual = last_state(alone), last_state(team)
    for name, tensor in expected.head.items():
        torch.testing.assert_close(actual.head[name], tensor, rtol=1e-4, atol=1e-5, msg=name)

    newest = max((tmp_path / "team" / "checkpoints").iterdir())
    newest.unlink()
    assert last_state(team).progress["step"] < actual.progress["step"]
    run_together(2, train_in_team, team)
    assert_same_bits(last_state(team), actual)


def test_every_process_gets_as_many_packs():
    parts = [Processes(rank, 3).part([10, 11, 12, 13]) for rank in range(3)]
    assert parts == [[10, 13], [11, None], [12, None]]
    assert Processes().part([10, 11]) == [10, 11] and Processes(0, 2).part([]) == []


def test_products_in_bf16_leave_weights_and_figures_in_fp32(workplace, tmp_path):
    exact = run_to_the_end(config_for(workplace, tmp_path / "fp32", "optim.lr=1e-2"))
    rounded = run_to_the_end(config_for(workplace, tmp_path / "bf16", "optim.lr=1e-2", "optim.bf16=true"))
    assert {tensor.dtype for name, tensor in rounded.head.items() if name != "d2t"} == {torch.float32}
    assert not torch.equal(rounded.head["fc.weight"], exact.head["fc.weight"])
    difference = rounded.head["fc.weight"] - exact.head["fc.weight"]
    assert difference.norm() < 0.2 * exact.head["fc.weight"].norm()

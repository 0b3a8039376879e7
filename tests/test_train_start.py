"""Training that goes on from a head, in the vocabulary of other data, and what is refused."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from train_runs import config_for, make_workplace
from transformers import MixtralConfig, MixtralForCausalLM

from eagle_decoding.checkpoint import CheckpointError
from eagle_decoding.train.assemble import build_trainer
from eagle_decoding.train.config import ConfigError, load_config
from eagle_decoding.train.errors import DataError
from eagle_decoding.train.export import export_head
from eagle_decoding.train.target import frozen_target


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("train"))


@pytest.mark.parametrize("kind", ["eagle3", "eagle1", "hass"])
def test_a_run_starts_from_a_head_with_another_draft_vocabulary(workplace, tmp_path, kind):
    options = [f"head.kind={kind}", "head.fc_norm=false", "head.norm_output=false", "optim.tokens=200"]
    first = config_for(workplace, tmp_path / "first", *options, "head.draft_vocab_size=20")
    trained = build_trainer(first, lambda report: None)[0]
    trained.run()
    export_head(first.out, tmp_path / "head", "portable", torch.float32)

    start = f"head.start={tmp_path / 'head'}"
    second = config_for(workplace, tmp_path / "second", *options, start, "head.draft_vocab_size=30")
    continued = build_trainer(second, lambda report: None)[0]
    assert continued.head.lm_head.shape[0] == 30
    for (name, mine), theirs in zip(continued.head.named_parameters(), trained.head.parameters(), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize("kind", ["eagle3", "eagle1"])
def test_a_head_with_more_key_value_heads_starts_with_each_of_the_targets_twice_in_a_row(workplace, tmp_path, kind):
    """Query heads go to key-value heads in order, so that each keeps the one that it had in the target."""
    config = [f"head.kind={kind}", "head.fc_norm=false", "head.norm_output=false"]
    narrow, wide = (
        build_trainer(config_for(workplace, tmp_path, *config, f"head.num_kv_heads={n}"), lambda report: None)[0]
        for n in (2, 4)
    )
    for name in ("k_proj", "v_proj"):
        mine, theirs = (
            getattr(trainer.head.layer.self_attn, name).weight[:, -24 * (kind == "eagle3") :].unflatten(0, (-1, 6))
            for trainer in (wide, narrow)
        )
        assert not torch.equal(theirs[0], theirs[1])
        for head in range(4):
            assert torch.equal(mine[head], theirs[head // 2]), (name, head)


@pytest.mark.parametrize("kind", ["eagle3", "eagle1"])
def test_fewer_key_value_heads_than_the_targets_start_at_random_only(workplace, tmp_path, kind):
    plain = [f"head.kind={kind}", "head.fc_norm=false", "head.norm_output=false", "head.num_kv_heads=1"]
    with pytest.raises(ConfigError, match=r"num_kv_heads is 1, and a warm start copies the target's 2; set it to a"):
        build_trainer(config_for(workplace, tmp_path, *plain), lambda report: None)
    trainer, _ = build_trainer(config_for(workplace, tmp_path, *plain, "head.warm_start=false"), lambda report: None)
    assert trainer.head.config.num_kv_heads == 1


def test_a_head_of_another_shape_is_refused_by_name(workplace, tmp_path):
    config = config_for(workplace, tmp_path / "run", "optim.tokens=1")
    build_trainer(config, lambda report: None)[0].run()
    export_head(config.out, tmp_path / "head")
    wider = config_for(workplace, tmp_path / "wider", f"head.start={tmp_path / 'head'}", "head.num_kv_heads=4")
    with pytest.raises(CheckpointError, match=r"k_proj\.weight is \[12, 48\] there and \[24, 48\] in this"):
        build_trainer(wider, lambda report: None)
    with pytest.raises(ConfigError, match=r"eagle3, eagle1, hass; head\.kind is 'medusa'"):
        load_config(None, ["head.kind=medusa", "head.start=somewhere"])


@pytest.mark.parametrize("kind", ["eagle3", "eagle1"])
def test_a_head_for_a_mixture_of_experts_starts_with_a_random_mlp(tmp_path, kind):
    """The rest is the target's all the same, and the head learns."""
    workplace = make_workplace(tmp_path, MixtralForCausalLM, MixtralConfig)
    options = [f"head.kind={kind}", "head.fc_norm=false", "head.norm_output=false", "optim.epochs=10", "optim.lr=5e-3"]
    reports = []
    trainer = build_trainer(config_for(workplace, tmp_path / "run", *options), reports.append)[0]
    layer, source = trainer.head.layer, frozen_target(workplace / "target").model.layers[-1]
    if kind == "eagle3":
        assert torch.equal(layer.self_attn.o_proj.weight, source.self_attn.o_proj.weight)
        assert layer.mlp.down_proj.weight.std() > 0
    assert layer.mlp.gate_proj.weight.shape == (32, 24) and layer.mlp.gate_proj.weight.std() > 0
    trainer.run()
    losses = [report["loss"][0] for report in reports if report["kind"] == "train"]
    assert losses[-1] < losses[0] - 0.2


def test_features_of_rows_that_no_shard_holds_are_refused(workplace, tmp_path):
    (tmp_path / "features").mkdir()
    shutil.copy(workplace / "features" / "plan.json", tmp_path / "features")
    shard = load_file(next((workplace / "features").glob("*.safetensors")))
    save_file(shard | {"row": shard["row"] + 24}, tmp_path / "features" / "0.safetensors")
    config = config_for(workplace, tmp_path / "run", f"data.features={tmp_path / 'features'}")
    with pytest.raises(DataError, match=r"holds features of row \d+; the token shards of data\.tokens end at 24"):
        build_trainer(config, lambda report: None)

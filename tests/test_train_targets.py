"""Heads for targets with layers unlike Llama's: where they start, that they learn, and that they are served."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from models import KINDS, WINDOWS
from train_runs import config_for, make_workplace, run_to_the_end
from transformers import PreTrainedModel
from typer.testing import CliRunner

from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.cli import app
from eagle_decoding.train.assemble import build_trainer
from eagle_decoding.train.config import dump_config
from eagle_decoding.train.data import read_token_rows
from eagle_decoding.train.export import export_head
from eagle_decoding.train.initialise import source_layer
from eagle_decoding.train.loop import Trainer
from eagle_decoding.train.target import frozen_target

OPTIONS = ["head.fc_norm=false", "head.norm_output=false", "optim.epochs=6", "optim.lr=5e-3"]
SOURCES = {
    "granite": 7,
    "smollm3": 6,
    "phi3-partial-rope": None,
    "olmo2": None,
    "glm4": None,
    "gemma3": None,
    "olmo3": None,
    "gpt-oss": 7,
}  # the layer to start from
EIGHT = {  # layers
    "smollm3": {"no_rope_layers": [1, 1, 1, 0, 1, 1, 1, 0]},
    "gemma3": {"layer_types": WINDOWS * 2},
    "olmo3": {"layer_types": WINDOWS * 2},
    "gpt-oss": {"layer_types": WINDOWS * 2},
}


@pytest.fixture(scope="module")
def workplaces(tmp_path_factory) -> Callable[[str], Path]:
    @cache
    def workplace(kind: str) -> Path:
        model, config, options = KINDS[kind]
        tokens = {"pad_token_id": 0, "eos_token_id": 2}
        return make_workplace(tmp_path_factory.mktemp(kind), model, config, **tokens, **(options | EIGHT.get(kind, {})))

    return workplace


def started(workplace: Path, out: Path, kind: str) -> tuple[Trainer, PreTrainedModel]:
    config = config_for(workplace, out, f"head.kind={kind}", *(OPTIONS[2:] if kind == "hydra++" else OPTIONS))
    return build_trainer(config, lambda report: None)[0], frozen_target(workplace / "target")


@pytest.mark.parametrize("kind", SOURCES)
def test_a_layer_starts_from_one_of_the_same_shape(workplaces, tmp_path, kind):
    """SmolLM3's last one does not rotate; what Granite multiplies by, the head's weights hold."""
    trainer, target = started(workplaces(kind), tmp_path, "eagle3")
    layer, source = trainer.head.layer, source_layer(target)
    if SOURCES[kind] is None:
        assert source is None
        assert layer.mlp.gate_proj.weight.std() > 0 and (layer.post_attention_layernorm.weight == 1).all()
        return
    assert source is target.model.layers[SOURCES[kind]]
    share, heat = (0.6, 0.2 * 6**0.5) if kind == "granite" else (1.0, 1.0)
    for name, factor in (("q_proj", heat), ("v_proj", 1.0)):
        mine, theirs = (getattr(attention, name).weight for attention in (layer.self_attn, source.self_attn))
        torch.testing.assert_close(mine[:, 24:], theirs * factor)
    torch.testing.assert_close(layer.self_attn.o_proj.weight, source.self_attn.o_proj.weight * share)
    if kind != "gpt-oss":  # a mixture of experts
        torch.testing.assert_close(layer.mlp.down_proj.weight, source.mlp.down_proj.weight * share)


def test_a_norm_that_adds_one_is_taken_over_with_it(workplaces, tmp_path):
    trainer, target = started(workplaces("gemma3"), tmp_path, "eagle3")
    torch.testing.assert_close(trainer.head.norm.weight, 1 + target.model.norm.weight)


@torch.no_grad()
def test_the_teacher_has_the_targets_temperature(workplaces, tmp_path):
    """Granite divides its logits."""
    trainer, target = started(workplaces("granite"), tmp_path, "eagle3")
    head, stock = trainer.head, target(torch.arange(20)[None], output_hidden_states=True)
    kept = head.d2t + torch.arange(len(head.d2t))
    torch.testing.assert_close(stock.hidden_states[-1] @ head.lm_head.T, stock.logits[..., kept])


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *((kind, "eagle3") for kind in SOURCES),
        ("glm4", "eagle1"),
        ("granite", "hydra++"),
        ("glm4", "hydra++"),
    ],
)
def test_a_head_learns_and_is_served(workplaces, tmp_path, kind, method):
    """What a target rotates a part of, the head rotates whole: its files say so, or they would not be read."""
    trainer, target = started(workplaces(kind), tmp_path / "run", method)
    reports = []
    run_to_the_end(trainer.config, reports.append)
    losses = [report["loss"][0] for report in reports if report["kind"] == "train"]
    assert losses[-1] < losses[0] - (0.03 if method == "hydra++" else 0.1)
    export_head(tmp_path / "run", tmp_path / "head", "portable", torch.float32)
    rows = read_token_rows(trainer.config.data.tokens)
    prompt = torch.stack([rows.ids[rows.starts[row] :][:4] for row in trainer.train_rows])
    prompt = prompt[(prompt != 0).all(dim=1)]  # without padding
    settings = {"do_sample": False, "max_new_tokens": 24, "eos_token_id": None}
    decoder = SpeculativeDecoder.from_pretrained(target, tmp_path / "head", tree=TreeConfig(10, 3, 3))
    assert torch.equal(decoder.generate(prompt, **settings), target.generate(prompt, **settings))
    assert decoder.stats.tokens_per_round > 1.1, "rows of the training text itself"


@pytest.mark.parametrize(("layers", "ids"), [(1, [0]), (2, [1]), (4, [1, 2]), (5, [2]), (6, [2, 3])])
def test_a_target_of_few_layers_is_refused_where_three_are_fused(tmp_path, layers, ids):
    workplace = make_workplace(tmp_path, num_hidden_layers=layers)
    (tmp_path / "run.yaml").write_text(dump_config(config_for(workplace, tmp_path / "run", *OPTIONS)))
    for verb in ("capture", "train"):
        result = CliRunner().invoke(app, [verb, str(tmp_path / "run.yaml")])
        asked = f"2, n // 2 and n - 3, and of these a target of {layers} layers has only {ids}: set head.features=final"
        assert result.exit_code == 1 and asked in result.stderr, result.output
    for kind in ("head.features=final", "head.kind=eagle1"):
        run_to_the_end(config_for(workplace, tmp_path / kind, *OPTIONS, kind))

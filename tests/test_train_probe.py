"""probe: a head that was made for some layer ids is recognised behind a config that names others."""

from dataclasses import replace

import pytest
import torch
from chat_target import chat_target
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from eagle_decoding.checkpoint import Head, HeadConfig, write_head
from eagle_decoding.cli import app
from eagle_decoding.train.probe import answers, boundary_features, foreign_embeddings, probe, variants, verdict
from eagle_decoding.train.target import frozen_target

PROMPTS = [[0, letter, 3, 1] for letter in range(5, 25)]
IDS = (2, 3, 4)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a target, and a head whose fc was fitted to the features of IDS and whose layer adds nothing."""
    folder = tmp_path_factory.mktemp("probe")
    target = frozen_target(chat_target(folder / "target"))
    shape = {"hidden_size": 16, "target_hidden_size": 16, "vocab_size": 25, "draft_vocab_size": 25}
    config = HeadConfig(**shape, intermediate_size=8, num_heads=2, num_kv_heads=2, head_dim=8, aux_layer_ids=IDS)
    inputs, wanted = [], []
    for prompt, answer in zip(PROMPTS, answers(target, PROMPTS, 40, lambda rows, tokens: None), strict=True):
        text = torch.tensor(prompt + answer)
        inputs.append(torch.cat(boundary_features(target, text, IDS), -1)[len(prompt) - 1 : -2])
        wanted.append(target.get_output_embeddings().weight[text[len(prompt) + 1 :]])
    tensors = {n: torch.ones(s) if len(s) == 1 else torch.zeros(s) for n, s in config.tensor_shapes().items()}
    tensors["fc.weight"] = torch.linalg.lstsq(torch.cat(inputs), torch.cat(wanted)).solution.T.contiguous()
    tensors["lm_head.weight"] = target.get_output_embeddings().weight.detach().clone()
    write_head(folder / "head", config, tensors)
    return folder, target, Head(config, tensors)


@pytest.mark.parametrize("shift", [-1, 1])
def test_probe_finds_shifted_layer_ids(place, shift):
    _, target, head = place
    ids = tuple(i + shift for i in IDS)
    findings = probe(target, replace(head, config=replace(head.config, aux_layer_ids=ids)), PROMPTS, 40)
    assert f"{list(IDS)} ({-shift:+d})" in verdict(findings), [f.lead(findings[0]) for f in findings]
    honest = probe(target, head, PROMPTS, 40)
    assert "as its config says" in verdict(honest)


def test_no_reading_of_an_untrained_head_fits(place):
    _, target, head = place
    generator = torch.Generator().manual_seed(0)
    random = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in head.tensors.items()}
    findings = probe(target, Head(head.config, random), PROMPTS, 40)
    assert "No reading of the head fits" in verdict(findings) and "25 tokens" in verdict(findings)


def test_probe_tries_both_rope_bases_and_stays_inside_the_model(place):
    config = place[2].config
    assert len(variants(config, 7)) == 3, "base 10000 is the config's own"
    other = replace(config, rope_parameters={"rope_type": "default", "rope_theta": 1e6}, aux_layer_ids=(0, 3, 7))
    assert [(v.shift, v.rope_theta) for v in variants(other, 7)] == [(0, 1e6), (0, 1e4)]


def test_the_probe_verb_reports_foreign_embeddings(place, tmp_path):
    folder, target, head = place
    write_head(tmp_path / "head", head.config, head.tensors)
    file = tmp_path / "head" / "model.safetensors"
    embed = target.get_input_embeddings().weight.detach()
    (tmp_path / "p.jsonl").write_text('{"prompt": "a b"}\n{"prompt": "c"}')
    arguments = ["probe", tmp_path / "head", tmp_path / "p.jsonl", "--target", folder / "target", "--dtype", "float32"]
    assert foreign_embeddings(tmp_path / "head", embed) == 0 and "embed_tokens" not in must(*arguments).stderr
    save_file(load_file(file) | {"embed_tokens.weight": embed.clone()}, file)
    assert foreign_embeddings(tmp_path / "head", embed) == 0
    save_file(load_file(file) | {"embed_tokens.weight": torch.randn(embed.shape)}, file)
    result = must(*arguments)
    assert "100% of the rows of embed_tokens" in result.stderr and "First drafts at" in result.stdout


def must(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output + result.stderr
    return result

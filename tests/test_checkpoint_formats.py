"""Every export format as its engine reads it: config keys, tensor names, what it refuses, and that files stay whole."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from test_checkpoint import CONFIG, assert_same, random_tensors

from eagle_decoding.checkpoint import FORMATS, CheckpointError, TargetFacts, read_head, write_head
from eagle_decoding.checkpoint import write as write_module
from eagle_decoding.files import DiskFullError
from eagle_decoding.train.export import export_head
from eagle_decoding.train.written import logits

TARGET = TargetFacts("org/target", ["LlamaForCausalLM"], 30, torch.randn(50, 16))
NAMES = sorted(FORMATS)


def write(folder, name, **changes):
    """(config, tensors) of a random head, written in a format."""
    config = replace(CONFIG, **changes)
    tensors = random_tensors(config, torch.bfloat16)
    write_head(folder, config, tensors, name, TARGET)
    return config, tensors


def fields_of(folder):
    return json.loads((folder / "config.json").read_text())


def weights_of(folder):
    file = folder / "pytorch_model.bin"
    return torch.load(file, weights_only=True) if file.exists() else load_file(folder / "model.safetensors")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("changes", [{}, {"draft_vocab_size": 50}])
def test_every_format_reads_back(tmp_path, name, changes):
    config, tensors = write(tmp_path / "head", name, **changes)
    head = read_head(tmp_path / "head")
    assert head.config == config
    assert_same(head, tensors)
    file = weights_of(tmp_path / "head")
    assert ("d2t" in file) == ("t2d" in file) == config.has_reduced_vocab
    if config.has_reduced_vocab:
        ids = file["d2t"] + torch.arange(20)
        assert file["t2d"].dtype == torch.bool and torch.equal(file["t2d"].nonzero()[:, 0], ids)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head"]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "speculators"])
def test_flat_formats_hold_no_embeddings_and_say_so(tmp_path, name):
    write(tmp_path / "head", name)
    fields, file = fields_of(tmp_path / "head"), weights_of(tmp_path / "head")
    assert "midlayer.hidden_norm.weight" in file and "embed_tokens.weight" not in file
    assert fields["draft_vocab_size"] == 20 and fields["tie_word_embeddings"] is False
    assert "target_hidden_size" not in fields, "SafeAILab's loader would then look for embeddings in the file"
    assert fields["rope_theta"] == 5000.0 and fields["rope_scaling"] is None
    assert fields["architectures"] == ["LlamaForCausalLM" if name == "safeailab" else "LlamaForCausalLMEagle3"]
    assert not any("layer_ids" in key or key == "eagle_config" for key in fields)


def test_speculators_names_the_verifier_and_holds_its_embeddings(tmp_path):
    write(tmp_path / "head", "speculators", fc_norm=True, norm_output=True, aux_layer_ids=(4, 9, 21))
    fields, file = fields_of(tmp_path / "head"), weights_of(tmp_path / "head")
    assert fields["speculators_model_type"] == "eagle3" and fields["architectures"] == ["Eagle3DraftModel"]
    assert fields["norm_before_residual"] is False, "vLLM takes a missing key for true"
    assert fields["fc_norm"] and fields["norm_output"] and not fields["norm_before_fc"]
    assert fields["eagle_aux_hidden_state_layer_ids"] == [4, 9, 21]
    assert fields["speculators_config"]["verifier"] == {
        "name_or_path": "org/target",
        "architectures": ["LlamaForCausalLM"],
    }
    layer = fields["transformer_layer_config"]
    assert layer["head_dim"] == 6, "speculators' rotary embedding would halve a derived one"
    assert layer["vocab_size"] == 50 and layer["model_type"] == "llama"
    assert "layers.0.hidden_norm.weight" in file and not any(name.startswith("midlayer") for name in file)
    assert torch.equal(file["embed_tokens.weight"], TARGET.embed_tokens.to(torch.bfloat16))


@pytest.mark.parametrize(
    "name, top, nested",
    [
        ("portable", [4, 9, 21], [3, 8, 20]),
        ("vllm", [4, 9, 21], None),
        ("llama.cpp", [4, 9, 21], None),
        ("sglang", None, [3, 8, 20]),
        ("speculators", [4, 9, 21], None),
    ],
)
def test_layer_ids_are_in_each_engines_convention(tmp_path, name, top, nested):
    config, _ = write(tmp_path / "head", name, aux_layer_ids=(4, 9, 21))
    fields = fields_of(tmp_path / "head")
    assert fields.get("eagle_aux_hidden_state_layer_ids") == top
    assert fields.get("eagle_config", {}).get("eagle_aux_hidden_state_layer_ids") == nested
    assert read_head(tmp_path / "head").config == config


LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize("name", NAMES)
def test_scaled_rope_survives(tmp_path, name):
    config, _ = write(tmp_path / "head", name, rope_parameters=LINEAR)
    assert read_head(tmp_path / "head").config == config
    scaling = fields_of(tmp_path / "head").get("rope_scaling")
    if name == "safeailab":
        assert scaling == {"type": "linear", "factor": 2.0} and isinstance(scaling["factor"], float)


@pytest.mark.parametrize(
    "name, changes, reason",
    [
        ("sglang", {"norm_before_residual": True}, "SGLang has no norm_before_residual"),
        ("sglang", {"attention_bias": True}, "SGLang has no attention_bias"),
        ("sglang", {"num_layers": 2}, "names the layers after the first differently"),
        ("sglang", {"aux_layer_ids": (0, 9, 21)}, "layer id 0"),
        ("vllm", {"attention_bias": True}, "bias of o_proj"),
        ("llama.cpp", {"fc_norm": True, "norm_output": True}, "no fc_norm; llama.cpp has no norm_output"),
        ("llama.cpp", {"attention_bias": True}, "llama.cpp has no attention_bias"),
        ("llama.cpp", {"num_layers": 2}, "one layer over three features, this head 2 over 3"),
        ("llama.cpp", {"hidden_act": "gelu"}, "silu, not gelu"),
        ("llama.cpp", {"rope_parameters": {**LINEAR, "rope_type": "dynamic"}}, "no 'dynamic' rope"),
        ("speculators", {"attention_bias": True}, "bias of o_proj"),
        ("speculators", {"target_hidden_size": 12}, "head's own width"),
        ("safeailab", {"fc_norm": True, "norm_output": True}, "no fc_norm; SafeAILab/EAGLE has no norm_output"),
        ("safeailab", {"aux_layer_ids": (4, 9, 21)}, r"takes layers 2, n // 2, n - 3, not \[4, 9, 21\]"),
        ("safeailab", {"num_layers": 2}, "one layer over three features, this head 2 over 3"),
        ("safeailab", {"rope_parameters": LLAMA3}, "no 'llama3' rope"),
        ("safeailab", {"rope_parameters": LINEAR | {"rope_theta": 5e5}}, "base 10000 only, not 500000"),
        ("gguf", {}, "known: portable, vllm, llama.cpp, sglang, speculators, safeailab"),
    ],
)
def test_what_a_format_cannot_express_is_refused_in_one_sentence(tmp_path, name, changes, reason):
    with pytest.raises(CheckpointError, match=reason):
        write(tmp_path / "head", name, **changes)
    assert not any(tmp_path.iterdir())


def test_safeailab_takes_default_layers_that_were_named(tmp_path):
    config, _ = write(tmp_path / "head", "safeailab", aux_layer_ids=(2, 15, 27))
    assert read_head(tmp_path / "head").config == replace(config, aux_layer_ids=None)


def test_speculators_needs_a_target(tmp_path):
    with pytest.raises(CheckpointError, match="give --target"):
        write_head(tmp_path / "head", CONFIG, random_tensors(CONFIG), "speculators")


def test_a_failed_write_leaves_the_earlier_head_as_it_was(tmp_path, monkeypatch):
    write(tmp_path / "head", "portable")
    (tmp_path / "head" / "README.md").write_text("card")
    before = {path.name: path.read_bytes() for path in (tmp_path / "head").iterdir()}

    def fail(tensors, file, *metadata):
        Path(file).write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("eagle_decoding.checkpoint.files.save_file", fail)
    with pytest.raises(DiskFullError, match=r"The disk is full: .*/head was not written"):
        write(tmp_path / "head", "vllm")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "head").iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["head"]


def test_a_new_head_replaces_the_old_one_and_keeps_its_card(tmp_path):
    write(tmp_path / "head", "portable")
    (tmp_path / "head" / "README.md").write_text("card")
    write(tmp_path / "head", "safeailab")
    assert sorted(path.name for path in (tmp_path / "head").iterdir()) == [
        "README.md",
        "config.json",
        "pytorch_model.bin",
    ]


def test_a_directory_that_is_no_head_is_not_overwritten(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="is no draft head"):
        write(tmp_path / "model", "portable")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["config.json"]


@pytest.mark.parametrize("name", ["vllm", "sglang", "safeailab"])
def test_a_head_directory_is_exported_to_another_format(tmp_path, name):
    write(tmp_path / "head", "portable")
    assert export_head(tmp_path / "head", tmp_path / "other", name) == 0.0
    assert_same(read_head(tmp_path / "other"), read_head(tmp_path / "head").tensors)


def test_export_compares_logits(tmp_path, monkeypatch):
    write(tmp_path / "head", "portable")
    monkeypatch.setattr("eagle_decoding.checkpoint.write._check_written", lambda *arguments: None)
    save = write_module.write_files

    def corrupt(folder: Path, weights: str, tensors: dict, fields: dict) -> None:
        save(folder, weights, tensors | {"norm.weight": tensors["norm.weight"] * 1.01}, fields)

    monkeypatch.setattr(write_module, "write_files", corrupt)
    with pytest.raises(CheckpointError, match="other logits"):
        export_head(tmp_path / "head", tmp_path / "other")


def test_logits_depend_on_every_tensor(tmp_path):
    write(tmp_path / "head", "portable", norm_before_fc=True)
    head = read_head(tmp_path / "head")
    expected = logits(head)
    for name, tensor in head.tensors.items():
        if name != "d2t":
            changed = {**head.tensors, name: tensor * 1.5 + 0.1}
            assert not torch.equal(expected, logits(replace(head, tensors=changed))), name

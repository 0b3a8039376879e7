"""Draft heads on disk: the layouts of other trainers, round trips, and one clear sentence for everything that is
wrong."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from eagle_decoding.checkpoint import CheckpointError, HeadConfig, check_fits, read_head, write_head
from eagle_decoding.drafts.causal_lm import is_causal_lm

CONFIG = HeadConfig(
    hidden_size=16,
    intermediate_size=24,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    vocab_size=50,
    draft_vocab_size=20,
    target_hidden_size=16,
    rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
)


def random_tensors(config, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = config.tensor_shapes()
    tensors = {n: torch.randn(s, generator=generator).to(dtype) for n, s in shapes.items() if n != "d2t"}
    if "d2t" in shapes:
        kept = torch.randperm(config.vocab_size, generator=generator)[: config.draft_vocab_size].sort().values
        tensors["d2t"] = kept - torch.arange(config.draft_vocab_size)
    return tensors


def stored(tensors, config, prefix="midlayer.", outer=""):
    """The file another trainer would write for these tensors."""
    file = {outer + name.replace("layers.0.", prefix): value for name, value in tensors.items() if name != "d2t"}
    if "d2t" in tensors:
        mask = torch.zeros(config.vocab_size, dtype=torch.bool)
        mask[tensors["d2t"] + torch.arange(config.draft_vocab_size)] = True
        file |= {"d2t": tensors["d2t"], "t2d": mask}
    return file


FLAT = {
    "architectures": ["LlamaForCausalLMEagle3"],
    "model_type": "llama",
    "num_hidden_layers": 1,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "rms_norm_eps": 1e-5,
    "vocab_size": 50,
    "draft_vocab_size": 20,
    "tie_word_embeddings": False,
}


def save(folder, fields, file, name="model.safetensors"):
    (folder / "config.json").write_text(json.dumps(fields))
    if name.endswith(".bin"):
        torch.save(file, folder / name)
    else:
        save_file(file, folder / name)
    return folder


def assert_same(head, tensors):
    assert head.tensors.keys() == tensors.keys()
    for name, value in tensors.items():
        torch.testing.assert_close(head.tensors[name], value, rtol=0, atol=0, msg=name)


def test_safeailab_bin_without_rope_or_embeddings(tmp_path):
    tensors = random_tensors(CONFIG, torch.float16)
    save(tmp_path, FLAT | {"architectures": ["LlamaForCausalLM"]}, stored(tensors, CONFIG), "pytorch_model.bin")
    head = read_head(tmp_path)
    assert_same(head, tensors)
    assert head.config.rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}
    assert head.config.layer_ids(30) == (2, 15, 27)


@pytest.mark.parametrize("prefix, outer", [("midlayer.", ""), ("layers.0.", ""), ("layers.0.", "model.")])
def test_specforge_modelopt_and_nemo_names(tmp_path, prefix, outer):
    tensors = random_tensors(CONFIG, torch.bfloat16)
    file = stored(tensors, CONFIG, prefix, outer)
    file["embed_tokens.weight"] = torch.randn(50, 16)
    file["rotary_emb.inv_freq"] = torch.ones(3)
    head = read_head(save(tmp_path, FLAT | {"rope_theta": 5000.0}, file))
    assert_same(head, tensors)
    assert head.config == CONFIG


def test_legacy_aux_norms_are_fc_norm(tmp_path):
    config = replace(CONFIG, fc_norm=True)
    tensors = random_tensors(config)
    file = stored(tensors, config)
    for index, name in enumerate(("low", "mid", "high")):
        file[f"aux_norm_{name}.weight"] = file.pop(f"fc_norm.{index}.weight")
    head = read_head(save(tmp_path, FLAT | {"rope_theta": 5000.0}, file))
    assert head.config == config
    assert_same(head, tensors)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"fc_norm": True, "norm_output": True},
        {"norm_before_fc": True, "norm_before_residual": True},
        {"attention_bias": True, "draft_vocab_size": 50},
        {"target_hidden_size": 12, "aux_layer_ids": (3, 9), "num_aux": 2, "num_layers": 2},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}},
    ],
)
def test_write_then_read_gives_everything_back(tmp_path, changes):
    config = replace(CONFIG, **changes)
    tensors = random_tensors(config, torch.bfloat16)
    write_head(tmp_path / "head", config, tensors)
    head = read_head(tmp_path / "head")
    assert head.config == config
    assert_same(head, tensors)
    assert sorted(p.name for p in (tmp_path / "head").iterdir()) == ["config.json", "model.safetensors"]


def test_portable_file_has_the_names_other_engines_map(tmp_path):
    write_head(tmp_path, CONFIG, random_tensors(CONFIG))
    file = load_file(tmp_path / "model.safetensors")
    assert {"midlayer.hidden_norm.weight", "midlayer.self_attn.q_proj.weight", "d2t", "t2d"} <= file.keys()
    assert not any(name.startswith("layers.") or name.startswith("embed_tokens") for name in file)
    ids = file["d2t"] + torch.arange(20)
    assert torch.equal(file["t2d"].nonzero()[:, 0], ids)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert fields["rope_theta"] == fields["rope_parameters"]["rope_theta"] == 5000.0
    assert fields["draft_vocab_size"] == 20 and not fields["tie_word_embeddings"]
    assert "eagle_aux_hidden_state_layer_ids" not in fields


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"eagle_aux_hidden_state_layer_ids": [3, 8, 20]}, (3, 8, 20)),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [3, 8, 20]}}, (4, 9, 21)),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 14, 26]}}, (2, 15, 27)),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [2, 15, 27]}}, (2, 15, 27)),
        ({"eagle_aux_hidden_state_layer_ids": [1, 14, 26]}, (2, 15, 27)),
        ({}, None),
    ],
)
def test_layer_id_conventions(tmp_path, fields, expected):
    save(tmp_path, FLAT | fields, stored(random_tensors(CONFIG), CONFIG))
    assert read_head(tmp_path).config.aux_layer_ids == expected


def test_speculators_directory(tmp_path):
    config = replace(CONFIG, norm_before_residual=True, norm_output=True, aux_layer_ids=(2, 4, 5))
    tensors = random_tensors(config, torch.bfloat16)
    file = stored(tensors, config, "layers.0.") | {"embed_tokens.weight": torch.randn(50, 16)}
    layer = {k: v for k, v in FLAT.items() if k not in ("architectures", "draft_vocab_size")}
    fields = {
        "speculators_model_type": "eagle3",
        "architectures": ["Eagle3Speculator"],
        "transformer_layer_config": layer | {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}},
        "draft_vocab_size": 20,
        "norm_output": True,
        "eagle_aux_hidden_state_layer_ids": [2, 4, 5],
    }
    head = read_head(save(tmp_path, fields, file))
    assert head.config == config
    assert_same(head, tensors)
    (tmp_path / "config.json").write_text(json.dumps(fields | {"speculators_model_type": "dflash"}))
    with pytest.raises(CheckpointError, match="speculators model of type 'dflash'"):
        read_head(tmp_path)


def test_every_wrong_tensor_is_named_at_once(tmp_path):
    file = stored(random_tensors(CONFIG), CONFIG)
    del file["norm.weight"]
    file["midlayer.mlp.up_proj.weight"] = torch.zeros(24, 17)
    file["midlayer.surplus.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as error:
        read_head(save(tmp_path, FLAT, file))
    message = str(error.value)
    assert "norm.weight is missing" in message
    assert "layers.0.surplus.weight is unexpected" in message
    assert "layers.0.mlp.up_proj.weight has shape [24, 17] instead of [24, 16]" in message


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            lambda d2t: d2t.index_fill_(0, torch.tensor([19]), 31),
            r"d2t\[19\] = 31 maps draft token 19 to target token 50",
        ),
        (lambda d2t: d2t.index_fill_(0, torch.tensor([0]), -1), r"d2t\[0\] = -1 maps"),
        (lambda d2t: d2t.copy_(-torch.arange(20)), "strictly ascending"),
        (lambda d2t: d2t.copy_(torch.zeros(20, dtype=torch.int64)), "t2d of the head name different"),
    ],
)
def test_damaged_d2t(tmp_path, damage, message):
    file = stored(random_tensors(CONFIG), CONFIG)
    damage(file["d2t"])
    with pytest.raises(CheckpointError, match=message):
        read_head(save(tmp_path, FLAT, file))


def test_d2t_with_target_ids_instead_of_offsets(tmp_path):
    file = stored(random_tensors(CONFIG), CONFIG)
    file["d2t"] = file["t2d"].nonzero()[:, 0]
    with pytest.raises(CheckpointError, match="holds target ids; it must hold offsets"):
        read_head(save(tmp_path, FLAT, file))
    file["t2d"] = file["t2d"][:-1]
    with pytest.raises(CheckpointError, match=r"t2d has shape \[49\] instead of \[50\]"):
        read_head(save(tmp_path, FLAT, file))


@pytest.mark.parametrize(
    "fields, extra, message",
    [
        ({"eagle_config": {"use_aux_hidden_state": False}}, {}, "last hidden state alone"),
        ({}, {"midlayer.self_attn.kv_a_proj_with_mqa.weight": torch.ones(1)}, "latent attention"),
        ({}, {"midlayer.self_attn.q_norm.weight": torch.ones(6)}, "norms of queries and keys"),
        ({"partial_rotary_factor": 0.5}, {}, "rotates a part of its queries and keys"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, {}, r"partial_rotary_factor 0\.5"),
        ({"sliding_window": 16}, {}, r"sliding window \(sliding_window 16\)"),
        ({"sliding_window": 16, "layer_types": ["sliding_attention"]}, {}, "attends a sliding window"),
        ({"rope_scaling": {"rope_type": "spiral"}}, {}, "rope_type is 'spiral'; this reader takes default, linear"),
        ({"rope_scaling": {"type": "linear"}}, {}, "rope_type is 'linear', and its config.json lacks factor"),
        ({}, {"fc.weight": torch.full((16, 48), torch.nan)}, "fc.weight holds NaN or infinity"),
        ({}, {"norm.weight": torch.ones(16, dtype=torch.int8)}, "norm.weight holds torch.int8 instead of floats"),
    ],
)
def test_heads_that_cannot_run_here(tmp_path, fields, extra, message):
    file = stored(random_tensors(CONFIG), CONFIG) | extra
    with pytest.raises(CheckpointError, match=message):
        read_head(save(tmp_path, FLAT | fields, file))


@pytest.mark.parametrize("unused", [{"use_sliding_window": False}, {"layer_types": ["full_attention"]}])
def test_a_window_that_the_layer_does_not_have(tmp_path, unused):
    read_head(save(tmp_path, FLAT | {"sliding_window": 16} | unused, stored(random_tensors(CONFIG), CONFIG)))


@pytest.mark.parametrize(
    "content, message",
    [(b"{", "is not JSON"), (b"\xff\xfe", "is not JSON"), (b"[]", "holds a list instead of an object")],
)
def test_a_damaged_config_is_named_whatever_reads_it(tmp_path, content, message):
    save(tmp_path, FLAT, stored(random_tensors(CONFIG), CONFIG))
    (tmp_path / "config.json").write_bytes(content)
    for read in (read_head, is_causal_lm):
        with pytest.raises(CheckpointError, match=rf"config\.json {message}"):
            read(tmp_path)


def test_unreadable_directories(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        read_head(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(FLAT))
    with pytest.raises(CheckpointError, match="holds 0 weight files"):
        read_head(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_head(tmp_path)


def test_a_torn_weight_file_is_not_half_read(tmp_path):
    write_head(tmp_path, CONFIG, random_tensors(CONFIG))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut short"):
        read_head(tmp_path)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"num_key_value_heads": 3}, "multiple"),
        ({"vocab_size": 10}, "1..10"),
        ({"hidden_size": "16", "vocab_size": 0}, "says hidden_size '16', vocab_size 0; these are positive"),
        ({"eagle_aux_hidden_state_layer_ids": "1, 2"}, "layer_ids are '1, 2'; they are a list of layer numbers"),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [1.5]}}, r"are \[1\.5\]; they are a list"),
    ],
)
def test_impossible_configurations(tmp_path, fields, message):
    save(tmp_path, FLAT | fields, stored(random_tensors(CONFIG), CONFIG))
    with pytest.raises(CheckpointError, match=message):
        read_head(tmp_path)


def test_a_head_without_fc_is_not_eagle3(tmp_path):
    file = stored(random_tensors(CONFIG), CONFIG)
    del file["fc.weight"]
    with pytest.raises(CheckpointError, match=r"no fc\.weight"):
        read_head(save(tmp_path, FLAT, file))


def test_two_spellings_of_one_tensor(tmp_path):
    file = stored(random_tensors(CONFIG), CONFIG)
    file["layers.0.hidden_norm.weight"] = file["midlayer.hidden_norm.weight"].clone()
    with pytest.raises(CheckpointError, match=r"Two tensors of the head are both 'layers\.0\.hidden_norm\.weight'"):
        read_head(save(tmp_path, FLAT, file))


def test_writing_refuses_wrong_tensors_and_formats(tmp_path):
    tensors = random_tensors(CONFIG)
    with pytest.raises(CheckpointError, match="'other'"):
        write_head(tmp_path, CONFIG, tensors, format="other")
    del tensors["d2t"]
    with pytest.raises(CheckpointError, match="d2t is missing"):
        write_head(tmp_path, CONFIG, tensors)


def test_check_fits_names_everything_that_disagrees():
    target = LlamaConfig(hidden_size=16, num_attention_heads=4, vocab_size=50, num_hidden_layers=8)
    check_fits(CONFIG, target)
    check_fits(replace(CONFIG, aux_layer_ids=(0, 4, 8)), target)
    wrong = LlamaConfig(hidden_size=32, num_attention_heads=4, vocab_size=60, num_hidden_layers=8)
    with pytest.raises(CheckpointError, match=r"hidden size 16 against the target's 32; vocabulary 50 against.*60"):
        check_fits(CONFIG, wrong)
    with pytest.raises(CheckpointError, match=r"layer ids \[3, 4, 10\] against the target's 8 layers"):
        check_fits(replace(CONFIG, aux_layer_ids=(3, 4, 10)), target)
    with pytest.raises(CheckpointError, match="3 fused features against 2 layer ids"):
        check_fits(CONFIG, LlamaConfig(hidden_size=16, num_attention_heads=4, vocab_size=50, num_hidden_layers=6))

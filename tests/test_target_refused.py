"""What is no target, each refused in one sentence before a decoder is made: other models, wrappers, missing weights."""

import pytest
import torch
from models import tiny_target
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from eagle_decoding import SpeculativeDecoder
from eagle_decoding.drafts import NoDraft
from eagle_decoding.target import Target

TINY = {"vocab_size": 20, "hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def target():
    return tiny_target()


def test_loading_arguments_for_a_loaded_target_are_refused(target):
    with pytest.raises(ValueError, match="dtype say how to load a model and this one is loaded"):
        SpeculativeDecoder.from_pretrained(target, "prompt-lookup", dtype=torch.bfloat16)


def test_unsupported_targets_are_refused():
    from transformers import GPT2Config, GPT2LMHeadModel

    with pytest.raises(ValueError, match="'gpt2' is not supported"):
        Target(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=20)))


@pytest.mark.parametrize("kind", ["mistral", "phi3"])
def test_windows_shorter_than_a_tree_are_refused_before_a_decoder_is_made(kind):
    target = tiny_target(kind)
    target.config.sliding_window = 127
    with pytest.raises(ValueError, match="sliding window of 127 tokens, and tree attention takes windows from 128 on"):
        SpeculativeDecoder.from_pretrained(target, "prompt-lookup")


def test_models_that_attend_in_both_directions_are_refused():
    target = tiny_target("gemma3", use_bidirectional_attention=True)
    with pytest.raises(ValueError, match="attends in both directions and cannot decode"):
        SpeculativeDecoder.from_pretrained(target, "prompt-lookup")


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 4.0},
        {"rope_type": "longrope", "factor": 2.0, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_rotary_embeddings_that_depend_on_the_other_rows_are_refused(rope):
    """Drafts reach past the length at which they rescale before plain decoding does."""
    config = LlamaConfig(rope_parameters={"rope_theta": 1e4, "original_max_position_embeddings": 24, **rope}, **TINY)
    with pytest.raises(ValueError, match=f"'llama' has {rope['rope_type']} rotary embeddings"):
        SpeculativeDecoder(LlamaForCausalLM(config), NoDraft())


def test_short_windows_of_some_layers_are_refused_and_those_out_of_use_are_not():
    windows = {"sliding_window": 8, "use_sliding_window": True}
    with pytest.raises(ValueError, match="'smollm3' has a sliding window of 8 tokens"):
        SpeculativeDecoder(tiny_target("smollm3", **windows), NoDraft())
    SpeculativeDecoder(tiny_target("smollm3", **(windows | {"use_sliding_window": False})), NoDraft())


def wide_heads() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(head_dim=260, **TINY))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: SpeculativeDecoder.from_pretrained("./nowhere", "suffix"), "^./nowhere does not exist: give a dir"),
        (lambda t: SpeculativeDecoder.from_pretrained("no.gguf", "suffix"), "^no.gguf does not exist"),
        (lambda t: SpeculativeDecoder("a/model", NoDraft()), "Target must be a loaded .* got a str"),
        (lambda t: SpeculativeDecoder.from_pretrained(None, "suffix"), "Target must be a loaded .* got a NoneType"),
        (lambda t: SpeculativeDecoder(t, "suffix"), "draft must be a loaded draft, got 'suffix': .*from_pretrained"),
        (lambda t: SpeculativeDecoder(t, None), "draft must be a loaded draft, got None"),
        (lambda t: SpeculativeDecoder.from_pretrained(t, "suffix", tree=(8, 4, 4)), r"TreeConfig, got \(8, 4, 4\)"),
        (lambda t: SpeculativeDecoder(tiny_target(dtype=torch.float64), NoDraft()), "torch.float64 weights: load it"),
        (
            lambda t: SpeculativeDecoder(t.model, NoDraft()),
            "LlamaModel has no output projection .*AutoModelForCausalLM",
        ),
        (lambda t: SpeculativeDecoder(wide_heads(), NoDraft()), "heads of 260 numbers, .* takes up to 256"),
    ],
)
def test_decoders_that_cannot_be_made(target, make, message):
    with pytest.raises(ValueError, match=message):
        make(target)


class PeftModel(torch.nn.Module):
    """What shows a wrapper of peft's to be one."""

    peft_config = None


@pytest.mark.parametrize("make", [SpeculativeDecoder.from_pretrained, lambda t, d: SpeculativeDecoder(t, NoDraft())])
@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        (lambda t: PeftModel(), r"^Target must be .* got a PeftModel: give what its merge_and_unload\(\) returns"),
        (torch.compile, "^Target must be .* got a OptimizedModule: give the model that torch.compile was given"),
        (torch.nn.DataParallel, "^Target must be .* got a DataParallel: .* or unwrap it"),
        (lambda t: tiny_target().to("meta"), "^Target is on the meta device, where weights hold no numbers: load"),
    ],
    ids=["peft", "compile", "parallel", "meta"],
)
def test_wrappers_and_models_without_weights(target, make, wrapper, message):
    with pytest.raises(ValueError, match=message):
        make(wrapper(target), "suffix")


def test_a_directory_that_holds_no_whole_model_is_no_target(saved, target, tmp_path):
    head = saved[3]
    with pytest.raises(ValueError, match=r"lacks .* weights of the LlamaForCausalLM .* a draft head goes with"):
        SpeculativeDecoder.from_pretrained(head, "suffix")
    weights = target.state_dict()
    del weights["model.layers.1.mlp.up_proj.weight"], weights["lm_head.weight"]
    target.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match=r"lacks 1 weights .* model.layers.1.mlp.up_proj.weight"):
        SpeculativeDecoder.from_pretrained(tmp_path, "suffix")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"has weights that cannot be read .* fetch them again"):
        SpeculativeDecoder.from_pretrained(tmp_path, "suffix")


def test_a_hub_id_that_does_not_load_is_named(monkeypatch):
    def offline(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect.\nCheck your internet connection.")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", offline)
    with pytest.raises(OSError, match=r"no some/model here, and it did not come from the hub: We couldn't connect\.$"):
        SpeculativeDecoder.from_pretrained("some/model", "suffix")

"""A model of the target's first layers: what it computes, and what is refused."""

import pytest
import torch
from chat_target import chat_target
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.first_layers import write_first_layers


def test_it_is_the_target_cut_off(tmp_path):
    chat_target(tmp_path / "target")
    write_first_layers(str(tmp_path / "target"), 1, tmp_path / "small")
    target = AutoModelForCausalLM.from_pretrained(tmp_path / "target")
    small = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    ids = torch.arange(1, 9)[None]
    states = []
    target.model.layers[0].register_forward_hook(lambda module, given, output: states.append(output))
    target(ids)
    expected = target.lm_head(target.model.norm(states[0]))
    assert torch.allclose(small(ids).logits, expected, atol=1e-6)
    assert AutoTokenizer.from_pretrained(tmp_path / "small").get_vocab() == (
        AutoTokenizer.from_pretrained(tmp_path / "target").get_vocab()
    )
    with pytest.raises(ValueError, match="exists already"):
        write_first_layers(str(tmp_path / "target"), 1, tmp_path / "small")
    with pytest.raises(ValueError, match="9 layers were asked for"):
        write_first_layers(str(tmp_path / "target"), 9, tmp_path / "other")

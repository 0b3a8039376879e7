"""What generate refuses, each in one sentence: what is no prompt, what another way of decoding needs, odd seeds."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models import eagle_decoder, prompts, tiny_target
from torch.nn import functional
from transformers import BatchEncoding, GenerationConfig

IDS = torch.full((1, 4), 5)
TWO = torch.full((2, 4), 5)
TWICE = {"do_sample": True, "num_return_sequences": 2}


@pytest.fixture(scope="module")
def target():
    return tiny_target()


@pytest.fixture(scope="module")
def decoder(target):
    return eagle_decoder(target)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("hello", "got a str: give the tokenizer return_tensors"),
        ([[1, 2]], "got a list"),
        (BatchEncoding({"input_ids": IDS}), "got a BatchEncoding: .* pass what it returns as ..inputs"),
        (IDS[0], r"torch.int64 \[4\]"),
        (IDS.float(), r"torch.float32 \[1, 4\]"),
        (torch.empty(0, 4, dtype=torch.long), "at least one request"),
        (torch.empty(1, 0, dtype=torch.long), "at least one token"),
        (torch.full((1, 300), 5), "The prompt has 300 tokens .* context 256"),
        (torch.tensor([[5, 97]]), "token 97 and the target knows 0 to 96: use the target's tokenizer"),
        (torch.tensor([[5, -1]]), "token -1 and"),
    ],
)
def test_prompts(decoder, prompt, message):
    with pytest.raises(ValueError, match=message):
        decoder.generate(prompt, max_new_tokens=4)
    if not isinstance(prompt, BatchEncoding):
        with pytest.raises(ValueError, match=message):
            decoder.generate(input_ids=prompt, max_new_tokens=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention_mask": torch.tensor([[1] * 4, [0] * 4])}, "attention_mask of request 1 is zero"),
        ({"attention_mask": torch.tensor([[0, 1, 1, 1]])}, "a row for each of 2 requests, got 1"),
        ({"attention_mask": torch.tensor([[0, 1, 1, 1, 1]] * 2)}, "attention_mask must have as many columns .* got 5"),
        ({"attention_mask": torch.ones(2, 5)}, "attention_mask or position_ids must have as many columns .* 4, got 5"),
        ({"position_ids": torch.arange(3, 7).repeat(2, 1)}, "position_ids count .* from 0"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"seed": [1]}, "one per request or per returned sequence: got 1 for 2 requests and 2 sequences"),
        ({"seed": [1] * 3, **TWICE}, "got 3 for 2 requests and 4 sequences"),
        ({"seed": [2**63 - 1, 0], **TWICE}, r"fit into 64 bits, got \[9223372036854775807, 0\]"),
        ({"seed": 1.5}, "one integer or one per request, got 1.5"),
        ({"seed": "abc"}, "one integer or one per request, got 'abc'"),
        ({"seed": "12"}, "one integer or one per request, got '12'"),
        ({"seed": [1.5, 2]}, r"one integer or one per request, got \[1.5, 2\]"),
        ({"seed": torch.tensor(1.5)}, r"one integer or one per request, got 1.5"),
        ({"seed": torch.tensor([1.0, 2.0])}, r"one integer or one per request, got \[1.0, 2.0\]"),
        (
            {"temperature": [float("nan"), 0.5]},
            "temperature must be finite, 0 .greedy. or above, got nan for request 0",
        ),
        ({"temperature": [0.5, -1.0]}, "temperature must be .* got -1.0 for request 1"),
        ({"temperature": torch.tensor(0.5)}, "temperature must be one number or one per request"),
        ({"temperature": ["a", "b"]}, "temperature must be one number or one per request, got ..a., .b.."),
        ({"temperature": "0.5", "do_sample": True}, "temperature"),
        ({"top_p": [0.5, -1.0]}, "top_p must be from 0 to 1, got -1.0 for request 1"),
        ({"top_p": [2.0, 0.9]}, "top_p must be from 0 to 1, got 2.0 for request 0"),
        ({"min_p": [7, 0]}, "min_p must be from 0 to 1, got 7.0 for request 0"),
        ({"top_k": [-2, 5]}, "top_k must be an integer, 0 .off. or above, got -2.0 for request 0"),
        ({"top_k": [5, 2.9]}, "top_k must be an integer, .* got 2.9 for request 1"),
        ({"seed": 2**63 - 1}, "fit into 64 bits, got 9223372036854775807"),
        ({"stop_strings": "x"}, "tokenizer"),
        ({"guidance_scale": 1.5}, "guidance_scale"),
        ({"typical_acceptance": True}, r"takes a TypicalAcceptance\(\), got True"),
        ({"return_dict_in_generate": True, "output_hidden_states": True}, "output_hidden_states cannot be returned"),
        ({"num_beams": 2}, "num_beams asked for beam search"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "penalty_alpha asked for contrastive search"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens asked for assisted generation"),
        ({"generation_config": GenerationConfig(max_new_tokens=4, num_beams=2)}, "num_beams asked for beam search"),
        ({"assistant_model": object()}, "assistant_model is another way of decoding"),
        ({"custom_generate": object()}, "custom_generate is another way of decoding"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_settings(decoder, settings, message):
    with pytest.raises(ValueError, match=message):
        decoder.generate(TWO, **{"max_new_tokens": 4, **settings})


@pytest.mark.parametrize("settings", [{"seed": [1, 2, 3]}, {"temperature": [0.5, -1.0]}, {"min_p": [2, 0]}], ids=str)
def test_nothing_is_streamed_before_a_call_is_refused(decoder, settings):
    streamed = []
    streamer = SimpleNamespace(put=streamed.append, end=lambda: streamed.append(None))
    with pytest.raises(ValueError, match="must be"):
        decoder.generate(TWO, max_new_tokens=4, do_sample=True, streamer=streamer, **settings)
    assert streamed == []


def test_a_target_that_was_converted_after_its_draft_was_loaded():
    target = tiny_target()
    decoder = eagle_decoder(target)
    target.bfloat16()
    with pytest.raises(ValueError, match=r"torch.float32 on cpu, and the target is in torch.bfloat16 on cpu now"):
        decoder.generate(IDS, max_new_tokens=4)
    assert decoder.generate(IDS, max_new_tokens=4, speculate=False).shape[1] > 4


@pytest.mark.parametrize("config", [torch.ones_like(IDS), {"max_new_tokens": 4}])
def test_what_is_no_configuration(decoder, config):
    with pytest.raises(ValueError, match=f"GenerationConfig, got a {type(config).__name__}: pass other arguments by"):
        decoder.generate(IDS, config)


def test_embeddings_and_caches(target, decoder):
    with pytest.raises(ValueError, match="pass input_ids"):
        decoder.generate(inputs_embeds=torch.zeros(1, 4, 32), max_new_tokens=4)
    with pytest.raises(ValueError, match="past_key_values hold 4 tokens"):
        decoder.generate(IDS, past_key_values=target(IDS).past_key_values, max_new_tokens=4)


class Wrapped(torch.nn.Module):
    """Embeddings as an adapter's layer holds them: with their weight, and without the number of them."""

    def __init__(self, embeddings):
        super().__init__()
        self.base, self.weight = embeddings, embeddings.weight

    def forward(self, tokens):
        return self.base(tokens)


def test_tokens_of_a_target_with_wrapped_embeddings():
    target = tiny_target(tie_word_embeddings=False)
    decoder = eagle_decoder(target)
    target.set_input_embeddings(Wrapped(target.get_input_embeddings()))
    settings = {"do_sample": False, "max_new_tokens": 6}
    assert torch.equal(decoder.generate(IDS, **settings), target.generate(IDS, **settings))
    with pytest.raises(ValueError, match="token 97 and the target knows 0 to 96"):
        decoder.generate(torch.tensor([[5, 97]]), **settings)


@pytest.mark.parametrize("seed", [np.int64(3), torch.tensor(3), np.array([3]), torch.tensor([3])])
def test_seeds_of_other_types(decoder, seed):
    settings = {"do_sample": True, "max_new_tokens": 6}
    ids = prompts(1)["input_ids"]
    assert torch.equal(decoder.generate(ids, seed=seed, **settings), decoder.generate(ids, seed=3, **settings))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_masks_and_positions_of_the_tokenizer_kind(target, decoder, dtype):
    inputs, settings = prompts(3), {"do_sample": False, "max_new_tokens": 6}
    positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    expected = target.generate(**inputs, **settings)
    inputs["attention_mask"] = inputs["attention_mask"].to(dtype)
    assert torch.equal(decoder.generate(**inputs, **settings, position_ids=positions), expected)


def test_padding_does_not_count_as_context(target, decoder):
    inputs = {name: functional.pad(value, (250, 0)) for name, value in prompts(2).items()}
    settings = {"do_sample": False, "max_new_tokens": 4}
    assert torch.equal(decoder.generate(**inputs, **settings), target.generate(**inputs, **settings))


def test_a_prompt_that_fills_the_context_is_refused(decoder):
    with pytest.raises(ValueError, match="The prompt has 256 tokens and the target's context 256: shorten it"):
        decoder.generate(torch.full((1, 256), 5), max_new_tokens=1)

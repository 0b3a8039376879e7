"""generate: the arguments and return types of transformers' generate."""

from copy import deepcopy

import pytest
import torch
from models import PAD, VOCAB, ScriptedDraft, eagle_decoder, prompts, tiny_target
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import (
    GenerationConfig,
    MaxTimeCriteria,
    PreTrainedTokenizerFast,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
    pipeline,
)
from transformers.generation import MaxLengthCriteria, stopping_criteria
from transformers.generation.streamers import BaseStreamer

from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.drafts import NoDraft
from eagle_decoding.drafts.causal_lm import CausalLmDraft
from eagle_decoding.target import Target


class Recorder(BaseStreamer):
    def __init__(self) -> None:
        self.chunks: list[torch.Tensor] = []
        self.ended = False

    def put(self, value: torch.Tensor) -> None:
        self.chunks.append(value)

    def end(self) -> None:
        self.ended = True


class StopAt(StoppingCriteria):
    """Stops a sequence once it holds the token."""

    def __init__(self, token: int):
        self.token = token

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        return (input_ids[:, 11:] == self.token).any(dim=1)


class StopWhenUnsure(StoppingCriteria):
    """Stops a sequence at its first token of a probability below `bar`, and keeps how many scores it was shown."""

    def __init__(self, bar: float):
        self.bar = bar
        self.shown: list[int] = []

    def __call__(self, input_ids: torch.Tensor, scores: tuple[torch.Tensor, ...], **kwargs: object) -> torch.Tensor:
        self.shown.append(len(scores))
        return scores[-1].softmax(-1).gather(1, input_ids[:, -1:]).squeeze(1) < self.bar


@pytest.fixture(scope="module")
def target():
    return tiny_target()


@pytest.fixture(scope="module")
def decoder(target):
    return eagle_decoder(target)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"max_length": 30},
        {"generation_config": GenerationConfig(max_new_tokens=25, do_sample=False, pad_token_id=PAD)},
        {"max_new_tokens": 30, "repetition_penalty": 1.5},
        {"max_new_tokens": 30, "no_repeat_ngram_size": 2},
        {"max_new_tokens": 30, "min_new_tokens": 20},
        {"max_new_tokens": 30, "bad_words_ids": [[5], [6, 7]]},
        {"max_new_tokens": 30, "suppress_tokens": [10, 11, 12, 40]},
        {"max_new_tokens": 30, "prefix_allowed_tokens_fn": lambda b, ids: list(range(3 + b, 60 + len(ids) % 3))},
        {"max_new_tokens": 20, "num_return_sequences": 2},
    ],
    ids=lambda k: "-".join(k),
)
@pytest.mark.parametrize("batch", [1, 3])
def test_arguments(target, decoder, kwargs, batch):
    if "num_return_sequences" in kwargs:
        kwargs = {**kwargs, "do_sample": True, "temperature": 1e-3}
    else:
        kwargs = {"do_sample": False, **kwargs}
    inputs = prompts(batch)
    assert torch.equal(decoder.generate(**inputs, **kwargs), target.generate(**inputs, **kwargs))


def test_positional_input_and_custom_generate(target, decoder):
    ids = prompts(1)["input_ids"]
    expected = target.generate(ids, do_sample=False, max_new_tokens=20)
    assert torch.equal(decoder.generate(ids, do_sample=False, max_new_tokens=20), expected)
    assert torch.equal(target.generate(ids, do_sample=False, max_new_tokens=20, custom_generate=decoder), expected)
    sampled = {"do_sample": True, "max_new_tokens": 20, "seed": 3}
    direct = decoder.generate(ids, **sampled)
    assert torch.equal(target.generate(ids, custom_generate=decoder, **sampled), direct)


def test_a_positional_configuration(target, decoder):
    inputs, config = prompts(3), GenerationConfig(max_new_tokens=9, do_sample=False, pad_token_id=PAD)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    expected = target.generate(ids, config, attention_mask=mask)
    assert torch.equal(decoder.generate(ids, config, attention_mask=mask), expected)
    config.stop_strings = ["x"]
    with pytest.raises(ValueError, match=r"stop_strings .* need the tokenizer"):
        decoder.generate(ids, config)


@pytest.mark.parametrize("batch", [1, 3])
def test_stopping_criteria(target, batch):
    inputs = prompts(batch)
    text = target.generate(**inputs, do_sample=False, max_new_tokens=40, eos_token_id=None)
    absent = next(token for token in range(97) if token not in text)  # an end token makes generate pad what has stopped
    criteria = StoppingCriteriaList([StopAt(int(text[0, 25])), MaxTimeCriteria(600)])
    settings = {"do_sample": False, "max_new_tokens": 40, "stopping_criteria": criteria, "eos_token_id": absent}
    expected = target.generate(**inputs, **settings)
    texts = [row[int((m == 0).sum()) :].tolist() for row, m in zip(text, inputs["attention_mask"], strict=True)]
    decoder = SpeculativeDecoder(target, ScriptedDraft(texts, accuracy=0.9, num_nodes=12))
    assert torch.equal(decoder.generate(**inputs, **settings), expected)


@pytest.mark.parametrize("batch", [1, 3])
def test_criteria_see_the_scores_of_emitted_tokens_only(target, batch):
    """A criterion reads the newest token's scores where rounds accept four tokens at once."""
    decoder = SpeculativeDecoder(target, CausalLmDraft(deepcopy(target), VOCAB, TreeConfig(6, 5, 1)))
    settings = {"do_sample": False, "max_new_tokens": 40, "return_dict_in_generate": True, "output_scores": True}
    settings |= {"eos_token_id": None, **prompts(batch)}
    for bar in (0.082, 0.075):
        plainly, drafting = StopWhenUnsure(bar), StopWhenUnsure(bar)
        plain = decoder.generate(**settings, speculate=False, stopping_criteria=[plainly])
        drafted = decoder.generate(**settings, stopping_criteria=[drafting])
        assert torch.equal(drafted.sequences, plain.sequences)
        for mine, theirs in zip(drafted.scores, plain.scores, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
        assert sorted(drafting.shown) == sorted(plainly.shown)
    assert decoder.stats.tokens_per_round > 3


@pytest.mark.parametrize(
    "warpers", [{}, {"repetition_penalty": 1.2}, {"do_sample": True, "temperature": 0.8, "top_k": 9}]
)
def test_scores_and_logits(target, decoder, warpers):
    """Scores are those of plain decoding, step by step."""
    settings = {
        "max_new_tokens": 20,
        "return_dict_in_generate": True,
        "output_scores": True,
        "output_logits": True,
        **{"do_sample": False, **warpers},
    }
    inputs = prompts(1)
    result = decoder.generate(**inputs, seed=4, **settings)
    plain = decoder.generate(**inputs, seed=4, speculate=False, **settings)
    if not settings["do_sample"]:
        plain = target.generate(**inputs, **settings)
    assert torch.equal(result.sequences, plain.sequences)
    assert len(result.scores) == len(result.logits) == result.sequences.shape[1] - inputs["input_ids"].shape[1]
    for step, (mine, theirs) in enumerate(zip(result.scores + result.logits, plain.scores + plain.logits, strict=True)):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4, msg=f"step {step}")


@pytest.mark.parametrize("from_the_other_side", [False, True])
@pytest.mark.parametrize("settings", [{}, {"num_return_sequences": 2, "do_sample": True, "seed": 1}], ids=len)
@pytest.mark.parametrize("batch", [1, 3])
def test_streamer(target, decoder, batch, settings, from_the_other_side):
    """It gets what transformers' generate gives one: the prompts as they are decoded, a column a step, the end."""
    streamer, inputs = Recorder(), prompts(batch)
    settings = {"do_sample": False, "max_new_tokens": 25, **settings}
    if from_the_other_side:
        output = target.generate(**inputs, **settings, custom_generate=decoder, token_streamer=streamer)
    else:
        output = decoder.generate(**inputs, **settings, streamer=streamer)
    assert streamer.ended
    assert torch.equal(streamer.chunks[0], output[:, : inputs["input_ids"].shape[1]])
    assert torch.equal(torch.stack(streamer.chunks[1:], dim=1), output[:, inputs["input_ids"].shape[1] :])


def test_a_streamer_that_transformers_keeps_for_itself(target, decoder):
    """Once this fails, transformers passes streamer= on, and token_streamer= need not be."""
    streamer = Recorder()
    target.generate(**prompts(1), max_new_tokens=8, custom_generate=decoder, streamer=streamer)
    assert len(streamer.chunks) == 1 and not streamer.ended


@pytest.mark.parametrize("batch", [1, 2])
def test_a_length_criterion_shorter_than_the_prompt_stops_after_one_token(target, decoder, batch):
    inputs = prompts(batch)
    settings = {"do_sample": False, "max_new_tokens": 8, "stopping_criteria": [MaxLengthCriteria(5)]}
    assert torch.equal(decoder.generate(**inputs, **settings), target.generate(**inputs, **settings))


@pytest.mark.parametrize("lengths", [(14, 17), (17, 14)])
def test_the_shortest_of_several_length_criteria_stops(target, decoder, lengths):
    criteria = StoppingCriteriaList([MaxLengthCriteria(length) for length in lengths])
    settings = {**prompts(2), "do_sample": False, "eos_token_id": None, "stopping_criteria": criteria}
    text, expected = decoder.generate(**settings), target.generate(**settings)
    assert text.shape == (2, 14) and torch.equal(text, expected)


@pytest.mark.parametrize("limit", [3.5, 4.0, float("inf")])
@pytest.mark.parametrize("speculate", [True, False])
def test_a_limit_that_is_no_integer_is_rounded_up(target, decoder, limit, speculate):
    """As in generate, where a text has ended once it is not shorter; without end, nothing but an end token ends it."""
    inputs = prompts(2)
    text = target.generate(**inputs, do_sample=False, max_new_tokens=12, eos_token_id=None)
    settings = {"do_sample": False, "max_new_tokens": limit, "eos_token_id": text[:, -1].tolist()}
    expected = target.generate(**inputs, **settings)
    assert torch.equal(decoder.generate(**inputs, **settings, speculate=speculate), expected)


@pytest.mark.parametrize("length", [246, 245])
def test_leaving_the_context_is_warned_of_as_in_generate(monkeypatch, target, decoder, length):
    """A text of 257 tokens is the first that leaves a context of 256, and says so if it goes on."""
    warnings: list[str] = []
    monkeypatch.setattr(stopping_criteria.logger, "warning_once", warnings.append)
    settings = {**prompts(1), "do_sample": False, "max_new_tokens": length + 1, "eos_token_id": None}
    target.generate(**settings)
    expected = list(dict.fromkeys(warnings))
    assert len(expected) == (length == 246)
    for speculate in (True, False):
        warnings.clear()
        decoder.generate(**settings, speculate=speculate)
        assert list(dict.fromkeys(warnings)) == expected


def letters() -> PreTrainedTokenizerFast:
    """Token i is a character: stop strings need a tokenizer that gives back any letters."""
    tokenizer = Tokenizer(WordLevel({chr(33 + i): i for i in range(VOCAB)}, unk_token="!"))
    tokenizer.pre_tokenizer = Split("", "isolated")
    tokenizer.decoder = Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("where", ["arguments", "given-configuration", "target-configuration"])
def test_stop_strings(monkeypatch, target, decoder, where):
    tokenizer, ids = letters(), prompts(1)["input_ids"]
    text = target.generate(ids, do_sample=False, max_new_tokens=20, eos_token_id=None)[0, 11:]
    settings = {"do_sample": False, "max_new_tokens": 20, "eos_token_id": None}
    strings = [tokenizer.decode(text[9:10])]
    if where == "arguments":
        settings["stop_strings"] = strings
    elif where == "given-configuration":
        settings = {"generation_config": GenerationConfig(**settings, stop_strings=strings)}
    else:
        monkeypatch.setattr(target.generation_config, "stop_strings", strings)
    expected = target.generate(ids, tokenizer=tokenizer, **settings)
    assert expected.shape[1] < 31
    assert torch.equal(decoder.generate(ids, tokenizer=tokenizer, **settings), expected)


def test_stop_strings_from_the_other_side(target, decoder):
    tokenizer, ids = letters(), prompts(1)["input_ids"]
    settings = {"do_sample": False, "max_new_tokens": 20, "eos_token_id": None}
    strings = [tokenizer.decode(target.generate(ids, **settings)[0, 20:21])]
    criteria = [StopStringCriteria(tokenizer, strings)]
    text = target.generate(ids, custom_generate=decoder, stopping_criteria=criteria, **settings)
    assert text.shape[1] < 31
    assert torch.equal(text, decoder.generate(ids, stop_strings=strings, tokenizer=tokenizer, **settings))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_pipeline_decodes_with_it(target, decoder, batch_size):
    tokenizer = letters()
    tokenizer.pad_token_id, tokenizer.padding_side = PAD, "left"
    write = pipeline("text-generation", model=target, tokenizer=tokenizer)
    texts, settings = ["abcdef", "xyz"], {"batch_size": batch_size, "do_sample": False, "max_new_tokens": 9}
    expected = write(texts, **settings)
    decoder.stats.tokens = 0
    assert write(texts, custom_generate=decoder, **settings) == expected
    assert decoder.stats.tokens > 0


@pytest.mark.parametrize("device", ["cpu", "meta"])  # meta stands for every device that is no CPU
@pytest.mark.parametrize("fused", [{}, {"fused": None}, {"fused": True}, {"fused": False}], ids=str)
def test_fused_means_the_same_to_a_target_and_to_a_decoder(device, fused):
    model = tiny_target()
    decoder = SpeculativeDecoder(model, NoDraft(), **fused)
    model.to(device)
    seen = []
    for target in (Target(model, **fused), Target(model, fused=decoder.fused)):
        with target.attached():
            replaced = {type(module).__name__ for module in model.modules() if "forward" in vars(module)}
        seen.append(replaced)
    linear = fused.get("fused") or device == "cpu"
    everything = {"LlamaRMSNorm", "LlamaMLP"} | ({"Linear", "LlamaDecoderLayer", "LlamaModel"} if linear else set())
    assert seen == [everything if fused.get("fused") is not False else set()] * 2


def test_nan_logits_are_an_error():
    target = tiny_target()
    decoder = eagle_decoder(target)
    with torch.no_grad():
        target.model.norm.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        decoder.generate(**prompts(1), do_sample=False, max_new_tokens=5)

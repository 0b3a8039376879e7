"""Several decoders at once: in threads, and one called from within another, on targets that they share or do not."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from models import eagle_decoder, prompts, tiny_target
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.llama import modeling_llama

from eagle_decoding import SpeculativeDecoder
from eagle_decoding.target import Target

GREEDY = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None}


@pytest.fixture(scope="module")
def target():
    return tiny_target()


@pytest.fixture(scope="module")
def decoder(target):
    return eagle_decoder(target)


def is_stock(target: PreTrainedModel) -> bool:
    """Whether nothing of a decoder is left in the model."""
    replaced = any("forward" in vars(module) for module in target.modules())
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in target.modules())
    return not replaced and not hooked and target.config._attn_implementation == "sdpa"


def calling(action: Callable[[], object]) -> Callable[..., Tensor]:
    """A stopping criterion that stops nothing and does something else."""

    def criterion(input_ids: Tensor, scores: object, **kwargs: object) -> Tensor:
        action()
        return torch.zeros(len(input_ids), dtype=torch.bool)

    return criterion


def test_threads_take_turns():
    """Two decoders of one kind, and one decoder twice: every text is right, and the models are stock again."""
    targets = [tiny_target(), tiny_target()]
    decoders = [eagle_decoder(target) for target in targets]
    settings = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None}
    expected = targets[0].generate(**prompts(1), **settings)
    stock, before = modeling_llama.apply_rotary_pos_emb, targets[0].config._attn_implementation
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(d.generate, **prompts(1), **settings) for _ in range(6) for d in (*decoders, decoders[0])]
    assert all(torch.equal(job.result(), expected) for job in jobs)
    assert modeling_llama.apply_rotary_pos_emb is stock
    for target in targets:
        assert target.config._attn_implementation == before
        assert not any("forward" in vars(module) for module in target.modules())


def test_two_decoders_of_one_target_in_turns_and_in_threads(target):
    one, other = eagle_decoder(target), SpeculativeDecoder.from_pretrained(target, "suffix")
    expected = [target.generate(**prompts(batch), **GREEDY) for batch in (1, 2)]
    for decoder in (one, other, one):
        assert torch.equal(decoder.generate(**prompts(2), **GREEDY), expected[1])
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(d.generate, **prompts(b), **GREEDY) for _ in range(4) for d in (one, other) for b in (1, 2)]
    assert all(torch.equal(job.result(), expected[i % 2]) for i, job in enumerate(jobs))
    assert is_stock(target)


def test_a_thread_that_runs_the_model_itself_disturbs_no_decoder():
    """It runs a prompt whenever a layer of the decoder's own forward has ended."""
    target = tiny_target()
    decoder, ids, busy = eagle_decoder(target), prompts(3)["input_ids"], Lock()
    expected = target.generate(**prompts(1), **GREEDY)
    with ThreadPoolExecutor(1) as pool:

        def run_a_prompt(*_: object) -> None:
            if busy.acquire(blocking=False):
                pool.submit(target, ids).result()
                busy.release()

        for layer in target.model.layers:
            layer.register_forward_hook(run_a_prompt)
        assert torch.equal(decoder.generate(**prompts(1), **GREEDY), expected)


def test_a_decoder_that_is_called_while_another_one_works(decoder):
    """A stopping criterion may decode with another target in the same thread."""
    other = eagle_decoder(tiny_target("qwen3"))
    settings = {"do_sample": False, "max_new_tokens": 6}
    ids = prompts(1)["input_ids"]

    def asks(input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        other.generate(ids, **settings)
        return torch.zeros(len(input_ids), dtype=torch.bool)

    expected = decoder.generate(ids, **settings)
    assert torch.equal(decoder.generate(ids, stopping_criteria=[asks], **settings), expected)


@pytest.mark.parametrize("speculate", [True, False])
def test_a_decoder_of_the_same_target_that_is_called_while_another_one_works(target, decoder, speculate):
    inner = eagle_decoder(target) if speculate else decoder
    expected = [target.generate(**prompts(batch), **GREEDY) for batch in (1, 2)]
    texts: list[Tensor] = []
    asks = calling(lambda: texts.append(inner.generate(**prompts(2), **GREEDY, speculate=speculate)))
    assert torch.equal(decoder.generate(**prompts(1), stopping_criteria=[asks], **GREEDY), expected[0])
    assert texts and all(torch.equal(text, expected[1]) for text in texts)
    assert is_stock(target)


def test_a_draft_that_is_at_work_is_not_lent(target, decoder):
    borrower = SpeculativeDecoder(tiny_target(), decoder.draft)
    for inner in (decoder, borrower):
        asks = calling(lambda inner=inner: inner.generate(**prompts(2), **GREEDY))
        with pytest.raises(ValueError, match="at work with the same draft"):
            decoder.generate(**prompts(1), stopping_criteria=[asks], **GREEDY)
    assert is_stock(target)
    assert torch.equal(decoder.generate(**prompts(1), **GREEDY), target.generate(**prompts(1), **GREEDY))


def test_an_interrupted_call_leaves_nothing_behind(target, decoder):
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decoder.generate(**prompts(2), stopping_criteria=[calling(interrupt)], **GREEDY)
    assert is_stock(target)
    assert torch.equal(decoder.generate(**prompts(1), **GREEDY), target.generate(**prompts(1), **GREEDY))


@pytest.mark.parametrize("speculate", [True, False])
def test_an_interrupted_call_says_how_far_it_came(decoder, speculate):
    calls = 0

    def interrupt() -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decoder.generate(**prompts(1), speculate=speculate, stopping_criteria=[calling(interrupt)], **GREEDY)
    assert decoder.stats.tokens == 6
    assert decoder.stats.rounds > 0


def test_a_forward_of_prompts_from_within_a_call(target, decoder):
    ids = prompts(3)["input_ids"]
    expected, seen = target(ids).logits, []
    decoder.generate(**prompts(1), stopping_criteria=[calling(lambda: seen.append(target(ids).logits))], **GREEDY)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-4)


def test_a_cache_of_another_forward_is_refused(target):
    ids = prompts(1)["input_ids"]
    with torch.no_grad(), Target(target).attached():
        cache = target(ids, use_cache=True).past_key_values
        with pytest.raises(ValueError, match="1 tokens over 12 rows"):
            target(ids[:, :1], past_key_values=cache)


def test_hooks_of_accelerate_stay_and_run():
    class Counting(ModelHook):
        calls = 0

        def pre_forward(self, module: torch.nn.Module, *args: object, **kwargs: object) -> tuple[object, object]:
            self.calls += 1
            return args, kwargs

    target, hook = tiny_target(), Counting()
    decoder, expected = eagle_decoder(target), target.generate(**prompts(1), **GREEDY)
    add_hook_to_module(target.model.layers[1].mlp.down_proj, hook)
    assert torch.equal(decoder.generate(**prompts(1), **GREEDY), expected)
    calls = hook.calls
    assert calls == decoder.stats.rounds + 1
    assert torch.equal(target.generate(**prompts(1), **GREEDY), expected)
    assert hook.calls == calls + 12

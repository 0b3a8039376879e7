"""Whole decodes by captured rounds, on a CPU through a tape with a CUDA graph's rules: the text of the plain loop."""

import gc
from typing import Any

import pytest
import torch
from captures import DECODERS, GREEDY, SAMPLED, texts
from models import EXPERTS, KINDS, tiny_target
from tape import HostReadError, Tape
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

import eagle_kernels
from eagle_decoding import TypicalAcceptance, graph
from eagle_decoding.drafts import load_draft

STOPS = list(range(3, 12))  # so that requests end at different rounds


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", DECODERS)
def test_same_text_in_as_many_rounds(device, captures, name, settings):
    decoder = DECODERS[name](tiny_target().to(device))
    for batch in (1, 3) if name in ("plain", "eagle3-tree") else (3,):
        expected, rounds = texts(decoder, batch, False, **settings)
        before = captures.replays
        text, captured_rounds = texts(decoder, batch, True, **settings)
        assert torch.equal(text, expected)
        assert captured_rounds == rounds
        assert captures.replays > before


def test_a_text_that_outgrows_its_bucket_is_captured_anew(device, captures, monkeypatch):
    target = tiny_target().to(device)
    text, _ = texts(DECODERS["eagle3-tree"](target), 3, True, **SAMPLED)
    assert captures.made > 1
    monkeypatch.setattr(graph, "BUCKET", 1024)
    captures.made = 0
    assert torch.equal(texts(DECODERS["eagle3-tree"](target), 3, True, **SAMPLED)[0], text)
    assert captures.made == 1


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", ["plain", "eagle3-tree"])
def test_stops_are_noticed_late_and_cut_the_same(device, captures, name, settings):
    decoder = DECODERS[name](tiny_target().to(device))
    expected, _ = texts(decoder, 4, False, **settings, eos_token_id=STOPS)
    assert torch.equal(texts(decoder, 4, True, **settings, eos_token_id=STOPS)[0], expected)
    assert len({row.index(0) if 0 in row else len(row) for row in expected[:, 11:].tolist()}) > 1
    assert captures.replays > 0


@pytest.mark.parametrize("name", ["plain", "eagle3-tree", "eagle3-auto-children"])
def test_every_round_is_the_same_operations_on_the_same_memory(name, monkeypatch):
    """Only then is a replay of one round a replay of all."""
    recorded = 0

    def compared(step: graph.Step, device: torch.device) -> graph.Step:
        first = Tape(step)

        def replay() -> None:
            nonlocal recorded
            recorded += 1
            assert Tape(step).signature() == first.signature()
            first.replay()

        return replay

    monkeypatch.setitem(graph.CAPTURES, "cpu", compared)
    texts(DECODERS[name](tiny_target()), 2, True, **SAMPLED, max_new_tokens=8)
    assert recorded > 1


def test_a_round_is_announced_when_all_of_it_is_done(monkeypatch):
    tapes: list[Tape] = []

    def capture(step: graph.Step, device: torch.device) -> graph.Step:
        tapes.append(Tape(step))
        return tapes[-1].replay

    monkeypatch.setitem(graph.CAPTURES, "cpu", capture)
    decoder = DECODERS["eagle3-tree"](tiny_target())
    texts(decoder, 2, True, **GREEDY)
    operation, (target, *_), _, _ = tapes[0].operations[-1]
    assert operation is torch.ops.aten.copy_.default and target is decoder.memories[True].rounds.ring.host_count


class EveryThird(StoppingCriteria):
    """A rule that the device knows nothing of."""

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        return torch.tensor([row[-1] % 3 == 0 and len(row) > 18 for row in input_ids.tolist()], device=input_ids.device)


def test_stopping_criteria_see_every_token(device, captures):
    decoder, criteria = DECODERS["eagle3-tree"](tiny_target().to(device)), StoppingCriteriaList([EveryThird()])
    expected, _ = texts(decoder, 3, False, **SAMPLED, stopping_criteria=criteria)
    assert torch.equal(texts(decoder, 3, True, **SAMPLED, stopping_criteria=criteria)[0], expected)
    assert expected.shape[1] < 11 + 24


def test_no_round_is_run_beyond_the_length(device, captures):
    decoder = DECODERS["plain"](tiny_target().to(device))
    _, rounds = texts(decoder, 1, True, max_new_tokens=15, **GREEDY)
    assert rounds == 14
    assert captures.replays == 14 - 3  # the prompt's round and the first in each of two buckets run by themselves
    assert set(decoder.stats.seconds) == {"prefill", "capture", "launch", "wait", "output"}


def test_says_once_why_there_is_no_graph(device, captures, caplog, monkeypatch):
    caplog.set_level("INFO", "eagle_decoding.graph")
    decoder = DECODERS["eagle3-tree"](tiny_target().to(device))
    texts(decoder, 1, True, repetition_penalty=1.3, max_new_tokens=3)
    decoder.draft = load_draft("suffix", decoder.target)
    texts(decoder, 1, True, max_new_tokens=3)
    decoder.draft = DECODERS["eagle3-tree"](decoder.target).draft
    with eagle_kernels.use_backend("reference"):
        texts(decoder, 1, True, max_new_tokens=3)
    monkeypatch.delitem(graph.CAPTURES, device)
    texts(decoder, 1, True, max_new_tokens=3)
    decoder.target.elsewhere = torch.nn.Parameter(torch.empty(1, device="meta"))
    assert graph.capture_for(decoder.target, decoder.draft, None) is None
    obstacles = (
        "logits processors and recorded scores need every token on the host",
        "TextDraft works on the host",
        "reference ops look at values on the host",
        f"the target is on the {device}",
        f"the target is spread over {decoder.target.lm_head.weight.device}, meta",
    )
    assert caplog.messages == [f"Rounds run one by one instead of as a graph: {why}." for why in obstacles]
    assert captures.made == 0


def test_a_capture_that_fails_is_done_without(device, caplog, monkeypatch):
    decoder = DECODERS["eagle3-tree"](tiny_target().to(device))
    expected, rounds = texts(decoder, 3, False, **SAMPLED)

    def failing(step: graph.Step, device: torch.device) -> graph.Step:
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setitem(graph.CAPTURES, device, failing)
    text, captured_rounds = texts(decoder, 3, True, **SAMPLED)
    assert torch.equal(text, expected) and captured_rounds == rounds
    assert caplog.messages == [
        "Rounds run one by one instead of as a graph: the capture failed (operation not permitted)."
    ]


if torch.cuda.is_available():

    @pytest.mark.parametrize("step", [lambda x: x.tolist(), lambda x: x.view(3)], ids=["waits", "raises"])
    def test_memory_is_freed_after_a_failed_cuda_capture(step):
        device = torch.device("cuda", torch.cuda.current_device())
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved()
        with pytest.raises(RuntimeError):
            graph.cuda_graph(lambda: step(torch.ones(4, device=device)), device)
        gc.collect()  # the error's frames hold what the step made
        torch.empty(64 << 20, dtype=torch.uint8, device=device)
        torch.cuda.empty_cache()
        assert torch.cuda.memory_reserved() == before


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("llama", *EXPERTS)])
def test_stock_models_read_nothing_on_the_host(device, captures, kind):
    decoder = DECODERS["eagle3-tree"](tiny_target(kind).to(device))
    settings = SAMPLED | {"max_new_tokens": 9}
    expected, _ = texts(decoder, 2, False, **settings)
    assert torch.equal(texts(decoder, 2, True, **settings)[0], expected)
    assert captures.replays > 0


def test_a_capture_that_breaks_off_leaves_nothing_behind(captures, caplog, monkeypatch):
    """Mixtral's experts count their rows on the host; the capture notices in the middle of a round."""

    def like_cuda(step: graph.Step, device: torch.device) -> graph.Step:
        try:
            return Tape(step).replay
        except HostReadError as error:
            raise RuntimeError(str(error)) from error

    monkeypatch.setitem(graph.CAPTURES, "cpu", like_cuda)
    decoder = DECODERS["eagle3-tree"](tiny_target("mixtral"))
    settings = SAMPLED | {"max_new_tokens": 9}
    expected, _ = texts(decoder, 2, False, **settings)
    assert torch.equal(texts(decoder, 2, True, **settings)[0], expected)
    assert len(caplog.messages) == 1 and "the capture failed (" in caplog.messages[0]


def test_typical_acceptance_is_captured_too(device, captures):
    decoder, rule = DECODERS["eagle3-tree"](tiny_target().to(device)), TypicalAcceptance()
    expected, _ = texts(decoder, 2, False, **SAMPLED, typical_acceptance=rule)
    assert torch.equal(texts(decoder, 2, True, **SAMPLED, typical_acceptance=rule)[0], expected)
    assert captures.replays > 0


def test_nan_ends_the_run_as_without_a_graph(device, captures):
    target = tiny_target().to(device)
    decoder = DECODERS["eagle3-tree"](target)
    calls = 0

    def poison(module: torch.nn.Module, arguments: Any, logits: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return logits * torch.nan if calls > 2 else logits

    target.get_output_embeddings().register_forward_hook(poison)
    with pytest.raises(ValueError, match="hold NaN or infinity after"):
        texts(decoder, 2, True)

"""Letting the target write its own training text: slots, conversations, resuming after a kill, excluded prompts."""

import json
import os
from itertools import groupby
from operator import itemgetter

import pytest
import torch
from chat_target import chat_target
from models import EOS, VOCAB, eagle_decoder, tiny_target
from safetensors.torch import load_file
from typer.testing import CliRunner

from eagle_decoding import SpeculativeDecoder
from eagle_decoding.cli import app
from eagle_decoding.drafts import NoDraft
from eagle_decoding.generation import end_tokens
from eagle_decoding.slots import Request, SlotDecoder
from eagle_decoding.target import Target
from eagle_decoding.train import regenerate as regenerate_module
from eagle_decoding.train.answering import PlainAnswering, SpeculativeAnswering
from eagle_decoding.train.data import read_token_rows
from eagle_decoding.train.errors import DataError
from eagle_decoding.train.prompts import ChatFormat, read_prompts
from eagle_decoding.train.regenerate import AnswerOptions, regenerate, without_answered

ENDS = frozenset(range(EOS, VOCAB, 12))  # many, so that answers end at all lengths


def random_requests(count: int) -> list[Request]:
    generator = torch.Generator().manual_seed(count)
    lengths = torch.randint(1, 20, (count,), generator=generator).tolist()
    prompts = [torch.randint(3, VOCAB, (n,), generator=generator).tolist() for n in lengths]
    return [Request(key, prompt, 0.9 * (key % 2), seed=100 + key) for key, prompt in enumerate(prompts)]


def generated(decoder: SpeculativeDecoder, request: Request, limit: int) -> list[int]:
    """What the decoder's own generate continues one request with."""
    sampling = {"do_sample": True, "temperature": request.temperature, "top_k": 0} if request.temperature else {}
    row = decoder.generate(
        torch.tensor([request.prompt]), max_new_tokens=limit, seed=request.seed, speculate=False, **sampling
    )
    return row[0, len(request.prompt) :].tolist()


@pytest.mark.parametrize("num_slots", [1, 3, 8])
def test_slots_write_what_generate_writes(num_slots):
    model = tiny_target()
    decoder = SpeculativeDecoder(model, NoDraft())
    requests, texts, steps = random_requests(12), {}, []

    def finished(request, tokens):
        assert request.key not in texts
        texts[request.key] = tokens
        return Request(request.key + 100, request.prompt + tokens, 0.0, 1) if request.key == 2 else None

    target = Target(model)
    with target.attached():
        SlotDecoder(target, num_slots, ENDS, 24).run(requests, finished, steps.append)
    model.generation_config.eos_token_id = sorted(ENDS)
    for request in requests:
        assert texts[request.key] == generated(decoder, request, 24), request
    assert texts[102] == generated(decoder, Request(102, requests[2].prompt + texts[2], 0.0, 1), 24)
    assert len({len(text) for text in texts.values()}) > 3, "texts must end at different steps"
    assert sum(steps) == sum(len(text) - 1 for text in texts.values()), "a finished row went on computing"


def test_a_follow_up_goes_before_what_waits():
    """So that few conversations are open at a time."""
    order, target = [], Target(tiny_target())

    def finished(request, tokens):
        order.append(request.key)
        return Request(request.key + 100, request.prompt + tokens, 0.0, 1) if request.key < 100 else None

    with target.attached():
        SlotDecoder(target, 1, frozenset(), 2).run(random_requests(3), finished)
    assert order == [0, 100, 1, 101, 2, 102]


def test_one_slot_without_a_token_is_an_error():
    decoder = SlotDecoder(Target(tiny_target()), 2, ENDS, 4)
    logits = torch.randn(2, 1, VOCAB).index_fill(0, torch.tensor([1]), torch.nan)
    with pytest.raises(ValueError, match="logits hold NaN or infinity"):
        decoder.choose(logits, random_requests(2), torch.ones(2, dtype=torch.int32))


def test_speculative_answers_are_the_plain_ones():
    decoder = eagle_decoder(tiny_target())
    answers: tuple[dict, dict] = ({}, {})
    for answering, texts in zip((PlainAnswering, SpeculativeAnswering), answers, strict=True):

        def finished(request, tokens, texts=texts):
            texts[request.key] = tokens
            return Request(50, request.prompt + tokens, 0.7, 3) if request.key == 4 else None

        done = []
        answering(decoder, 3, 10)(random_requests(7), finished, lambda rows, tokens, done=done: done.append(rows))
        assert sum(done) == 7
    assert answers[0] == answers[1] and len(answers[0]) == 8


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return chat_target(tmp_path_factory.mktemp("target"))


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write_rows(path, rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_the_verb_answers_every_turn_and_says_what_it_left_out(target, tmp_path):
    rows = [
        {"prompt": "a b"},
        "no json",
        {"turns": ["c d e", "f", "g h"]},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "k l"}]},
        {"conversations": [{"from": "human", "value": "m n"}, {"from": "gpt", "value": "not mine"}]},
        {"prompt": " "},
        {"prompt": "a b"},
        {"prompt": "t " * 90},
    ]
    out = tmp_path / "rows.safetensors"
    arguments = ["--target", target, "--out", out, "--dtype", "float32", "--max-new-tokens", 20, "--max-length", 100]
    result = run("regenerate", *arguments, "--greedy", 1.0, write_rows(tmp_path / "p.jsonl", rows))
    assert result.exit_code == 0, result.output
    assert "4 rows from 6 prompts" in result.stdout and "First row: '<user> a b <end> <assistant>" in result.stdout
    assert "Line 2 of" in result.stderr and "Line 6 of" in result.stderr and "empty" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.jsonl", "rows.safetensors"]
    shard, data = load_file(out), read_token_rows([out])
    assert shard["ids"].dtype == torch.uint16 and shard["prompt"].tolist() == [0, 1, 2, 3]
    tokenizer = load_models_of(target).tokenizer
    for row, prompt in enumerate(["a b", "c d e", None, "m n"]):
        span = slice(int(data.starts[row]), int(data.starts[row + 1]))
        ids, supervised = data.ids[span], data.supervised[span]
        first = int(shard["prompt_len"][row])
        opening = f"<user> {prompt} <end> <assistant>" if prompt else "<system> s <end> <user> k l <end> <assistant>"
        assert tokenizer.decode(ids[:first]) == opening and supervised[first] and not supervised[:first].any()
        decoder = load_models_of(target).decoder
        answer = decoder.generate(ids[None, :first], max_new_tokens=20, do_sample=False, speculate=False)[0, first:]
        assert ids[first : first + len(answer)].tolist() == answer.tolist()


def load_models_of(target):
    from eagle_decoding.config import TreeConfig
    from eagle_decoding.terminal.models import load_models

    return load_models(str(target), None, "float32", TreeConfig(), speculate=False)


def answer_all(models, prompts, out, **options):
    settings = AnswerOptions(max_new_tokens=12, max_length=120, **options)
    answering = PlainAnswering(models.decoder, 4, settings.max_new_tokens)
    return regenerate(models.decoder, models.tokenizer, prompts, settings, answering, out)


def user(*turns):
    return [{"role": "user", "content": turn} for turn in turns]


def test_follow_up_turns_are_asked_after_the_targets_own_answers(target, tmp_path):
    models = load_models_of(target)
    prompts = [user(f"{a} {b}", "c d", "e") for a in "abcdefgh" for b in "ij"]
    answer_all(models, prompts, tmp_path / "rows")
    data = read_token_rows([tmp_path / "rows"])
    continued = 0
    for row in range(len(data)):
        span = slice(int(data.starts[row]), int(data.starts[row + 1]))
        pieces = [
            (answer, models.tokenizer.decode([token for token, _ in piece]))
            for answer, piece in groupby(
                zip(data.ids[span].tolist(), data.supervised[span].tolist(), strict=True), itemgetter(1)
            )
        ]
        asked, answers = [t for answer, t in pieces if not answer], [t for answer, t in pieces if answer]
        assert asked[0] == f"<user> {prompts[row][0]['content']} <end> <assistant>" and len(asked) == len(answers)
        assert asked[1:] == ["<user> c d <end> <assistant>", "<user> e <end> <assistant>"][: len(asked) - 1]
        assert all(text.endswith("<end>") for text in answers[:-1])
        continued += len(asked) > 1
    assert continued, "no answer ended by itself: the test target must reach <end>"


def test_a_killed_run_goes_on_and_ends_with_the_same_rows(target, tmp_path, monkeypatch):
    monkeypatch.setattr(regenerate_module, "ROWS_PER_PART", 4)
    models = load_models_of(target)
    prompts = [*(user(f"{a} {b}") for a in "abc" for b in "klm"), None, None]
    answer_all(models, prompts, tmp_path / "whole")

    class Killed(BaseException):
        pass

    def kill_at(part):
        def save(tensors, path, save=regenerate_module.save_shard):
            if path.name == part:
                path.with_name(path.name + ".tmp").write_bytes(b"half")
                raise Killed
            save(tensors, path)

        return save

    for part in ("00001.safetensors", "00002.safetensors", "out"):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(regenerate_module, "save_shard", kill_at(part))
            answer_all(models, prompts, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    part = tmp_path / "out.parts" / "00000.safetensors"
    os.truncate(part, part.stat().st_size // 2)  # damaged: its prompts are answered again
    with pytest.raises(DataError, match="other greedy"):
        answer_all(models, prompts, tmp_path / "out", greedy=0.1)
    answer_all(models, prompts, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / "out.parts").exists()
    with pytest.raises(DataError, match="exists already"):
        answer_all(models, prompts, tmp_path / "out")


def test_rows_end_with_the_targets_context(target, tmp_path):
    models = load_models_of(target)
    models.decoder.target.config.max_position_embeddings = 20
    answer_all(models, [user("a b"), user("a b c d e f g h i j k l m n")], tmp_path / "rows")
    (length,) = read_token_rows([tmp_path / "rows"]).starts.diff().tolist()  # the longer prompt leaves no room
    assert length <= 20


def test_self_asked_questions_follow_the_templates_user_turn(target, tmp_path):
    models = load_models_of(target)
    answer_all(models, [None] * 24, tmp_path / "rows")
    data, shard = read_token_rows([tmp_path / "rows"]), load_file(tmp_path / "rows")
    assert 0 < len(data) < 24, "questions that do not end are left out, and some must end"
    openings = set()
    for row in range(len(data)):
        opening = models.tokenizer.decode(data.ids[int(data.starts[row]) :][: int(shard["prompt_len"][row])])
        assert opening.startswith("<user> ") and opening.endswith(" <end> <assistant>")
        openings.add(opening)
    assert len(openings) == len(data), "a repeated question must be answered once"


def test_prompts_that_other_shards_answer_are_left_out(target, tmp_path):
    models = load_models_of(target)
    prompts = [user("a b", "c"), user("d e"), None]
    answer_all(models, prompts[:1], tmp_path / "rows")
    answered = read_token_rows([tmp_path / "rows"])
    assert without_answered(prompts, models.tokenizer, answered) == prompts[1:]


def test_nothing_stays_where_nothing_was_answered(target, tmp_path):
    with pytest.raises(DataError, match="None of the 1 prompts was answered"):
        answer_all(load_models_of(target), [user("a b " * 80)], tmp_path / "rows")
    assert list(tmp_path.iterdir()) == []


def test_files_and_models_that_cannot_be_used(target, tmp_path):
    with pytest.raises(DataError, match="no row with a prompt"):
        read_prompts([str(write_rows(tmp_path / "none.jsonl", ["[]", {"text": "x"}]))], lambda text: None)
    with pytest.raises(DataError, match="no prompt left"):
        answer_all(load_models_of(target), [], tmp_path / "rows")
    tokenizer = load_models_of(target).tokenizer
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        ChatFormat(tokenizer)
    assert end_tokens(load_models_of(target).decoder.target)

"""Configuration, token rows, packs, vocabulary, chat rendering and the figures of a run."""

import dataclasses
import json
import os
import re
import typing

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from eagle_decoding.train.assemble import Facts
from eagle_decoding.train.config import ConfigError, TrainConfig, dump_config, load_config
from eagle_decoding.train.data import draft_vocabulary, pack_rows, read_token_rows, split_rows
from eagle_decoding.train.errors import DataError
from eagle_decoding.train.features import FeatureShards, belonging
from eagle_decoding.train.losses import TokenScores
from eagle_decoding.train.metrics import Acceptance
from eagle_decoding.train.prepare import prepare, token_rows, tokenise
from eagle_decoding.train.unroll import StepOutput


def test_yaml_and_overrides(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("target: model\nunroll: {steps: 7}\noptim: {lr: 2e-3}\n")
    config = load_config(file, ["unroll.decay=0.9", "data.tokens=[a, b]", "optim.epochs=2"])
    assert (config.target, config.unroll.steps, config.unroll.decay) == ("model", 7, 0.9)
    assert (config.optim.lr, config.optim.epochs, config.data.tokens) == (2e-3, 2.0, ["a", "b"])
    file.write_text(dump_config(config))
    assert load_config(file) == config
    assert load_config(None) == TrainConfig()


@pytest.mark.parametrize(
    "override, message",
    [
        ("unroll.stepz=3", r"Unknown configuration key 'unroll\.stepz'"),
        ("stepz=3", "Unknown configuration key 'stepz'"),
        ("unroll.steps=2.5", r"'unroll\.steps' takes int, not 2\.5"),
        ("head.fc_norm=1", r"'head\.fc_norm' takes bool, not 1"),
        ("data.tokens=a", r"'data\.tokens' takes a list"),
        ("optim.lr=fast", r"'optim\.lr' takes a finite number, not 'fast'"),
        ("optim.lr=.nan", r"'optim\.lr' takes a finite number, not nan"),
        ("optim.minutes=.inf", r"'optim\.minutes' takes a finite number, not inf"),
        ("optim.lr=1" + 400 * "0", r"'optim\.lr' takes a finite number"),
        ("optim.lr=true", r"'optim\.lr' takes float, not True"),
        ("unroll.steps=0", r"'unroll\.steps' is 0; it must be 1 or more"),
        ("unroll.decay=-1", r"'unroll\.decay' is -1; it must be from 0 to 1"),
        ("data.held_out=2", r"'data\.held_out' is 2; it must be 0 or more and less than 1"),
        ("optim.lr=-1e-3", r"'optim\.lr' is -1e-3; it must be more than 0"),
        ("optim.betas=[0.9, 1]", r"'optim\.betas' is 1; it must be 0 or more and less than 1"),
        ("optim.betas=[0.9]", r"'optim\.betas' is \[0\.9\]; it must be two numbers"),
        ("seed=4294967296", r"'seed' is 4294967296; it must be from 0 to 2\*\*32 - 1"),
        ("unroll=3", "section 'unroll' must be a mapping"),
        ("unroll.steps", "not of the form"),
    ],
)
def test_configuration_mistakes(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])


def numbers(kind, prefix=""):
    """The dotted names of all keys that take numbers."""
    for name, value in dataclasses.asdict(kind()).items():
        if isinstance(value, dict):
            yield from numbers(typing.get_type_hints(kind)[name], f"{prefix}{name}.")
        elif type(value) in (int, float):
            yield prefix + name


@pytest.mark.parametrize("key", list(numbers(TrainConfig)))
def test_no_number_may_be_negative(key):
    with pytest.raises(ConfigError, match=rf"The configuration key '{re.escape(key)}' is -1; it must be "):
        load_config(None, [f"{key}=-1"])


@pytest.mark.parametrize("key", ["optim.packs", "optim.epochs", "log.every", "log.eval_every", "log.save_every"])
def test_what_is_divided_by_is_not_zero(key):
    with pytest.raises(ConfigError, match=rf"'{re.escape(key)}' is 0; it must be (1 or )?more"):
        load_config(None, [f"{key}=0"])


def write_shard(path, lengths, **more):
    total = sum(lengths)
    tensors = {"ids": torch.arange(total, dtype=torch.int32) % 50, "length": torch.tensor(lengths, dtype=torch.int32)}
    save_file(tensors | more, path)
    return path


@pytest.mark.parametrize(("text", "sentence"), [("a: [\n", "is no YAML: while parsing"), ("- 3\n", r"not \[3\]")])
def test_files_that_are_no_configuration(tmp_path, text, sentence):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        load_config(tmp_path / "run.yaml")


def test_overrides_inside_a_value_or_without_yaml():
    with pytest.raises(ConfigError, match="goes into 'lr', which is the value 1"):
        load_config(None, ["optim.lr=1", "optim.lr.x=3"])
    with pytest.raises(ConfigError, match="is no YAML"):
        load_config(None, ["data.tokens=["])


def test_shards_with_prompt_lengths_and_with_masks_join(tmp_path):
    first = write_shard(
        tmp_path / "a", [3, 5], prompt_len=torch.tensor([1, 4]), temperature=torch.tensor([0.0, 0.8]).half()
    )
    second = write_shard(tmp_path / "b", [2], supervised=torch.tensor([True, False]))
    data = read_token_rows([first, second])
    assert data.starts.tolist() == [0, 3, 8, 10] and data.greedy.tolist() == [True, False, True]
    assert data.supervised.int().tolist() == [0, 1, 1, 0, 0, 0, 0, 1, 1, 0]
    pack = data.pack([2, 0])
    assert pack.input_ids.tolist() == [0, 1, 0, 1, 2] and pack.starts.tolist() == [0, 2, 5]
    assert pack.supervised.int().tolist() == [1, 0, 0, 1, 1]
    assert pack.positions.tolist() == [0, 1, 0, 1, 2] and pack.ends.tolist() == [2, 2, 5, 5, 5]


def test_unusable_shards(tmp_path):
    with pytest.raises(DataError, match="None of the 4 tokens is supervised"):
        read_token_rows([write_shard(tmp_path / "a", [4], prompt_len=torch.tensor([4]))])
    with pytest.raises(DataError, match="holds ids, length and prompt_len or supervised"):
        read_token_rows([write_shard(tmp_path / "b", [4])])
    save_file({"ids": torch.zeros(5), "length": torch.tensor([4]), "prompt_len": torch.tensor([1])}, tmp_path / "c")
    with pytest.raises(DataError, match="5 ids, but its row lengths add up to 4"):
        read_token_rows([tmp_path / "c"])
    with pytest.raises(DataError, match=r"There is no token shard .*missing; name a file that"):
        read_token_rows([tmp_path / "missing"])
    torn = tmp_path / "torn.safetensors"
    save_file({"ids": torch.arange(400)}, torn)
    os.truncate(torn, 500)
    with pytest.raises(DataError, match=r"torn\.safetensors is damaged .*; delete it and run the command that made it"):
        read_token_rows([torn])
    with pytest.raises(DataError, match="No token shard"):
        read_token_rows([])


@pytest.mark.parametrize("content", ['{"messages": []}\n', '{"a": 12{', "", "{"])
def test_other_files_are_no_shards_and_not_to_be_deleted(tmp_path, content):
    (tmp_path / "chats.jsonl").write_text(content)
    with pytest.raises(DataError, match=r"chats\.jsonl is no token shard; make one with `eagle-dec") as told:
        read_token_rows([tmp_path / "chats.jsonl"])
    assert "delete" not in str(told.value)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 60), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_packs_hold_every_row_once_within_the_limit(tmp_path_factory, lengths, pack_tokens, seed):
    path = write_shard(
        tmp_path_factory.mktemp("rows") / "a", lengths, supervised=torch.ones(sum(lengths), dtype=torch.bool)
    )
    data = read_token_rows([path])
    packs = pack_rows(data, range(len(data)), pack_tokens, seed)
    assert sorted(row for pack in packs for row in pack) == list(range(len(lengths)))
    assert all(len(pack) == 1 or sum(lengths[row] for row in pack) <= pack_tokens for pack in packs)
    assert packs == pack_rows(data, range(len(data)), pack_tokens, seed)


def test_another_shard_does_not_change_which_rows_of_the_first_are_held_out(tmp_path):
    first = write_shard(tmp_path / "a", [2] * 100, prompt_len=torch.ones(100))
    second = write_shard(tmp_path / "b", [3] * 50, prompt_len=torch.ones(50))
    both = read_token_rows([first, second])
    train, held_out = split_rows(both, 0.1, seed=3)
    assert sorted(train + held_out) == list(range(150)) and len(held_out) == 15
    assert train == sorted(train) and held_out == sorted(held_out) and train != list(range(135))
    assert [row for row in held_out if row < 100] == split_rows(read_token_rows([first]), 0.1, seed=3)[1]
    assert (train, held_out) == split_rows(both, 0.1, seed=3) != split_rows(both, 0.1, seed=4)


def test_draft_vocabulary_counts_supervised_tokens_only(tmp_path):
    ids = torch.tensor([9, 9, 9, 3, 3, 7, 1, 7, 5], dtype=torch.int32)
    save_file({"ids": ids, "length": torch.tensor([9]), "prompt_len": torch.tensor([3])}, tmp_path / "a")
    data = read_token_rows([tmp_path / "a"])
    kept, coverage = draft_vocabulary(data, [0], 3, 12)
    assert kept.tolist() == [1, 3, 7] and coverage == pytest.approx(5 / 6)
    everything, coverage = draft_vocabulary(data, [0], 0, 12)
    assert everything.tolist() == list(range(12)) and coverage == 1.0


def test_low_coverage_is_said():
    assert Facts(1, 1, 1, 1, 0.96).warning is None
    assert "covers 90.0%" in Facts(1, 1, 1, 1, 0.90).warning


def test_features_of_other_rows_are_refused(tmp_path):
    data = read_token_rows([write_shard(tmp_path / "a", [3, 5], prompt_len=torch.tensor([1, 1]))])
    target, folder = torch.nn.Linear(2, 2), tmp_path / "features"
    with pytest.raises(DataError, match="holds no feature shard"):
        FeatureShards(folder, data, target)
    folder.mkdir()
    save_file({"features": torch.zeros(7, 4, 2), "row": torch.tensor([0, 1])}, folder / "0.safetensors")
    with pytest.raises(DataError, match=r"without a plan\.json, .* run `eagle-decoding capture` anew"):
        FeatureShards(folder, data, target)
    (folder / "plan.json").write_text(json.dumps(belonging(data, target)))
    with pytest.raises(DataError, match="does not belong to these token shards: its rows hold 8 tokens"):
        FeatureShards(folder, data, target)


class WordTokenizer:
    """One id a word; turns are rendered as `<role> words </role>`."""

    chat_template = "by hand"

    def __init__(self, rewrite=False):
        self.words, self.rewrite = [], rewrite

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        shown = [m["content"] if not self.rewrite or m is messages[-1] else "gone" for m in messages]
        turns = [f"<{m['role']}> {text} </{m['role']}>" for m, text in zip(messages, shown, strict=True)]
        return " ".join(turns + (["<assistant>"] if add_generation_prompt else []))

    def __call__(self, text, add_special_tokens):
        for word in text.split():
            if word not in self.words:
                self.words.append(word)
        return {"input_ids": [self.words.index(word) for word in text.split()]}

    def decode(self, ids):
        return " ".join(self.words[i] for i in ids)


CHAT = [
    {"role": "user", "content": "what now"},
    {"role": "assistant", "content": "this"},
    {"role": "user", "content": "and then"},
    {"role": "assistant", "content": "that too"},
]


def test_assistant_turns_are_supervised_up_to_their_end():
    tokenizer = WordTokenizer()
    ids, supervised = tokenise(tokenizer, CHAT)
    assert tokenizer.decode(ids) == tokenizer.apply_chat_template(CHAT, False, False)
    learnt = tokenizer.decode([i for i, flag in zip(ids, supervised, strict=True) if flag])
    assert learnt == "this </assistant> that too </assistant>"


def test_a_template_that_rewrites_history_is_refused():
    with pytest.raises(DataError, match="changes what comes before an answer"):
        tokenise(WordTokenizer(rewrite=True), CHAT)


def test_prepare_reads_every_row_format_and_reports(tmp_path):
    rows = [
        {"messages": CHAT},
        {"conversations": [{"from": "human", "value": "a b"}, {"from": "gpt", "value": "c"}]},
        {"prompt": "x", "response": "y"},
        {"messages": CHAT[:1]},
        {"text": "all of it"},
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    facts = prepare(WordTokenizer(), [str(source)], tmp_path / "out" / "rows.safetensors", max_length=100)
    assert (facts["rows"], facts["left_out"], facts["unanswered"]) == (4, 0, 1)
    assert facts["sample"] == "this </assistant> that too </assistant>"
    data = read_token_rows([tmp_path / "out" / "rows.safetensors"])
    assert (
        len(data) == 4
        and data.supervised[-3:].tolist() == [False, True, True]
        and facts["supervised"] == pytest.approx(data.supervised.float().mean().item())
    )


def test_prepare_leaves_out_bad_lines_by_number_and_refuses_nothing_supervised(tmp_path):
    source, warnings = tmp_path / "rows.jsonl", []
    source.write_text(json.dumps({"messages": CHAT[:1]}) + "\n")
    with pytest.raises(DataError, match="None of the rows"):
        prepare(WordTokenizer(), [str(source)], tmp_path / "out", 100)
    bad = ["[1, 2]", '{"messages": [{"role": "robot", "content": "x"}]}', "{", '{"prompt": "x"}']
    source.write_text("\n".join([json.dumps({"messages": CHAT}), *bad, json.dumps({"messages": CHAT})]))
    facts = prepare(WordTokenizer(), [str(source)], tmp_path / "out", 100, warnings.append)
    assert (facts["rows"], facts["left_out"], facts["unanswered"]) == (2, 4, 0)
    assert [warning.split(" of ")[0] for warning in warnings] == [f"Line {i}" for i in range(2, 6)]
    assert "no JSON" in warnings[2] and "KeyError('response')" in warnings[3]
    source.write_text("\n".join(["?"] * 9))
    with pytest.raises(DataError, match=r"None of the rows .* 9 lines were left out, 0 rows hold no answer"):
        prepare(WordTokenizer(), [str(source)], tmp_path / "out", 100, warnings.append)
    assert len(warnings) == 4 + 5 + 1 and "9 lines" in warnings[-1]


def test_without_a_chat_template_the_target_is_at_fault_and_not_every_line(tmp_path):
    source, warnings, tokenizer = tmp_path / "rows.jsonl", [], WordTokenizer()
    tokenizer.chat_template = None
    source.write_text("\n".join([json.dumps({"text": "all of it"}), *[json.dumps({"messages": CHAT})] * 3]))
    with pytest.raises(DataError, match=r"tokenizer has no chat template; .* name a chat model, or give rows"):
        prepare(tokenizer, [str(source)], tmp_path / "out", 100, warnings.append)
    assert not warnings and not (tmp_path / "out").exists()
    source.write_text(json.dumps({"text": "all of it"}))
    assert prepare(tokenizer, [str(source)], tmp_path / "out", 100)["rows"] == 1


class ForgetfulTokenizer(WordTokenizer):
    """A template that leaves out earlier answers, as templates for reasoning models do."""

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        last = len(messages) - 1
        kept = [m for i, m in enumerate(messages) if m["role"] == "user" or i == last]
        return super().apply_chat_template(kept, tokenize, add_generation_prompt)


def test_a_template_that_forgets_answers_gives_one_row_per_answer():
    tokenizer = ForgetfulTokenizer()
    rows = token_rows(tokenizer, {"messages": CHAT})
    learnt = [tokenizer.decode([i for i, flag in zip(*row, strict=True) if flag]) for row in rows]
    assert learnt == ["this </assistant>", "that too </assistant>"]
    assert tokenizer.decode(rows[1][0]).startswith("<user> what now </user> <user> and then </user> <assistant>")


def test_survival_needs_every_earlier_hit_of_the_same_row():
    figures = Acceptance(3)
    figures.start(10)
    hits = {0: {2: True, 3: True, 4: False, 5: True}, 1: {2: True, 3: False, 4: True}, 2: {2: True, 4: True}}
    for step, rows in hits.items():
        scores = TokenScores(torch.full((len(rows),), 2.0), torch.zeros(len(rows)), torch.tensor(list(rows.values())))
        figures.add(StepOutput(step, torch.tensor(list(rows)), scores, torch.zeros(len(rows), dtype=torch.int64), 4))
    summary = figures.summary()
    assert summary["survival"] == [0.75, 0.25, 0.25] and summary["tau_sim"] == 2.25
    assert summary["accuracy"] == [0.75, pytest.approx(2 / 3, abs=1e-4), 1.0]
    assert summary["scored"] == [1.0, 0.75, 0.5] and summary["loss"] == [2.0, 2.0, 2.0]

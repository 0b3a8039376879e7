"""eagle-decoding: every command on tiny models, the drawn tree, converted .gguf files, one-sentence errors."""

import io
import os
import re
import subprocess
import sys
from errno import EPIPE
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from command_line import make_tokenizer, run
from models import tiny_target
from rich.console import Console

from eagle_decoding import SpeculativeDecoder
from eagle_decoding.stats import Round
from eagle_decoding.terminal import gguf, models
from eagle_decoding.terminal.chat import run_chat
from eagle_decoding.terminal.report import first_difference
from eagle_decoding.terminal.tree import draw_tree
from eagle_decoding.tree import DraftTree

TREE = ("--num-nodes", "8", "--max-depth", "3", "--topk", "3")


def test_help_lists_the_commands():
    shown = run("--help").out
    assert all(command in shown for command in ("demo", "generate", "chat", "info", "prepare", "capture", "export"))


@pytest.mark.parametrize(
    ("asked", "set_to"), [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "")]
)
def test_waiting_threads_give_their_processor_up(asked, set_to):
    program = "import os, sys, eagle_decoding.cli; print(os.environ.get('GOMP_SPINCOUNT', ''), 'torch' in sys.modules)"
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    told = subprocess.run([sys.executable, "-c", program], env=environment | asked, capture_output=True, text=True)
    assert told.stdout == f"{set_to} False\n", told.stderr


def test_version():
    assert run("--version").out == f"eagle-decoding {version('eagle-kernels')}\n"


def test_generate_gives_one_text_with_and_without_drafting(saved):
    command = ("generate", "w5 w9 w11", *saved, "--raw", "--max-new-tokens", "20")
    drafted, plain = run(*command, *TREE), run(*command, "--no-speculate")
    assert drafted.code == plain.code == 0
    assert len(drafted.out.split()) > 5
    assert drafted.out == plain.out
    assert "tokens per round" in drafted.err


def test_generate_samples_by_seed(saved):
    command = ("generate", "w5", *saved, *TREE, "--max-new-tokens", "20", "--temperature", "1.5", "--seed")
    first, again, other = run(*command, "1"), run(*command, "1"), run(*command, "2")
    assert first.out == again.out != other.out


@pytest.mark.parametrize("temperature", ["0", "1"])
@pytest.mark.parametrize(("topk", "code"), [("20", 0), ("200", 1)])
def test_a_wide_tree_when_sampling_is_told_of_top_k(saved, topk, code, temperature):
    """One that can be drafted with a notice, one that cannot in the error."""
    settings = ("--temperature", temperature, "--topk", topk, "--max-depth", "2", "--max-new-tokens", "4")
    shown = run("generate", "w5", *saved, *settings)
    assert shown.code == code and shown.err.startswith("Error: ") == (code == 1)
    told = f"to sample from the {topk} likeliest tokens, say --top-k {topk}." in " ".join(shown.err.split())
    assert told == (temperature == "1")
    assert "--top-k" not in run("generate", "w5", *saved, *TREE, "--temperature", "1", "--max-new-tokens", "4").err


@pytest.mark.parametrize("option", [("--top-k", "1"), ("--top-p", "0"), ("--min-p", "1")])
def test_filters_that_leave_one_token_make_sampling_greedy(saved, option):
    command = ("generate", "w5", *saved, *TREE, "--max-new-tokens", "20")
    sampled = (*command, "--temperature", "1.5", "--seed", "1")
    assert run(*sampled, *option).out == run(*command).out != run(*sampled).out


@pytest.mark.parametrize("command", ["generate", "chat"])
@pytest.mark.parametrize(
    ("option", "value"),
    [("--temperature", "-1"), ("--top-k", "-1"), ("--top-p", "2"), ("--min-p", "-0.1"), ("--max-new-tokens", "0")],
)
def test_numbers_out_of_range_are_refused_before_anything_is_loaded(command, option, value):
    shown = run(command, option, value, "--target", "./nowhere")
    assert shown.code == 2
    assert f"Invalid value for '{option}'" in shown.err


def test_chat_hands_its_settings_to_generate(saved, monkeypatch):
    given = []
    monkeypatch.setattr(SpeculativeDecoder, "generate", lambda self, **settings: given.append(settings))
    monkeypatch.setattr("eagle_decoding.terminal.chat.summary", lambda *_: "")
    filters = ("--temperature", "0.5", "--top-k", "7", "--top-p", "0.9", "--min-p", "0.1")
    assert run("chat", *saved, *TREE, *filters, "--seed", "3", "--max-new-tokens", "6", stdin="w5\n").code == 0
    expected = {"do_sample": True, "temperature": 0.5, "top_k": 7, "top_p": 0.9, "min_p": 0.1, "seed": 3}
    assert given[0].items() >= expected.items()


def test_typical_acceptance_is_called_lossy(saved):
    assert "LOSSY" in run("generate", "--help").out
    command = ("generate", "w5", *saved, *TREE, "--max-new-tokens", "20", "--typical-acceptance")
    assert run(*command, "--temperature", "1.5", "--seed", "1").code == 0


@pytest.mark.parametrize(
    ("command", "options", "named"),
    [
        ("generate", ("--top-k", "5"), "--top-k"),
        ("generate", ("--seed", "4", "--typical-acceptance"), "--seed, --typical-acceptance"),
        ("chat", ("--top-p", "0.5", "--min-p", "0.1"), "--top-p, --min-p"),
    ],
)
def test_options_of_sampling_need_a_temperature(command, options, named):
    shown = run(command, *options, "--target", "./nowhere", stdin="w5")
    assert shown.code == 1 and shown.err.startswith(f"Error: {named}: these are about sampling, which needs --temperat")


def test_plain_decoding_says_what_it_ignores(saved):
    command = ("generate", "w5", *saved[:2], "--dtype", "float32", "--max-new-tokens", "4", "--no-speculate")
    assert "ignores" not in run(*command).err
    options = ("--draft", "suffix", "--topk", "2", "--temperature", "1", "--typical-acceptance")
    assert "--no-speculate ignores --draft, --topk, --typical-acceptance." in run(*command, *options).err


def test_a_full_gpu_ends_in_one_sentence(saved, monkeypatch):
    def full(self, **inputs):
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 GiB."
        )

    monkeypatch.setattr(SpeculativeDecoder, "generate", full)
    shown = run("generate", "w5", *saved)
    assert shown.code == 1 and shown.err == (
        "Error: CUDA out of memory. Tried to allocate 2.00 GiB: take a smaller model or a shorter text.\n"
    )


def test_generate_reads_the_standard_input(saved):
    command = (*saved, *TREE, "--raw", "--max-new-tokens", "8")
    assert run("generate", *command, stdin="w5 w9\n").out == run("generate", "w5 w9", *command).out


def test_demo_compares_three_ways_of_decoding(saved):
    shown = run("demo", "w5 w9", *saved, *TREE, "--max-new-tokens", "24")
    assert shown.code == 0
    assert len(re.findall(r"│ same +│", shown.out)) == 2
    for part in ("tokens/s", "tokens per round", "verify", "last committed token", "the target's own"):
        assert part in shown.out


def test_chat_remembers_the_conversation(saved, monkeypatch):
    seen = []
    generate = SpeculativeDecoder.generate

    def spy(self, **inputs):
        seen.append(inputs["input_ids"][0].tolist())
        return generate(self, **inputs)

    monkeypatch.setattr(SpeculativeDecoder, "generate", spy)
    shown = run("chat", *saved, *TREE, "--max-new-tokens", "6", stdin="w5 w9\n\nw7\n/quit\nw8\n")
    assert shown.code == 0
    assert len(seen) == 2
    assert seen[1][: len(seen[0])] == seen[0] and seen[1][-2:] == [7, 4] and len(seen[1]) > len(seen[0]) + 2


def test_chat_ends_with_exit_and_helps(saved, monkeypatch):
    monkeypatch.setattr(SpeculativeDecoder, "generate", lambda self, **inputs: pytest.fail("a command was answered"))
    shown = run("chat", *saved, *TREE, stdin="/help\n/exit\nw5\n")
    assert shown.code == 0 and shown.err.count("/exit or /quit ends the conversation") == 2


def test_chat_forgets_what_no_longer_fits(saved, monkeypatch):
    """In a context of 256 tokens."""
    asked = []
    monkeypatch.setattr(SpeculativeDecoder, "generate", lambda self, **inputs: asked.append(inputs["input_ids"][0]))
    monkeypatch.setattr("eagle_decoding.terminal.chat.summary", lambda *_: "")
    questions = ["w5 " * 60, "w6 " * 60, "w7 " * 60, "w8 " * 300, "w9"]
    shown = run("chat", *saved, *TREE, "--max-new-tokens", "100", stdin="\n".join(questions))
    assert shown.code == 0
    assert shown.err.count("oldest turns forgotten: 1.") == 1 and "The question has 30" in shown.err
    seen = [{token for token in (5, 6, 7, 8, 9) if token in prompt} for prompt in asked]
    assert seen == [{5}, {5, 6}, {6, 7}, {6, 7, 9}]


def test_chat_needs_a_template(capsys):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="chat needs a tokenizer with a chat template"):
        run_chat(models.Models(None, tokenizer), {})
    assert capsys.readouterr().err == ""


def test_chat_survives_ctrl_c(monkeypatch, capsys):
    conversations = []

    class Interrupted:
        def generate(self, streamer, **inputs):
            streamer.put(torch.tensor([[5]]))  # the prompt, which is not printed
            streamer.put(torch.tensor([6]))
            streamer.put(torch.tensor([7]))
            raise KeyboardInterrupt

    chatting = models.Models(Interrupted(), make_tokenizer())
    monkeypatch.setattr(models.Models, "encode", lambda self, messages: conversations.append(list(messages)) or {})
    answers = iter(["w5", "w8"])
    monkeypatch.setattr(Console, "input", lambda self, prompt: next(answers, "/quit"))
    monkeypatch.setattr("eagle_decoding.terminal.chat.make_room", lambda *_: True)
    run_chat(chatting, {"max_new_tokens": 4})
    assert [message["content"] for message in conversations[1]] == ["w5", "w6 ", "w8"]
    assert "Stopped." in capsys.readouterr().err


@pytest.mark.parametrize(("interruption", "code"), [(KeyboardInterrupt, 130), (BrokenPipeError(EPIPE, ""), 1)])
def test_an_interrupted_answer_ends_without_a_word(saved, monkeypatch, interruption, code):
    def interrupted(self, streamer, **inputs):
        streamer.put(inputs["input_ids"])  # the prompt, which is not printed
        streamer.put(torch.tensor([6]))
        raise interruption

    monkeypatch.setattr(SpeculativeDecoder, "generate", interrupted)
    shown = run("generate", "w5", *saved, *TREE)
    assert (shown.code, shown.err) == (code, "")
    assert shown.out == ("w6\n" if interruption is KeyboardInterrupt else "")


def test_info_names_versions():
    shown = run("info")
    assert shown.code == 0
    assert torch.__version__ in shown.out and "kernels built" in shown.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("generate", "hi", "--target", "./nowhere"), "--target needs the --draft head"),
        (("generate", "hi", "--target", "./nowhere", "--draft", "./head"), "./nowhere does not exist"),
        (("generate", "hi", "--draft", "sufix"), "The draft 'sufix' needs a directory and 'sufix' is none"),
        (("generate", "hi", "--target", "no.gguf", "--no-speculate"), "no.gguf does not exist"),
        (
            ("generate", "hi", "--draft", "auto:some/head"),
            "some/head is no directory here, and it did not come",
        ),
        (("generate", "hi", "--dtype", "int8"), "--dtype int8 is unknown, choose one of bfloat16"),
        (("generate", " "), "The prompt is empty"),
        (("generate", "\udcff"), "The prompt holds bytes that are no UTF-8 text"),
        (("demo", "--num-nodes", "1000"), "num_nodes must be between 2 and"),
    ],
)
def test_errors_are_one_sentence(arguments, sentence):
    shown = run(*arguments)
    assert shown.code == 1
    assert sentence in shown.err
    assert shown.err.startswith("Error: ") and shown.err.count("\n") == 1
    assert shown.out == ""


def test_a_target_without_a_tokenizer(saved, tmp_path):
    tiny_target().save_pretrained(tmp_path)
    shown = run("generate", "hi", "--target", str(tmp_path), "--draft", "suffix")
    assert shown.code == 1 and f"Error: {tmp_path} has no tokenizer that" in shown.err


def make_round() -> Round:
    scores = torch.tensor([[0.0, 0.5, 0.25, 0.125]]).log().where(torch.tensor([False, True, True, True]), 0.0)
    tree = DraftTree(
        draft_tokens=torch.tensor([[4, 5, 6, 7]]),
        parent=torch.tensor([[-1, 0, 0, 1]]),
        depth=torch.tensor([[0, 1, 1, 2]]),
        position_ids=torch.tensor([[9, 10, 10, 11]]),
        ancestor_mask=torch.tensor([[[1], [3], [5], [11]]]),
        node_scores=scores,
        max_depth=2,
    )
    return Round(tree, torch.tensor([[0, 1, -1]]), torch.tensor([1]), torch.tensor([8]))


def test_the_tree_shows_tokens_probabilities_and_the_accepted_path():
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(draw_tree(make_round(), make_tokenizer()))
    assert console.export_text().splitlines() == [
        "'w4'  last committed token",
        "├── 'w5'  0.50  accepted",
        "│   ├── 'w7'  0.25",
        "│   └── 'w8'  the target's own",
        "└── 'w6'  0.25",
    ]


def test_a_tree_without_scores_shows_no_probability():
    drawn = make_round()
    drawn.tree.node_scores = None
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(draw_tree(drawn, make_tokenizer()))
    assert console.export_text().splitlines()[1:] == [
        "├── 'w5'  accepted",
        "│   ├── 'w7'",
        "│   └── 'w8'  the target's own",
        "└── 'w6'",
    ]


@pytest.mark.parametrize("draft", ["lookahead", "suffix"])
def test_demo_names_the_method(saved, draft):
    shown = run("demo", "w5 w9", *saved[:2], "--draft", draft, "--dtype", "float32", "--max-new-tokens", "8")
    assert f"│ {draft} " in shown.out and "EAGLE-3" not in shown.out


@pytest.mark.parametrize(
    ("one", "other", "where"), [([1, 2], [1, 2], None), ([1, 2], [1, 3], 1), ([1, 2], [1], 1), ([], [1], 0)]
)
def test_first_difference(one, other, where):
    assert first_difference(one, other) == where


def test_a_gguf_file_is_converted_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"one")
    said: list[str] = []
    monkeypatch.setattr(gguf, "load_target", lambda path, dtype: tiny_target(dtype=dtype))
    monkeypatch.setattr(gguf.AutoTokenizer, "from_pretrained", lambda folder, gguf_file: make_tokenizer())
    folder = gguf.converted(file, torch.bfloat16, said.append)
    assert gguf.converted(file, torch.bfloat16, said.append) == folder
    assert len(said) == 1 and "tiny.gguf" in said[0]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    assert gguf.converted(file, torch.float32, said.append) != folder
    file.write_bytes(b"another")
    assert gguf.converted(file, torch.bfloat16, said.append) != folder


def test_a_failed_conversion_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"one")
    monkeypatch.setattr(gguf, "load_target", lambda path, dtype: tiny_target(dtype=dtype))

    def fail(folder: Path, gguf_file: str) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(gguf.AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(OSError, match="no space left"):
        gguf.converted(file, torch.bfloat16, print)
    assert list((tmp_path / "cache" / "eagle-decoding").iterdir()) == []

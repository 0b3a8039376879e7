"""The training verbs from the command line, end to end on a tiny target."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from eagle_decoding.checkpoint import CheckpointError, read_head
from eagle_decoding.train.cli import app
from eagle_decoding.train.config import ConfigError, load_config
from eagle_decoding.train.errors import DataError

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
WORDS = ["<user>", "<assistant>", "<end>", "<unk>", *"abcdefghijklmnopqrst"]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    folder = tmp_path_factory.mktemp("target")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=TEMPLATE).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=24, num_hidden_layers=7, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.parametrize(
    "command",
    [
        "prepare --target t --out o --max-length 0 f",
        "prompts o --limit 0",
        "regenerate --out o --batch 0",
        "regenerate --out o --max-new-tokens -5",
        "regenerate --out o --max-length 0",
        "regenerate --out o --self-asked -1",
        "regenerate --out o --greedy 2",
        "regenerate --out o --temperature -1",
        "capture run.yaml --max-gb -1",
        "eval head f --out o --limit 0",
        "eval head f --out o --max-new-tokens 0",
        "eval head f --out o --run-rows 0",
        "probe head --limit 0",
        "probe head --max-new-tokens 0",
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_read(command):
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 2 and "Invalid value for" in result.stderr


def test_prepare_capture_train_export(target, tmp_path):
    chats = [{"prompt": "a b c", "response": " ".join(WORDS[4 + i % 12 : 12 + i % 12])} for i in range(12)]
    (tmp_path / "chats.jsonl").write_text("\n".join([*map(json.dumps, chats), "?", "{}"]))
    rows = tmp_path / "rows.safetensors"
    prepared = run("prepare", "--target", target, "--out", rows, tmp_path / "chats.jsonl")
    assert "12 rows" in prepared.output and "Left out: 2 lines that cannot be read, 0 rows" in prepared.output
    assert "'a b c d e f g h <end>'" in prepared.output
    config = tmp_path / "run.yaml"
    config.write_text(
        f"target: {target}\nout: {tmp_path / 'run'}\n"
        f"data: {{tokens: [{rows}], features: {tmp_path / 'features'}, held_out: 0.1, pack_tokens: 40}}\n"
    )
    assert "GB in" in run("capture", config, "--dtype", "bfloat16").output  # the same target as in float32
    output = run("train", config, "unroll.steps=2", "optim.epochs=1", "log.eval_every=2", "log.every=2").output
    assert "covers 100.0%" in output and "held out" in output
    assert "Wrote" in run("export", tmp_path / "run", tmp_path / "head").output
    assert read_head(tmp_path / "head").config.draft_vocab_size == len(WORDS)


def test_the_configuration_of_the_page_trains(target, tmp_path, request):
    """Five keys are enough, and its paths are those of the commands beside it; another place stands for each here."""
    page = (request.config.rootpath / "docs" / "training.md").read_text().partition("### Prompts")[0]
    (written,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (commands,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    (tmp_path / "run.yaml").write_text(written)
    config = load_config(tmp_path / "run.yaml")
    assert all(f" {name}" in commands for name in (config.target, config.out, *config.data.tokens))
    assert len(re.findall(r"^ *\w+: \S", written, re.MULTILINE)) == 5 and config.head.draft_vocab_size
    save_file(
        {"ids": torch.arange(80) % 20, "length": torch.full((8,), 10), "prompt_len": torch.full((8,), 3)},
        tmp_path / "rows",
    )
    places = [f"target={target}", f"out={tmp_path / 'run'}", f"data.tokens=[{tmp_path / 'rows'}]"]
    places += [f"data.features={tmp_path / 'features'}", "head.draft_vocab_size=16"]
    run("capture", tmp_path / "run.yaml", *places)
    assert "8 rows with" in run("train", tmp_path / "run.yaml", *places).output
    assert "Wrote" in run("export", tmp_path / "run", tmp_path / "head").output


def test_mistakes_are_single_sentences(target, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(f"target: {target}\nout: {tmp_path / 'run'}\ntypo: 1\n")
    with pytest.raises(ConfigError, match="Unknown configuration key 'typo'"):
        run("train", config)
    save_file({"ids": torch.zeros(4), "length": torch.tensor([4]), "prompt_len": torch.tensor([1])}, tmp_path / "rows")
    config.write_text(f"target: {target}\ndata: {{tokens: [{tmp_path / 'rows'}], features: {tmp_path}}}\n")
    with pytest.raises(DataError, match="over the limit of 1e-09 GB"):
        run("capture", config, "--max-gb", "1e-9")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(f"target: {target}\n")
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        run("export", tmp_path / "run", tmp_path / "head")


def test_prepare_reads_the_tokenizer_as_the_other_verbs_do(target, tmp_path, monkeypatch):
    chats, rows, file = tmp_path / "chats.jsonl", tmp_path / "rows", tmp_path / "model.gguf"
    chats.write_text('{"prompt": "a b", "response": "c"}')
    with pytest.raises(ValueError, match=r"has no tokenizer that transformers can load: put tokenizer\.json"):
        run("prepare", "--target", tmp_path, "--out", rows, chats)
    with pytest.raises(ValueError, match=r"model\.gguf does not exist: give a directory, a \.gguf file or a hub id"):
        run("prepare", "--target", file, "--out", rows, chats)
    file.touch()
    monkeypatch.setattr("eagle_decoding.terminal.gguf.converted", lambda given, dtype, say: {file: target}[given])
    assert "1 rows" in run("prepare", "--target", file, "--out", rows, chats).output


@pytest.mark.parametrize("verb", ["regenerate --out rows", "capture c", "train c", "eval head questions --out out"])
def test_ctrl_c_ends_a_verb_with_a_sentence(verb, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("terminal.models.device_named", "train.config.load_config"):
        monkeypatch.setattr(f"eagle_decoding.{name}", interrupted)
    result = CliRunner().invoke(app, verb.split())
    assert result.exit_code == 130 and "Interrupted. What was finished is kept: the same" in result.stderr

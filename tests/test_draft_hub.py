"""Drafts given as hub ids: what is fetched, what every command does with them, and what is said when nothing comes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import run
from depth_heads import random_depth_heads
from hub_server import serving
from huggingface_hub import constants
from models import random_head, tiny_target
from test_draft_medusa import published_file

from eagle_decoding import SpeculativeDecoder
from eagle_decoding.checkpoint import CheckpointError, draft_directory, read_head, write_head
from eagle_decoding.drafts import Eagle3Draft, load_draft, read_spelling
from eagle_decoding.drafts.causal_lm import CausalLmDraft
from eagle_decoding.drafts.medusa import MedusaDraft
from eagle_decoding.drafts.spelling import TEXT_METHODS
from eagle_decoding.train.agreement import head_module
from eagle_decoding.train.initialise import start_from

UNREAD = (
    "README.md",
    "training_args.bin",
    "consolidated.safetensors",
    "checkpoint-9/model.safetensors",
    "flax.msgpack",
)


@pytest.fixture
def hub(tmp_path):
    with serving(tmp_path / "cache") as served:
        yield served


@pytest.fixture
def published(hub, saved):
    """The head of `saved`, on the hub as organisation/head."""
    hub.repositories["organisation/head"] = Path(saved[3])
    return hub


def eagle3(folder: Path) -> set[str]:
    head = random_head(tiny_target())
    write_head(folder, head.config, head.tensors)
    (folder / "pytorch_model.bin").write_bytes(b"the same once more")
    return {"config.json", "model.safetensors"}


def pickled(folder: Path) -> set[str]:
    head = random_head(tiny_target())
    write_head(folder, head.config, head.tensors)
    (folder / "model.safetensors").unlink()
    torch.save(head.tensors, folder / "pytorch_model.bin")
    return {"config.json", "pytorch_model.bin"}


def medusa(folder: Path) -> set[str]:
    target = tiny_target("vicuna")
    published_file(folder, random_depth_heads(target, "medusa"), 1)
    return {"config.json", "medusa_lm_head.pt"}


def small_model(folder: Path) -> set[str]:
    tiny_target().save_pretrained(folder, max_shard_size="20KB")
    shards = {file.name for file in folder.glob("*.safetensors")}
    assert len(shards) > 1
    return {"config.json", "model.safetensors.index.json", *shards}


@pytest.mark.parametrize(
    ("make", "kind"),
    [(eagle3, Eagle3Draft), (pickled, Eagle3Draft), (medusa, MedusaDraft), (small_model, CausalLmDraft)],
)
def test_what_a_draft_needs_is_fetched_and_nothing_else(hub, tmp_path, monkeypatch, make, kind):
    folder = hub.repositories["organisation/draft"] = tmp_path / "published"
    needed = make(folder)
    for name in UNREAD:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not to be read")
    target = tiny_target("vicuna" if make is medusa else "llama")
    draft = load_draft("organisation/draft", target)
    assert type(draft) is kind
    directory = draft_directory("organisation/draft")
    assert {str(file.relative_to(directory)) for file in directory.rglob("*") if file.is_file()} == needed
    assert directory == tmp_path / "cache" / "models--organisation--draft" / "snapshots" / hub.commit

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert draft_directory("organisation/draft") == directory


@pytest.mark.parametrize("prefix", ["", "auto:", "static:", "auto:static:", *(f"{name}+" for name in TEXT_METHODS)])
def test_every_spelling_takes_a_hub_id(published, tmp_path, monkeypatch, prefix):
    spelling = read_spelling(f"{prefix}organisation/head")
    assert str(spelling) == f"{prefix}organisation/head" and spelling.source == "organisation/head"
    assert (spelling.directory / "config.json").is_file()
    (tmp_path / "organisation" / "head").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert str(read_spelling(f"{prefix}organisation/head").directory) == "organisation/head"


def test_decoding_with_a_hub_id_and_its_directory_are_the_same(published, saved):
    prompt = torch.arange(5, 15)[None]
    decoders = [SpeculativeDecoder.from_pretrained(saved[1], head) for head in ("organisation/head", saved[3])]
    texts = [decoder.generate(prompt, max_new_tokens=20, do_sample=False) for decoder in decoders]
    assert torch.equal(*texts) and decoders[0].stats.accepted == decoders[1].stats.accepted


def test_a_benchmark_names_the_hub_id_and_notices_other_files(published, saved, tmp_path):
    questions, out = tmp_path / "questions", tmp_path / "out"
    questions.mkdir()
    (questions / "short.jsonl").write_text(json.dumps({"turns": ["w5 w6"]}))
    command = ["bench", *saved[:2], "--draft", "mine=organisation/head", "--methods", "mine,suffix+mine"]
    command += ["--data", questions, "--out", out, "--dtype", "float32", "--device", "cpu", "--runs", "1"]
    command = [str(word) for word in (*command, "--temperatures", "0", "--max-new-tokens", "4")]
    assert run(*command).code == 0
    methods = json.loads((out / "table.json").read_text())["facts"]["methods"]
    assert methods["mine"] == "organisation/head" and methods["suffix+mine"] == "suffix+organisation/head"
    measured = (out / "measurements.jsonl").read_text()
    assert '"organisation/head ' in measured and str(tmp_path) not in measured
    changed = published.repositories["organisation/head"] = tmp_path / "changed"
    shutil.copytree(saved[3], changed)
    (changed / "config.json").write_text((changed / "config.json").read_text() + "\n")
    published.commit = published.commit[::-1]
    shown = run(*command)
    assert shown.code == 1 and "give the draft another name" in " ".join(shown.err.split())


def test_commands_that_read_a_head_take_a_hub_id(published, saved, tmp_path):
    target, short = saved[:2], ("--dtype", "float32", "--max-new-tokens", "4", "--device", "cpu")
    questions, result = tmp_path / "short.jsonl", tmp_path / "eval.json"
    questions.write_text(json.dumps({"turns": ["w5 w6"]}))
    for command in (
        ("generate", "w5 w6", "--draft", "organisation/head", *target, *short),
        ("eval", "organisation/head", str(questions), "--out", str(result), *target, *short),
        ("probe", "organisation/head", str(questions), *target, *short),
        ("export", "organisation/head", str(tmp_path / "exported"), "--dtype", "float32"),
    ):
        shown = run(*command)
        assert shown.code == 0, shown.err
    weights = "model.safetensors"
    assert (tmp_path / "exported" / weights).read_bytes() == (Path(saved[3]) / weights).read_bytes()


@torch.no_grad()
def test_training_goes_on_from_a_hub_id(published, saved):
    head = read_head(saved[3])
    zeros = {name: tensor * (name == "d2t") for name, tensor in head.tensors.items()}
    module = head_module(replace(head, tensors=zeros), tiny_target())
    start_from(module, "organisation/head")
    assert all(torch.equal(parameter, head.tensors[name]) for name, parameter in module.named_parameters())


@pytest.mark.parametrize(
    ("hub_id", "sentence"),
    [
        ("heads/mistyped", "no directory here, .* from the hub: the hub has no such repository, or it is private"),
        ("organisation/gated", "no directory here, .* from the hub: its owner grants access on its page"),
        ("organisation/a--b", "no directory here, .* from the hub: Cannot have -- or .. in repo_id"),
        ("organisation/text", "came from the hub without weights"),
        ("organisation/weights", "came from the hub without config.json"),
    ],
)
def test_what_the_hub_does_not_give(hub, tmp_path, hub_id, sentence):
    for name, file in (("text", "config.json"), ("weights", "model.safetensors")):
        folder = hub.repositories[f"organisation/{name}"] = tmp_path / name
        folder.mkdir()
        (folder / file).write_text("{}")
    hub.repositories["organisation/gated"] = None
    for read in (draft_directory, read_spelling):
        with pytest.raises(CheckpointError, match=rf"^{hub_id} (is )?{sentence}[^\n]*\.$"):
            read(hub_id)


def test_no_network(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=r"no directory here, .* from the hub: Got: ConnectError: [^\n]*\.$"):
        draft_directory("organisation/head")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"Cannot find an appropriate cached snapshot [^\n]*HF_HUB_OFFLINE[^\n]*"):
        draft_directory("organisation/head")


def test_neither_a_directory_nor_an_id():
    for name in ("head", "./head", "~/no/such/head", "a/b/c"):
        with pytest.raises(CheckpointError, match=f"^{name} is no directory and no hub id like organisation/name"):
            draft_directory(name)

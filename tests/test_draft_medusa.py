"""Medusa heads: what they propose against a plain forward, published files, greedy decoding, refused files."""

import json
from dataclasses import replace

import pytest
import torch
from depth_heads import assert_plain_logits, plain_logits, random_commit, random_depth_heads, target_ids
from models import KINDS, VOCAB, prompts, tiny_target
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import eagle_kernels
from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.checkpoint import CheckpointError, DepthHeads, read_depth_heads, write_depth_heads
from eagle_decoding.drafts import MedusaDraft, load_draft
from eagle_decoding.drafts.coupled import NOISE_WEIGHT
from eagle_decoding.drafts.depth_heads import HeadStack
from eagle_decoding.files import DiskFullError
from eagle_decoding.sampling import fused_params

GREEDY = {"do_sample": False, "max_new_tokens": 40}
TREE = TreeConfig(20, 3, 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 3])
def test_greedy_text_is_the_targets_own(kind, batch):
    target = tiny_target(kind)
    inputs = prompts(batch)
    decoder = SpeculativeDecoder(target, MedusaDraft(random_depth_heads(target, "medusa", 60), target, TREE))
    assert torch.equal(decoder.generate(**inputs, **GREEDY), target.generate(**inputs, **GREEDY))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"draft_vocab": 40, "num_layers": 2},
        {"own_lm_head": True, "output_map": True},
        {"rank_accuracy": ((0.5, 0.2, 0.1, 0.05), (0.4, 0.3, 0.2, 0.0), (0.9, 0.1, 0.0, 0.0))},
    ],
    ids=["targets-lm-head", "two-layers", "own-lm-head-and-map", "measured-tree"],
)
@torch.no_grad()
def test_a_node_holds_the_candidate_that_its_rank_names(options):
    target = tiny_target()
    heads = random_depth_heads(target, "medusa", **options)
    draft = MedusaDraft(heads, target, TREE)
    commit = random_commit(target, [2, 5, 3], [0, 4, 9])
    draft.start(commit.tokens, commit.num_rows, fused_params([], False, [0] * 3, target.device))
    draft.extend(commit)
    root_tokens = torch.tensor([5, 6, 7], dtype=torch.int32)
    tree = draft.propose(root_tokens, commit.context_len + commit.num_rows)
    assert tree.draft_tokens[:, 0].equal(root_tokens)
    paths = [(), *draft.tree.paths]
    for b in range(3):
        state = commit.features[b, commit.num_rows[b] - 1]
        for head in range(tree.max_depth):
            logprobs = plain_logits(heads, target, head, state).log_softmax(-1)
            best = logprobs.sort(descending=True)
            for node in (n for n, path in enumerate(paths) if len(path) == head + 1):
                rank, parent = paths[node][-1], int(tree.parent[b, node])
                assert int(tree.draft_tokens[b, node]) == int(target_ids(heads)[best.indices[rank]])
                score = float(tree.node_scores[b, parent]) + float(best.values[rank])
                assert float(tree.node_scores[b, node]) == pytest.approx(score, abs=1e-5)


@torch.no_grad()
def test_sampling_requests_rank_by_the_noise_of_the_position():
    """Requests 0 and 2 sample, request 1 is greedy; scores are of the logits with the weighted noise."""
    target = tiny_target()
    heads = random_depth_heads(target, "medusa", 60)
    draft = MedusaDraft(heads, target, TREE)
    commit = random_commit(target, [2, 5, 3], [0, 4, 9])
    params = fused_params([], True, [3, 4, 5], target.device)
    params.temperature[1] = 0
    draft.start(commit.tokens, commit.num_rows, params)
    draft.extend(commit)
    context_len = commit.context_len + commit.num_rows
    tree = draft.propose(torch.zeros(3, dtype=torch.int32), context_len)
    paths = [(), *draft.tree.paths]
    for b in range(3):
        state = commit.features[b, commit.num_rows[b] - 1]
        for node, path in enumerate(paths[1:], 1):
            position = (context_len[b] + len(path)).view(1, 1)
            noise = eagle_kernels.gumbel_noise(params.seed[b : b + 1], position, VOCAB)[0, 0, target_ids(heads)]
            logits = plain_logits(heads, target, len(path) - 1, state) + NOISE_WEIGHT * params.temperature[b] * noise
            best = logits.log_softmax(-1).sort(descending=True)
            assert int(tree.draft_tokens[b, node]) == int(target_ids(heads)[best.indices[path[-1]]])
            score = float(tree.node_scores[b, tree.parent[b, node]]) + float(best.values[path[-1]])
            assert float(tree.node_scores[b, node]) == pytest.approx(score, abs=1e-4)


def test_drawn_children_are_refused():
    target = tiny_target()
    with pytest.raises(ValueError, match="likeliest or coupled children, got 'sampled'"):
        MedusaDraft(random_depth_heads(target, "medusa"), target, replace(TREE, children="sampled"))


def test_heads_that_know_the_text_are_accepted():
    """With the residual block at zero a head repeats the target's own choice: right on text that repeats itself."""
    target = tiny_target()
    heads = random_depth_heads(target, "medusa")
    for name, tensor in heads.tensors.items():
        heads.tensors[name] = torch.zeros_like(tensor)
    target.get_output_embeddings().weight.data[3:] *= 0.05
    decoder = SpeculativeDecoder(target, MedusaDraft(heads, target, TREE))
    settings = {"do_sample": False, "max_new_tokens": 60, "eos_token_id": None}
    assert torch.equal(decoder.generate(**prompts(1), **settings), target.generate(**prompts(1), **settings))
    assert decoder.stats.tokens_per_round > 1.5


def published_file(folder, heads, version):
    """The file that Medusa's repository would write: version 0.1 holds projections, version 2 does not."""
    folder.mkdir()
    config, tensors = heads.config, heads.tensors
    file = {}
    for head in range(config.num_heads):
        for layer in range(config.num_layers):
            for part in ("weight", "bias"):
                file[f"{head}.{layer}.linear.{part}"] = tensors[f"heads.{head}.blocks.0.{part}"].clone()
        if config.own_lm_head:
            file[f"{head}.{config.num_layers}.weight"] = tensors[f"heads.{head}.lm_head.weight"]
    fields = {"medusa_num_heads": 2, "medusa_num_layers": config.num_layers, "base_model_name_or_path": "base"}
    (folder / "config.json").write_text(json.dumps(fields | ({"version": "2"} if version == 2 else {})))
    if version == 2:
        save_file(file, folder / "medusa_lm_head.safetensors")
    else:
        torch.save({f"medusa_head.{name}": tensor for name, tensor in file.items()}, folder / "medusa_lm_head.pt")
    return folder


@pytest.mark.parametrize("version, num_layers", [(0.1, 1), (0.1, 3), (2, 1), (2, 2)])
@torch.no_grad()
def test_published_files(tmp_path, version, num_layers):
    target = tiny_target("qwen2")
    heads = random_depth_heads(target, "medusa", num_heads=4, num_layers=num_layers, own_lm_head=version == 0.1)
    draft = load_draft(published_file(tmp_path / "heads", heads, version), target, TREE)
    assert isinstance(draft, MedusaDraft) and draft.heads.config == heads.config
    inputs = torch.randn(2, 3, 32)
    for head in range(4):
        assert_plain_logits(heads, target, head, inputs, draft.heads.logits(head, inputs))


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_heads_stored_inside_a_tuned_model(tmp_path, suffix):
    """Medusa-2: one directory is target and draft; the heads lie in two shards beside the model's own tensors."""
    target = tiny_target()
    heads = random_depth_heads(target, "medusa", own_lm_head=True)
    for name, tensor in heads.tensors.items():
        heads.tensors[name] = tensor.clone()
    model = dict(target.state_dict()) | {"lm_head.weight": target.lm_head.weight.detach().clone()}
    for shard, of_head in enumerate([(0, 2), (1,)]):
        stored = model if shard == 0 else {}
        for head in of_head:
            for part in ("weight", "bias"):
                stored[f"medusa_head.{head}.0.linear.{part}"] = heads.tensors[f"heads.{head}.blocks.0.{part}"]
            stored[f"medusa_head.{head}.1.weight"] = heads.tensors[f"heads.{head}.lm_head.weight"]
        (save_file if suffix == "safetensors" else torch.save)(stored, tmp_path / f"model-{shard}.{suffix}")
    (tmp_path / "config.json").write_text(json.dumps(target.config.to_dict() | {"medusa_num_heads": 3}, default=str))
    draft = load_draft(tmp_path, target, TREE)
    assert isinstance(draft, MedusaDraft) and draft.heads.config == heads.config
    assert all(torch.equal(draft.heads.weights[name], tensor) for name, tensor in heads.tensors.items())


@pytest.mark.parametrize("format", ["portable", "published"])
@pytest.mark.parametrize("draft_vocab", [VOCAB, 40])
def test_written_heads_keep_their_logits(tmp_path, format, draft_vocab):
    target = tiny_target()
    lm_head = target.get_output_embeddings().weight.detach()
    accuracy = ((0.5,), (0.25,), (0.125,))
    heads = random_depth_heads(target, "medusa", draft_vocab, rank_accuracy=accuracy, output_map=draft_vocab == 40)
    write_depth_heads(tmp_path / "heads", heads, target.config, format, lm_head)
    read = read_depth_heads(tmp_path / "heads", target.config)
    assert read.config.rank_accuracy == heads.config.rank_accuracy
    kept = target_ids(heads) if format == "published" else slice(None)
    inputs = torch.randn(1, 5, 32)
    for head in range(3):
        before = HeadStack(heads, lm_head, torch.float32, torch.device("cpu")).logits(head, inputs)
        after = HeadStack(read, lm_head, torch.float32, torch.device("cpu")).logits(head, inputs)
        torch.testing.assert_close(after[..., kept], before, rtol=1e-5, atol=1e-5)
    stored = load_file(tmp_path / "heads" / "medusa_lm_head.safetensors")
    assert any(tensor.shape == (VOCAB, 32) for tensor in stored.values()) == (format == "published")
    assert not list((tmp_path / "heads").glob("*.tmp"))


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    def fail(tensors, file, metadata):
        file.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("eagle_decoding.checkpoint.files.save_file", fail)
    target = tiny_target()
    with pytest.raises(DiskFullError, match=r"The disk is full: .*medusa_lm_head\.safetensors was not written"):
        write_depth_heads(tmp_path, random_depth_heads(target, "medusa"), target.config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change, reason",
    [
        (
            {"1.0.linear.weight": torch.zeros(32, 31)},
            r"1\.0\.linear\.weight has shape \[32, 31\] instead of \[32, 32\]",
        ),
        ({"2.0.linear.bias": None}, r"2\.0\.linear\.bias is missing"),
        ({"2.0.linear.weight": None, "2.0.linear.bias": None, "3.0.linear.weight": torch.zeros(32, 32)}, "is missing"),
        ({"model.norm.weight": torch.zeros(32)}, r"model\.norm\.weight is unexpected"),
        ({"0.1.linear.weight": torch.ones(32, 32)}, r"0\.1\.linear\.weight and 0\.0\.linear\.weight in .* differ"),
        ({"d2t": torch.full((40,), 90)}, r"d2t\[7\] = 90 maps draft token 7 to target token 97"),
    ],
    ids=["shape", "missing", "gap", "foreign", "blocks-that-differ", "d2t"],
)
def test_wrong_tensors_are_named(tmp_path, change, reason):
    target = tiny_target()
    write_depth_heads(tmp_path, random_depth_heads(target, "medusa", 40, num_layers=2), target.config)
    file = tmp_path / "medusa_lm_head.safetensors"
    tensors = load_file(file) | change
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, file)
    with pytest.raises(CheckpointError, match=reason):
        load_draft(tmp_path, target, TREE)


def test_refused_directories(tmp_path):
    target = tiny_target()
    heads = random_depth_heads(target, "medusa", 40)
    with pytest.raises(CheckpointError, match="neither Medusa nor Hydra"):
        read_depth_heads(tmp_path, target.config)
    write_depth_heads(tmp_path, heads, target.config)
    fields = json.loads((tmp_path / "config.json").read_text())
    for key, value, reason in [
        ("hidden_size", 64, "hidden_size 64 against the target's 32"),
        ("vocab_size", 98, "vocab_size 98 against the target's 97"),
        ("rank_accuracy", [[0.5]], "describes 1 heads, but there are 3"),
    ]:
        (tmp_path / "config.json").write_text(json.dumps(fields | {key: value}))
        with pytest.raises(CheckpointError, match=reason):
            read_depth_heads(tmp_path, target.config)
    file = tmp_path / "medusa_lm_head.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_draft(tmp_path, target, TREE)


def test_what_cannot_be_written(tmp_path):
    target = tiny_target()
    lm_head = target.get_output_embeddings().weight
    with pytest.raises(CheckpointError, match="export format is 'vllm'"):
        write_depth_heads(tmp_path, random_depth_heads(target, "medusa"), target.config, "vllm")
    with pytest.raises(CheckpointError, match="needs it to be given"):
        write_depth_heads(tmp_path, random_depth_heads(target, "medusa"), target.config, "published")
    with pytest.raises(CheckpointError, match="40 of 97 tokens of their own"):
        own = random_depth_heads(target, "medusa", 40, own_lm_head=True)
        write_depth_heads(tmp_path, own, target.config, "published", lm_head)
    heads = random_depth_heads(target, "medusa")
    incomplete = DepthHeads(heads.config, {k: v for k, v in heads.tensors.items() if k != "heads.1.blocks.0.bias"})
    with pytest.raises(CheckpointError, match=r"heads\.1\.blocks\.0\.bias is missing"):
        write_depth_heads(tmp_path, incomplete, target.config)

"""Hydra and Hydra++ heads: proposals against a plain forward, published files, greedy decoding, refused files."""

import json

import pytest
import torch
from depth_heads import assert_plain_logits, plain_logits, random_commit, random_depth_heads, target_ids
from models import KINDS, VOCAB, prompts, tiny_target
from safetensors.torch import load_file
from transformers.models.llama.modeling_llama import LlamaModel

from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.checkpoint import CheckpointError, layer_of, read_depth_heads, write_depth_heads
from eagle_decoding.drafts import HydraDraft, load_draft
from eagle_decoding.drafts.depth_heads import HeadStack
from eagle_decoding.sampling import fused_params

GREEDY = {"do_sample": False, "max_new_tokens": 40}
TREE = TreeConfig(20, 3, 4)
OURS = {"shared_path": True, "output_map": True}
EVERYTHING = {"num_layers": 3, "residual_projection": True, "own_lm_head": True, "lm_head_bias": True}


def hydra_heads(target, draft_vocab=VOCAB, prefix=False, **options):
    return random_depth_heads(
        target, "hydra", draft_vocab, prefix=layer_of(target.config) if prefix else None, **options
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", [False, True], ids=["hydra", "hydra++"])
@pytest.mark.parametrize("batch", [1, 3])
def test_greedy_text_is_the_targets_own(kind, prefix, batch):
    target = tiny_target(kind)
    inputs = prompts(batch)
    decoder = SpeculativeDecoder(target, HydraDraft(hydra_heads(target, 60, prefix), target, TREE))
    assert torch.equal(decoder.generate(**inputs, **GREEDY), target.generate(**inputs, **GREEDY))


def prefix_model(heads, target):
    """The prefix layer as a stock model of one layer, fed with states instead of embeddings. Its output projection has
    no bias, whatever the target's have."""
    config = type(target.config)(**(target.config.to_dict() | {"num_hidden_layers": 1}))
    model = LlamaModel(config).eval()
    own = {name.removeprefix("prefix."): t for name, t in heads.tensors.items() if name.startswith("prefix.")}
    missing = model.load_state_dict({n.replace("layer.", "layers.0.", 1): t for n, t in own.items()}, strict=False)
    assert missing.unexpected_keys == [] and missing.missing_keys[0] == "embed_tokens.weight"
    if missing.missing_keys[1:] == ["layers.0.self_attn.o_proj.bias"]:
        model.layers[0].self_attn.o_proj.bias.zero_()
    else:
        assert missing.missing_keys[1:] == []
    return model


@pytest.mark.parametrize(
    "kind, options",
    [
        ("llama", {}),
        ("llama", {"draft_vocab": 40, "num_layers": 2}),
        ("llama", EVERYTHING),
        ("llama", {"draft_vocab": 40, "num_layers": 2, **OURS}),
        ("llama", {"prefix": True, "draft_vocab": 50}),
        ("llama-scaled-rope", {"prefix": True, **EVERYTHING}),
    ],
    ids=["plain", "reduced", "everything", "ours", "prefix", "prefix-and-everything"],
)
@torch.no_grad()
def test_a_node_holds_the_candidate_of_its_own_path(kind, options):
    """After a prompt of two chunks and after a round, when the prefix layer reads rows it kept."""
    target = tiny_target(kind)
    heads = hydra_heads(target, **options)
    draft = HydraDraft(heads, target, TREE)
    prompt, committed = random_commit(target, [70, 5, 66], [0, 0, 0]), random_commit(target, [2, 4, 3], [70, 5, 66])
    draft.start(torch.zeros(3, 70, dtype=torch.int64), prompt.num_rows, fused_params([], False, [0] * 3, target.device))
    rows: list[list[torch.Tensor]] = [[], [], []]
    for commit in (prompt, committed):
        draft.extend(commit)
        tree = draft.propose(torch.tensor([5, 6, 7], dtype=torch.int32), commit.context_len + commit.num_rows)
        for b in range(3):
            rows[b].append(commit.features[b, : commit.num_rows[b]])
            check_tree(heads, target, draft, tree, b, torch.cat(rows[b]))


def check_tree(heads, target, draft, tree, b, states):
    """Every node of request b against the plain forward on its path, after these committed states."""
    embed, paths = target.get_input_embeddings().weight, [(), *draft.tree.paths]
    assert int(tree.draft_tokens[b, 0]) == 5 + b
    if heads.config.prefix:
        states = prefix_model(heads, target)(inputs_embeds=states[None]).last_hidden_state[0]
    for node, path in enumerate(paths[1:], start=1):
        parent = int(tree.parent[b, node])
        walk = [paths.index(path[:depth]) for depth in range(len(path))]
        inputs = torch.cat([states[-1], embed[tree.draft_tokens[b, walk].long()].flatten()])
        logprobs = plain_logits(heads, target, len(path) - 1, inputs).log_softmax(-1)
        best = logprobs.sort(descending=True)
        assert int(tree.draft_tokens[b, node]) == int(target_ids(heads)[best.indices[path[-1]]])
        score = float(tree.node_scores[b, parent]) + float(best.values[path[-1]])
        assert float(tree.node_scores[b, node]) == pytest.approx(score, abs=1e-4)


def published_file(folder, heads):
    """The state dict that Hydra's repository would pickle, with the modules it holds more than once."""
    config, tensors = heads.config, heads.tensors
    file, step, projection = {"input_embed_fn.weight": torch.zeros(VOCAB, 32)}, 1, ""
    if config.prefix:
        step, projection = 2, "1."
        file["prefix_embeding_layer.embed_tokens.weight"] = torch.zeros(VOCAB, 32)
        for name, tensor in tensors.items():
            if name.startswith("prefix."):
                stored = name.removeprefix("prefix.").replace("layer.", "layers.0.", 1)
                file["prefix_embeding_layer." + stored] = tensor
    for head in range(config.num_heads):
        for layer in range(config.num_layers):
            place = f"hydra_mlp.{head}.{layer * step + step - 1}"
            for part in ("weight", "bias"):
                file[f"{place}.linear.{part}"] = tensors[f"heads.{head}.blocks.{min(layer, 1)}.{part}"]
                if layer == 0:
                    file[f"{place}.res_connection.{part}"] = tensors[f"heads.{head}.residual.{part}"]
        for part in ("weight", "bias"):
            file[f"hydra_lm_head.{head}.{projection}{part}"] = tensors[f"heads.{head}.lm_head.{part}"]
    fields = {
        "hydra_num_heads": config.num_heads,
        "hydra_num_layers": config.num_layers,
        "hydra_head_arch": "prefix-mlp" if config.prefix else "mlp",
        "grounded_heads": True,
        "hidden_state_offset": 0,
        "base_model_name_or_path": "base",
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(fields))
    torch.save(file, folder / "hydra_lm_head.pt")
    return folder


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("num_layers", [1, 4])
@torch.no_grad()
def test_published_files(tmp_path, prefix, num_layers):
    target = tiny_target()
    heads = hydra_heads(target, prefix=prefix, **EVERYTHING | {"num_layers": num_layers, "num_heads": 4})
    draft = load_draft(published_file(tmp_path / "heads", heads), target, TREE)
    assert isinstance(draft, HydraDraft) and draft.heads.config == heads.config
    for head in range(4):
        inputs = torch.randn(2, 3, (head + 2) * 32)
        assert_plain_logits(heads, target, head, inputs, draft.heads.logits(head, inputs))
    if prefix:
        own = {name for name in heads.tensors if name.startswith("prefix.")}
        read = read_depth_heads(tmp_path / "heads", target.config)
        assert len(own) == 10 and all(torch.equal(heads.tensors[name], read.tensors[name]) for name in own)


@pytest.mark.parametrize("format", ["portable", "published"])
@pytest.mark.parametrize(
    "options", [{}, {"draft_vocab": 40, "num_layers": 3, "prefix": True}, EVERYTHING, {"draft_vocab": 40, **OURS}]
)
def test_written_heads_keep_their_logits(tmp_path, format, options):
    target = tiny_target()
    lm_head = target.get_output_embeddings().weight.detach()
    heads = hydra_heads(target, **options)
    write_depth_heads(tmp_path / "heads", heads, target.config, format, lm_head)
    read = read_depth_heads(tmp_path / "heads", target.config)
    kept = target_ids(heads) if format == "published" else slice(None)
    for head in range(3):
        inputs = torch.randn(1, 5, (head + 2) * 32)
        before = HeadStack(heads, lm_head, torch.float32, torch.device("cpu")).logits(head, inputs)
        after = HeadStack(read, lm_head, torch.float32, torch.device("cpu")).logits(head, inputs)
        torch.testing.assert_close(after[..., kept], before, rtol=1e-5, atol=2e-5)
    if format == "published":
        assert (tmp_path / "heads" / "hydra_lm_head.pt").is_file()


def test_portable_files_hold_each_block_once_and_no_copy_of_the_target(tmp_path):
    target = tiny_target()
    write_depth_heads(tmp_path, hydra_heads(target, 40, num_layers=4), target.config)
    tensors = load_file(tmp_path / "hydra_lm_head.safetensors")
    blocks = [
        f"hydra_mlp.{head}.{block}.linear.{part}"
        for head in range(3)
        for block in (0, 1)
        for part in ("weight", "bias")
    ]
    assert sorted(tensors) == sorted([*blocks, "d2t"])


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"hydra_head_arch": "cross-attn"}, "'cross-attn'"),
        ({"grounded_heads": False}, "grounded_heads False"),
        ({"hydra_num_layers": 2}, r"hydra_mlp\.0\.3\.linear\.weight is missing"),
    ],
)
def test_refused_configurations(tmp_path, fields, reason):
    target = tiny_target()
    folder = published_file(tmp_path / "heads", hydra_heads(target, prefix=True, **EVERYTHING | {"num_layers": 1}))
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(known | fields))
    with pytest.raises(CheckpointError, match=reason):
        load_draft(folder, target, TREE)


def test_a_prefix_layer_for_another_target_is_refused(tmp_path):
    folder = published_file(tmp_path / "heads", hydra_heads(tiny_target(), prefix=True, **EVERYTHING))
    with pytest.raises(CheckpointError, match=r"self_attn\.q_proj\.weight has shape \[32, 32\] instead of \[96, 32\]"):
        load_draft(folder, tiny_target("qwen3"), TREE)

"""EAGLE-1 drafts: what they propose against a plain forward of the format, greedy decoding, and the file of each
engine."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
from depth_heads import random_commit
from eagle1_head import plain_states, random_eagle1
from models import VOCAB, eagle_decoder, prompts, random_head, tiny_target
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.checkpoint import CheckpointError, TargetFacts, check_fits, read_head, write_head
from eagle_decoding.drafts import Commit, Eagle1Draft, Eagle3Draft, load_draft
from eagle_decoding.drafts.layer_draft import EAGLE1_PATHS
from eagle_decoding.drafts.load import usual_tree
from eagle_decoding.drafts.static_tree import StaticTree, first_paths
from eagle_decoding.sampling import SamplingParams

GREEDY = {"do_sample": False, "max_new_tokens": 40}
DYNAMIC = TreeConfig(12, 3, 3)
STATIC = TreeConfig(26, 5, 4, static=True)


@pytest.mark.parametrize("tree", [DYNAMIC, STATIC, replace(STATIC, num_nodes=7)], ids=["dynamic", "static", "cut"])
@pytest.mark.parametrize("kind, batch", [("llama", 1), ("qwen2", 3), ("llama-scaled-rope", 3)])
def test_greedy_text_is_the_targets_own(kind, batch, tree):
    target = tiny_target(kind)
    inputs = prompts(batch)
    head = random_eagle1(target, 60, attention_bias=kind == "qwen2", fc_bias=kind == "qwen2")
    decoder = SpeculativeDecoder(target, eagle1_draft(head, target, tree))
    assert torch.equal(decoder.generate(**inputs, **GREEDY), target.generate(**inputs, **GREEDY))


@pytest.mark.parametrize("draft_vocab", [VOCAB, 40])
def test_eagle3_fills_the_static_tree_too(draft_vocab):
    target = tiny_target()
    inputs = prompts(2)
    decoder = eagle_decoder(target, STATIC, draft_vocab)
    assert torch.equal(decoder.generate(**inputs, **GREEDY), target.generate(**inputs, **GREEDY))
    assert decoder.stats.last_round.tree.num_nodes == 26


def test_the_published_tree_and_its_cuts():
    assert len(EAGLE1_PATHS) == len(set(EAGLE1_PATHS)) == 25
    assert Counter(map(len, EAGLE1_PATHS)) == {1: 4, 2: 8, 3: 8, 4: 3, 5: 2}
    for nodes in range(2, 27):
        assert StaticTree(first_paths(EAGLE1_PATHS, replace(STATIC, num_nodes=nodes))).num_nodes == nodes
    assert first_paths(EAGLE1_PATHS, TreeConfig(9, 8, 1, static=True)) == [(0,) * n for n in range(1, 6)]


def test_the_static_tree_is_reached_by_name(tmp_path):
    target = tiny_target()
    head = random_head(target, draft_vocab=60)
    write_head(tmp_path, head.config, head.tensors)
    assert load_draft(f"static:{tmp_path}", target).static.num_nodes == usual_tree(target).num_nodes
    assert load_draft(f"auto:static:{tmp_path}", target, TreeConfig(26, 5, 4)).draft.static.paths == sorted(
        EAGLE1_PATHS, key=lambda path: (len(path), path)
    )
    target.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="needs a head of the EAGLE family"):
        load_draft(f"static:{tmp_path / 'model'}", target)


@pytest.mark.parametrize("tree", [DYNAMIC, STATIC], ids=["dynamic", "static"])
def test_sampled_text_is_that_of_plain_sampling(tree):
    target = tiny_target()
    inputs, settings = prompts(3), {"do_sample": True, "temperature": 0.8, "top_k": 20, "max_new_tokens": 30, "seed": 7}
    decoder = SpeculativeDecoder(target, eagle1_draft(random_eagle1(target, 60), target, tree))
    plain = decoder.generate(**inputs, speculate=False, **settings)
    assert torch.equal(decoder.generate(**inputs, **settings), plain)


@pytest.mark.parametrize("children", ["sampled", "hybrid", "auto"])
def test_trees_of_drawn_children(children):
    """A request at temperature 0 beside sampled ones gets the target's own text, whatever the tree is made of."""
    target = tiny_target()
    inputs = prompts(3)
    draft = eagle1_draft(random_eagle1(target, 60), target, replace(DYNAMIC, children=children))
    decoder = SpeculativeDecoder(target, draft)
    settings = {"max_new_tokens": 30, "seed": 7, "eos_token_id": None}
    text = decoder.generate(**inputs, temperature=[0.8, 0.0, 1.0], **settings)
    greedy = target.generate(**inputs, do_sample=False, max_new_tokens=30, eos_token_id=None)
    assert torch.equal(text[1], greedy[1]) and not torch.equal(text[0], greedy[0])


def eagle1_draft(head, target, tree):
    embed, lm_head = target.get_input_embeddings().weight, target.get_output_embeddings().weight
    return Eagle1Draft(head, embed, lm_head, 4, tree, target.dtype, target.device)


def facts(target):
    return TargetFacts("org/target", ["LlamaForCausalLM"], 4, target.get_input_embeddings().weight)


def greedy_params(batch):
    zeros, ones = torch.zeros(batch), torch.ones(batch)
    return SamplingParams(zeros.long(), zeros, zeros.int(), ones, zeros)


def joined(first: Commit, second: Commit, b: int) -> tuple[list[int], torch.Tensor]:
    """Tokens and features that request b committed in both."""
    rows = [(c.tokens[b, : c.num_rows[b]], c.features[b, : c.num_rows[b]]) for c in (first, second)]
    return torch.cat([tokens for tokens, _ in rows]).tolist(), torch.cat([features for _, features in rows])


@pytest.mark.parametrize("tree", [DYNAMIC, STATIC], ids=["dynamic", "static"])
@pytest.mark.parametrize("options", [{}, {"draft_vocab": 40, "fc_bias": True, "attention_bias": True}])
@torch.no_grad()
def test_every_node_scores_what_the_plain_forward_says(tree, options):
    """Two rounds of a ragged batch: the second drafts behind rows that overwrote the first round's tree."""
    target = tiny_target()
    head = random_eagle1(target, **options)
    draft = eagle1_draft(head, target, tree)
    first = random_commit(target, [70, 5, 3], [0, 0, 0])
    second = random_commit(target, [2, 1, 4], [70, 5, 3])
    draft.start(first.tokens, first.num_rows, greedy_params(3))
    draft.extend(first)
    draft.propose(first.tokens[:, 0].contiguous(), first.num_rows)
    draft.extend(second)
    length = second.context_len + second.num_rows
    root = second.tokens.gather(1, second.num_rows[:, None].long() - 1).squeeze(1)
    drafted = draft.propose(root, length)
    embed, lm_head = target.get_input_embeddings().weight, target.get_output_embeddings().weight
    ids = torch.arange(head.config.draft_vocab_size)
    ids = ids + head.tensors["d2t"] if "d2t" in head.tensors else ids
    for b in range(3):
        tokens, features = joined(first, second, b)
        laws: dict[int, torch.return_types.sort] = {}
        for node in range(1, drafted.num_nodes):
            parent, path = int(drafted.parent[b, node]), []
            above = parent
            while above > 0:
                path.insert(0, int(drafted.draft_tokens[b, above]))
                above = int(drafted.parent[b, above])
            if parent not in laws:
                state = plain_states(head.config, head.tensors, embed, tokens + path, features)[-1]
                laws[parent] = (lm_head[ids] @ state).log_softmax(-1).sort(descending=True)
            best = laws[parent]
            rank = ids[best.indices].tolist().index(int(drafted.draft_tokens[b, node]))
            assert rank < tree.topk
            if tree.static:
                assert rank == draft.static.paths[node - 1][-1]
            score = float(drafted.node_scores[b, node]) - float(drafted.node_scores[b, parent])
            assert score == pytest.approx(float(best.values[rank]), abs=2e-4)
            assert int(drafted.position_ids[b, node]) == int(length[b]) + len(path) + 1


@pytest.mark.parametrize("format", ["portable", "safeailab", "vllm", "sglang"])
@pytest.mark.parametrize("options", [{}, {"attention_bias": True, "draft_vocab": 40}])
def test_each_engines_directory_drafts_the_same(tmp_path, format, options):
    target = tiny_target()
    head, embed = random_eagle1(target, **options), target.get_input_embeddings().weight
    if format == "sglang" and head.config.attention_bias:
        with pytest.raises(CheckpointError, match="SGLang has no biases of the query"):
            write_head(tmp_path, head.config, head.tensors, format, facts(target))
        return
    write_head(tmp_path, head.config, head.tensors, format, facts(target))
    fields = json.loads((tmp_path / "config.json").read_text())
    weights = tmp_path / ("pytorch_model.bin" if format == "safeailab" else "model.safetensors")
    file = torch.load(weights, weights_only=True) if format == "safeailab" else load_file(weights)
    assert ("embed_tokens.weight" in file) == (format != "portable")
    assert ("fc.bias" in file) == (format == "sglang") and "lm_head.weight" not in file
    assert ("d2t" in file) == (format == "portable" and head.config.has_reduced_vocab)
    assert fields["architectures"] == ["LlamaForCausalLMEagle" if format == "sglang" else "LlamaForCausalLM"]
    assert fields.get("bias") == (None if format == "sglang" else False)
    read = read_head(tmp_path)
    expected = head.config if format == "portable" else replace(head.config, draft_vocab_size=VOCAB)
    assert read.config == replace(expected, fc_bias=format == "sglang")
    commit = random_commit(target, [6], [0])
    aligned = {name: tensor.clone() for name, tensor in read.tensors.items()}  # a BLAS may round by alignment
    states = [
        plain_states(config, tensors, embed, [*commit.tokens[0].tolist(), 3, 4], commit.features[0])
        for config, tensors in ((head.config, head.tensors), (read.config, aligned))
    ]
    assert torch.equal(*states)
    assert isinstance(load_draft(tmp_path, target, DYNAMIC), Eagle1Draft)


def test_what_a_format_cannot_hold(tmp_path):
    target = tiny_target()
    head = random_eagle1(target, fc_bias=True)
    with pytest.raises(CheckpointError, match=r"fc\.bias is not zero and vLLM's fc has none"):
        write_head(tmp_path, head.config, head.tensors, "vllm", facts(target))
    head.tensors["fc.bias"].zero_()
    write_head(tmp_path, head.config, head.tensors, "vllm", facts(target))
    assert "fc.bias" not in load_file(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="it holds the target's embeddings, so give --target"):
        write_head(tmp_path, head.config, head.tensors, "safeailab")
    with pytest.raises(CheckpointError, match="'other'; known: portable, vllm, sglang, safeailab"):
        write_head(tmp_path, head.config, head.tensors, "other")


def official(target, **fields):
    """A directory as SafeAILab publishes it: fp16, biased fc, embeddings, no rope, no architecture of its own."""
    head = random_eagle1(target, fc_bias=True)
    tensors = {name: tensor.half() for name, tensor in head.tensors.items()}
    tensors["embed_tokens.weight"] = target.get_input_embeddings().weight.detach().half()
    shape = {"hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = {"architectures": ["LlamaForCausalLM"], "vocab_size": VOCAB, "rms_norm_eps": 1e-5, "bias": True}
    return head, tensors, config | shape | fields


def test_a_published_directory(tmp_path):
    target = tiny_target()
    head, tensors, fields = official(target)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(fields))
    read = read_head(tmp_path)
    assert read.config == head.config and read.tensors.keys() == head.tensors.keys()
    inputs = prompts(1)
    decoder = SpeculativeDecoder.from_pretrained(target, tmp_path, tree=STATIC)
    assert torch.equal(decoder.generate(**inputs, **GREEDY), target.generate(**inputs, **GREEDY))


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda t: t.pop("layers.0.self_attn.o_proj.weight"), r"layers\.0\.self_attn\.o_proj\.weight is missing"),
        (lambda t: t.update({"fc.weight": t["fc.weight"][:, :40]}), r"fc\.weight has shape \[32, 40\] instead of"),
        (lambda t: t.update({"layers.0.input_layernorm.weight": torch.ones(32)}), r"input_layernorm.* is unexpected"),
        (lambda t: t.update({"layers.1.mlp.up_proj.weight": torch.ones(40, 32)}), "has 2 layers"),
    ],
)
def test_wrong_tensors_are_named(tmp_path, damage, reason):
    _, tensors, fields = official(tiny_target())
    damage(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match=reason):
        read_head(tmp_path)


def test_a_head_for_another_target():
    config = random_eagle1(tiny_target()).config
    wrong = LlamaConfig(hidden_size=48, num_attention_heads=4, vocab_size=60, num_hidden_layers=8)
    with pytest.raises(CheckpointError, match=r"hidden size 32 against the target's 48; vocabulary 97 against.*60"):
        check_fits(config, wrong)


def test_eagle3_over_the_state_after_the_final_norm():
    """The layer id past the last one: what the ablation of the EAGLE-3 paper needs."""
    target = tiny_target()
    head = random_head(target, aux_layer_ids=(5,), num_aux=1)
    check_fits(head.config, target.config)
    embed = target.get_input_embeddings().weight
    draft = Eagle3Draft(head, embed, 4, DYNAMIC, target.dtype, target.device)
    captured = []
    extend = draft.extend
    draft.extend = lambda commit: (captured.append(commit), extend(commit))
    inputs = prompts(1)
    decoder = SpeculativeDecoder(target, draft)
    assert torch.equal(decoder.generate(**inputs, **GREEDY), target.generate(**inputs, **GREEDY))
    with torch.no_grad():
        expected = target.model(inputs["input_ids"], output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(captured[0].features, expected, rtol=1e-4, atol=1e-4)

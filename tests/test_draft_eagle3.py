"""EAGLE-3 drafts: what every node predicts, against a plain forward of the format in each of its variants."""

import pytest
import torch
from depth_heads import random_commit
from models import random_head, tiny_target
from plain_layer import PlainLayer

from eagle_decoding import TreeConfig
from eagle_decoding.drafts import Eagle3Draft
from eagle_decoding.sampling import SamplingParams
from eagle_decoding.train.serving import serving_logits

VARIANTS = [
    {},
    {"fc_norm": True},
    {"norm_output": True},
    {"norm_before_residual": True},
    {"norm_before_fc": True, "attention_bias": True, "draft_vocab": 40},
    {"fc_norm": True, "norm_output": True, "norm_before_residual": True},
]
NAMES = ["+".join(options) or "plain" for options in VARIANTS]


def plain_logits(head, embed, tokens, features):
    """[len(tokens), draft vocabulary] after the pairs (token i, feature i), and where features [F, A * H] end, of
    (token i, what the pair before it feeds back)."""
    config, layer, logits, fed_back = head.config, PlainLayer(head.config, head.tensors), [], None
    for position, token in enumerate(tokens):
        if position < len(features):
            feature = features[position]
            if config.fc_norm:
                parts = [layer.normed(f"fc_norm.{i}", part) for i, part in enumerate(feature.chunk(config.num_aux))]
                feature = torch.cat(parts)
            feature = layer.normed("input_norm", feature) if config.norm_before_fc else feature
            fed_back = layer.product("fc", feature)
        hidden = layer.normed("layers.0.hidden_norm", fed_back)
        x = torch.cat((layer.normed("layers.0.input_layernorm", embed[token]), hidden))
        state = layer.step(x, hidden if config.norm_before_residual else fed_back)
        normed = layer.normed("norm", state)
        fed_back = normed if config.norm_output else state
        logits.append(layer.product("lm_head", normed))
    return torch.stack(logits)


@pytest.mark.parametrize("options", VARIANTS, ids=NAMES)
@torch.no_grad()
def test_a_text_scores_what_the_plain_forward_says(options):
    target = tiny_target()
    head, embed = random_head(target, **options), target.get_input_embeddings().weight
    commit = random_commit(target, [9], [0], layers=3)
    tokens, features = commit.tokens[0], commit.features[0]
    expected = plain_logits(head, embed, tokens.tolist(), features)
    torch.testing.assert_close(serving_logits(head, embed, features, tokens), expected, rtol=1e-5, atol=1e-5)


# Rows that fill a mask word, two, or almost; EAGLE's usual tree; no row at all
SHAPES = [(60, 7, 10), (24, 3, 32), (24, 17, 8), (24, 9, 8), (20, 5, 16), (30, 2, 64), (5, 65, 1), (9, 1, 30)]


@pytest.mark.parametrize("children", ["likeliest", "sampled"])
@pytest.mark.parametrize(
    ("options", "shape"),
    [*((options, (9, 3, 2)) for options in VARIANTS), *(({}, shape) for shape in SHAPES)],
    ids=[*NAMES, *("-".join(map(str, shape)) for shape in SHAPES)],
)
@torch.no_grad()
def test_every_node_predicts_what_the_plain_forward_says(options, shape, children):
    """Scores of the likeliest children, and the laws that children are drawn from."""
    target = tiny_target()
    head, embed = random_head(target, **options), target.get_input_embeddings().weight
    draft = Eagle3Draft(head, embed, 4, TreeConfig(*shape, children=children), target.dtype, target.device)
    commit = random_commit(target, [7, 4], [0, 0], layers=3)
    zeros, ones = torch.zeros(2), torch.ones(2)
    draft.start(commit.tokens, commit.num_rows, SamplingParams(zeros.long(), ones, zeros.int(), ones, zeros))
    draft.extend(commit)
    root = commit.tokens.gather(1, commit.num_rows[:, None].long() - 1).squeeze(1)
    tree = draft.propose(root, commit.num_rows)
    ids = torch.arange(head.config.draft_vocab_size)
    ids = ids + head.tensors["d2t"] if "d2t" in head.tensors else ids
    deepest = 0
    for b, rows in enumerate(commit.num_rows.tolist()):
        text, features, paths = commit.tokens[b, :rows].tolist(), commit.features[b, :rows], {0: []}
        for node in range(1, tree.num_nodes):
            parent, token = int(tree.parent[b, node]), int(tree.draft_tokens[b, node])
            if parent < 0:
                continue
            paths[node] = [*paths[parent], token]
            deepest = max(deepest, len(paths[node]))
            logits = plain_logits(head, embed, text + paths[parent], features)[-1]
            if children == "sampled":
                torch.testing.assert_close(tree.proposal.draft_logits[b, parent], logits, rtol=1e-4, atol=1e-4)
            else:
                score = float(tree.node_scores[b, node] - tree.node_scores[b, parent])
                assert score == pytest.approx(float(logits.log_softmax(-1)[ids == token]), abs=2e-4)
    assert deepest == 3 if shape == (9, 3, 2) else deepest > 0

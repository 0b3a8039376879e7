"""Greedy decoding: token for token what transformers' generate emits, whatever is drafted."""

import pytest
import torch
from models import EOS, KINDS, PAD, VOCAB, ScriptedDraft, eagle_decoder, prompts, tiny_target

from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.drafts import load_draft
from eagle_decoding.drafts.auto import AutoDraft
from eagle_decoding.drafts.causal_lm import CausalLmDraft
from eagle_decoding.drafts.hybrid import HybridDraft
from eagle_decoding.stats import Stats

GREEDY = {"do_sample": False, "max_new_tokens": 40}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 3])
def test_eagle3_equals_generate(kind, batch):
    target = tiny_target(kind)
    inputs = prompts(batch)
    decoder = eagle_decoder(target)
    expected = target.generate(**inputs, **GREEDY)
    assert torch.equal(decoder.generate(**inputs, **GREEDY), expected)
    assert torch.equal(decoder.generate(**inputs, speculate=False, **GREEDY), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"fc_norm": True, "norm_output": True},
        {"norm_before_fc": True},
        {"norm_before_residual": True, "attention_bias": True},
        {"draft_vocab": 40},
    ],
    ids=["eagle-3.1", "norm-before-fc", "norm-before-residual", "reduced-vocabulary"],
)
def test_head_variants(options):
    target = tiny_target()
    inputs = prompts(2)
    assert torch.equal(
        eagle_decoder(target, **options).generate(**inputs, **GREEDY), target.generate(**inputs, **GREEDY)
    )


@pytest.mark.parametrize(
    "tree",
    [TreeConfig(2, 1, 1), TreeConfig(9, 8, 1), TreeConfig(61, 6, 4), TreeConfig(128, 5, 10)],
    ids=["one-draft", "chain", "61-nodes", "128-nodes"],
)
def test_tree_shapes(tree):
    target = tiny_target("qwen3")
    inputs = prompts(2)
    assert torch.equal(eagle_decoder(target, tree).generate(**inputs, **GREEDY), target.generate(**inputs, **GREEDY))


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 0.95])
def test_deep_acceptance(accuracy):
    """Long accepted paths, several cache growths, rows that finish at different times."""
    target = tiny_target()
    inputs = prompts(3)
    settings = {"do_sample": False, "max_new_tokens": 180}
    expected = target.generate(**inputs, **settings)
    texts = [row[mask_start(mask) :].tolist() for row, mask in zip(expected, inputs["attention_mask"], strict=True)]
    decoder = SpeculativeDecoder(target, ScriptedDraft(texts, accuracy, num_nodes=20))
    assert torch.equal(decoder.generate(**inputs, **settings), expected)
    if accuracy == 0.95:
        assert decoder.stats.tokens_per_round > 3


def mask_start(mask: torch.Tensor) -> int:
    return int((mask == 0).sum())


def test_stops_inside_an_accepted_path():
    """An end token in the middle of what a round accepts cuts the output there, as does the length limit."""
    target = tiny_target()
    inputs = prompts(1)
    text = target.generate(**inputs, do_sample=False, max_new_tokens=60, eos_token_id=None)[0].tolist()
    decoder = SpeculativeDecoder(target, ScriptedDraft([text], accuracy=1.0, num_nodes=16))
    for eos in (text[17], text[23], [text[30], text[40]]):
        settings = {"do_sample": False, "max_new_tokens": 60, "eos_token_id": eos, "pad_token_id": EOS}
        assert torch.equal(decoder.generate(**inputs, **settings), target.generate(**inputs, **settings))
    for limit in range(1, 12):
        settings = {"do_sample": False, "max_new_tokens": limit, "eos_token_id": None}
        assert torch.equal(decoder.generate(**inputs, **settings), target.generate(**inputs, **settings))


def test_stats_count_what_happened():
    target = tiny_target()
    inputs = prompts(1)
    settings = {"do_sample": False, "max_new_tokens": 41, "eos_token_id": None}
    text = target.generate(**inputs, **settings)[0].tolist()
    decoder = SpeculativeDecoder(target, ScriptedDraft([text], accuracy=0.8, num_nodes=10))
    decoder.generate(**inputs, **settings)
    stats = decoder.stats
    assert stats.tokens == 41
    assert sum(stats.accepted_by_depth) == stats.accepted
    assert stats.accepted_by_depth == sorted(stats.accepted_by_depth, reverse=True)
    assert stats.tokens_per_round == pytest.approx(1 + stats.accepted / stats.rounds)
    assert {"prefill", "draft", "verify", "sample", "commit", "output"} <= set(stats.seconds)
    decoder.generate(**inputs, speculate=False, **settings)
    assert decoder.stats.rounds == 40  # the first token comes with the prompt
    assert decoder.stats.tokens_per_round == 1


def test_statistics_by_hand():
    """Of three rounds two accept a draft and one of these a second; prompt and capture are no rounds."""
    stats = Stats(seconds={"prefill": 1.0, "capture": 2.0, "launch": 4.0, "output": 8.0})
    for accepted in (0, 2, 1):
        stats.record_round(accepted)
    assert (stats.accepted_by_depth, stats.tokens_per_round, stats.decode_seconds) == ([2, 1], 2.0, 12.0)


def test_target_is_left_as_it_was():
    target = tiny_target()
    before = target.config._attn_implementation
    hooks = [len(layer._forward_pre_hooks) for layer in target.model.layers]
    eagle_decoder(target).generate(**prompts(1), **GREEDY)
    assert target.config._attn_implementation == before
    assert [len(layer._forward_pre_hooks) for layer in target.model.layers] == hooks


def test_requests_that_ended_take_no_more_room():
    """Request 1 ends at its first token; its draft, which knows what would follow, accepts a dozen tokens a round."""
    target, inputs = tiny_target(), prompts(2)
    text = target.generate(**inputs, do_sample=False, max_new_tokens=300, eos_token_id=None)
    starts = [mask_start(mask) for mask in inputs["attention_mask"]]
    texts = [[], text[1, starts[1] :].tolist()]
    settings = {"do_sample": False, "max_new_tokens": 60, "eos_token_id": int(text[1, 11]), "pad_token_id": PAD}
    assert text[1, 11] not in text[0, 11:71]
    decoder = SpeculativeDecoder(target, ScriptedDraft(texts, accuracy=1.0, num_nodes=40))
    assert torch.equal(decoder.generate(**inputs, **settings), target.generate(**inputs, **settings))
    assert decoder.stats.rounds > 50
    positions = torch.stack([tree.position_ids[:, 0] for tree in decoder.draft.proposed])
    assert positions[:, 1].unique().tolist() == [11 - starts[1]]


@pytest.mark.parametrize("name", ["eagle", "suffix", "lookahead", "suffix+eagle", "small-model", "auto:eagle"])
def test_requests_that_ended_disturb_no_draft(name):
    target, inputs = tiny_target(), prompts(3)
    text = target.generate(**inputs, do_sample=False, max_new_tokens=40, eos_token_id=None)
    settings = {"do_sample": False, "max_new_tokens": 40, "pad_token_id": PAD}
    decoder = eagle_decoder(target)
    drafts = {
        "eagle": lambda: decoder.draft,
        "small-model": lambda: CausalLmDraft(tiny_target(), VOCAB, TreeConfig(6, 5, 1)),
        "suffix+eagle": lambda: HybridDraft(decoder.draft, load_draft("suffix", target), 12),
        "auto:eagle": lambda: AutoDraft(decoder.draft, 12, target),
    }
    decoder.draft = drafts.get(name, lambda: load_draft(name, target))()
    for row, step in ((0, 0), (1, 3), (2, 17)):
        settings["eos_token_id"] = [int(text[row, 11 + step]), int(text[1, 11 + 20])]
        assert torch.equal(decoder.generate(**inputs, **settings), target.generate(**inputs, **settings))

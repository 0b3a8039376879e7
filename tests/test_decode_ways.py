"""Every way of drafting decodes exactly: equal text where it is promised, the target's law everywhere."""

from collections import Counter

import pytest
import torch
from models import VOCAB, eagle_decoder, prompts, tiny_target
from test_decode_sampling import SETTINGS, chi_square, sample
from trees import ancestor_bits, random_parents

import eagle_kernels
from eagle_decoding import SpeculativeDecoder, TreeConfig, TypicalAcceptance
from eagle_decoding.drafts import coupled
from eagle_decoding.drafts.causal_lm import CausalLmDraft
from eagle_decoding.drafts.coupled import Coupling, coupling, threshold
from eagle_decoding.drafts.drawn import level_widths
from eagle_decoding.drafts.rules import RuleChooser, fixed_children
from eagle_decoding.sampling import SamplingParams
from eagle_decoding.tree import DraftTree
from eagle_decoding.typical import verify_typically
from eagle_kernels.reference.ancestor_mask import pack
from eagle_kernels.reference.filters import filtered_scores

DRAWN = ("sampled", "hybrid", "auto")
LENGTH = 4


def decoder_for(children: str, nodes: int = 9, depth: int = 3, topk: int = 3, vocab: int = 60) -> SpeculativeDecoder:
    return eagle_decoder(tiny_target(), TreeConfig(nodes, depth, topk, children), draft_vocab=vocab)


@pytest.mark.parametrize("warpers", SETTINGS, ids=lambda w: "-".join(w))
def test_coupled_text_is_plain_samplings_own(warpers):
    decoder, inputs = decoder_for("coupled"), prompts(3)
    for seed in range(3):
        plain = sample(decoder, inputs, seed=seed, speculate=False, **warpers)
        assert torch.equal(sample(decoder, inputs, seed=seed, **warpers), plain)


def test_coupled_accepts_more():
    rounds = {}
    for children in ("likeliest", "coupled"):
        decoder = decoder_for(children)
        sample(decoder, prompts(8), seed=1, top_k=0, eos_token_id=None)
        rounds[children] = decoder.stats.rounds
    assert rounds["coupled"] < 0.95 * rounds["likeliest"]


def request_params(batch: int, **values: float) -> SamplingParams:
    defaults = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | values
    rows = {name: torch.full((batch,), value) for name, value in defaults.items()}
    return SamplingParams(seed=torch.arange(batch), **rows | {"top_k": rows["top_k"].int()})


@pytest.mark.parametrize("d2t", [False, True])
def test_a_perfect_draft_proposes_what_will_be_sampled(d2t, monkeypatch):
    """With the target's own logits and weight 1 the likeliest child is what sample_tokens chooses; greedy rows too."""
    monkeypatch.setattr(coupled, "NOISE_WEIGHT", 1.0)
    logits, positions = 3 * torch.randn(6, 2, 80), torch.arange(6, dtype=torch.int32)
    params = request_params(6, top_k=40, top_p=0.9)
    params.temperature[:2] = 0
    kept = torch.arange(80) if not d2t else torch.arange(80)[::2]
    dropped = torch.ones(80, dtype=torch.bool).index_fill(0, kept, False)
    logits = logits.masked_fill(dropped, -torch.inf)
    coupled_batch = Coupling(params, 80, (kept - torch.arange(len(kept))).int())
    _, tokens = coupled_batch.topk(logits[..., kept], positions, 3)
    both = positions[:, None].expand(-1, 2).contiguous()
    assert torch.equal(tokens[..., 0], eagle_kernels.sample_tokens(logits, both, **vars(params)))


@pytest.mark.parametrize(
    "filters",
    [
        {"top_k": 5},
        {"top_p": 0.8},
        {"min_p": 0.1, "temperature": 1.7},
        {"top_k": 30, "top_p": 0.7, "temperature": 1.7},
    ],
)
def test_draft_filters_are_the_targets(filters):
    logits = 3 * torch.randn(4, 3, 90)
    params = request_params(4, **filters)
    exact = filtered_scores(logits, *(value[:, None] for name, value in vars(params).items() if name != "seed"))
    assert torch.equal(logits >= threshold(logits, params), exact > -torch.inf)


def test_a_greedy_request_drafts_whatever_its_filters_would_keep():
    """It ranks all tokens by the draft's logits; the sampled request next to it drafts the one that top-k leaves."""
    logits, params = torch.randn(2, 1, 20), request_params(2, top_k=1)
    params.temperature[0] = 0
    logprobs, tokens = Coupling(params, 20, None).topk(logits, torch.tensor([5, 5], dtype=torch.int32), 3)
    assert torch.equal(tokens[0], logits[0].topk(3).indices.int())
    assert logprobs.isfinite().sum(-1).tolist() == [[3], [1]]


def test_a_top_k_beyond_the_candidates_keeps_every_token(monkeypatch):
    monkeypatch.setattr(coupled, "CANDIDATES", 8)
    logits, params = torch.randn(1, 2, 30), request_params(1, top_k=12)
    assert (logits >= threshold(logits, params)).all()


def test_one_request_that_samples_or_filters_is_enough():
    """Of a batch: it couples, and its filters hold."""
    params = request_params(3)
    params.temperature[:2], params.top_k[2] = 0, 2
    assert coupling("likeliest", params, 20, None) is None
    assert coupling("coupled", request_params(3, temperature=0.0), 20, None) is None
    coupled_batch = coupling("coupled", params, 20, None)
    logprobs, _ = coupled_batch.topk(torch.randn(3, 1, 20), torch.arange(3, dtype=torch.int32), 3)
    assert logprobs.isfinite().sum(-1).tolist() == [[3], [3], [2]]


@pytest.mark.parametrize("children", DRAWN)
def test_greedy_text_is_the_targets_own(children):
    decoder, inputs = decoder_for(children), prompts(3)
    settings = {"max_new_tokens": 25, "do_sample": False}
    plain = decoder.generate(**inputs, **settings, speculate=False)
    assert torch.equal(decoder.generate(**inputs, **settings), plain)


def joint_law(target, prompt: torch.Tensor, tokens: list[int]) -> dict[tuple[int, ...], float]:
    """Law of LENGTH sampled tokens of a target that emits nothing but `tokens`."""
    laws = {(): 1.0}
    for _ in range(LENGTH):
        contexts = torch.tensor(list(laws)).view(len(laws), -1).long()
        with torch.no_grad():
            logits = target(torch.cat([prompt.expand(len(laws), -1), contexts], 1)).logits[:, -1, tokens]
        shares = logits.double().softmax(-1).tolist()
        laws = {
            (*text, token): mass * share
            for (text, mass), of_text in zip(laws.items(), shares, strict=True)
            for token, share in zip(tokens, of_text, strict=True)
        }
    return laws


@pytest.mark.parametrize("children", DRAWN)
def test_texts_have_the_targets_law(children):
    """Chi-square of every position and of whole texts over several rounds; `auto` goes through all its rules in them.

    Target and draft know the same four tokens, so that a biased rule would show.
    """
    decoder, inputs, draws = decoder_for(children, vocab=4), prompts(1), 1200
    tokens = (torch.arange(4) + decoder.draft.d2t).tolist()
    others = torch.ones(VOCAB, dtype=torch.bool).index_fill(0, torch.tensor(tokens), False)
    head = decoder.target.get_output_embeddings()
    head.register_forward_hook(lambda module, arguments, logits: logits.masked_fill(others, -torch.inf))
    law = joint_law(decoder.target, inputs["input_ids"], tokens)
    batch = {name: t.expand(draws, -1) for name, t in inputs.items()}
    settings = {"do_sample": True, "top_k": 0, "max_new_tokens": LENGTH, "seed": 77, "eos_token_id": None}
    texts = decoder.generate(**batch, **settings)[:, -LENGTH:].tolist()
    assert decoder.stats.accepted > 0
    for positions in [[i] for i in range(LENGTH)] + [list(range(LENGTH))]:
        expected = Counter()
        for text, mass in law.items():
            expected[tuple(text[i] for i in positions)] += mass * draws
        counted = Counter(tuple(text[i] for i in positions) for text in texts)
        counts = torch.tensor([counted[part] for part in expected]).double()
        assert counts.sum() == draws
        assert chi_square(counts, torch.tensor(list(expected.values()))) < 1, f"positions {positions}"


def test_a_request_has_its_own_parameters():
    """Greedy and sampled requests in one batch give what each gives alone."""
    inputs = prompts(4)
    settings = {"max_new_tokens": 20, "eos_token_id": None}
    several = {"temperature": [0.0, 1.0, 0.7, 0.0], "top_k": [0, 0, 9, 3], "top_p": [1.0, 0.8, 1.0, 1.0]}
    for children in ("likeliest", "coupled"):
        decoder = decoder_for(children)
        together = decoder.generate(**inputs, seed=[3, 4, 5, 6], **several, **settings)
        for b in range(4):
            row = {name: t[b : b + 1] for name, t in inputs.items()}
            own = {name: values[b] for name, values in several.items()} | {"do_sample": True}
            if own["temperature"] == 0:
                own = {"do_sample": False}
            assert torch.equal(decoder.generate(**row, seed=3 + b, **own, **settings)[0], together[b])


def test_parameters_of_a_request_hold_for_all_its_sequences():
    decoder, inputs = decoder_for("coupled"), prompts(3)
    settings = {**inputs, "max_new_tokens": 12, "eos_token_id": None, "num_return_sequences": 2, "seed": 3}
    short = decoder.generate(**settings, temperature=[0.0, 1.0, 0.7], top_k=[0, 9, 0])
    full = decoder.generate(**settings, temperature=[0.0, 0.0, 1.0, 1.0, 0.7, 0.7], top_k=[0, 0, 9, 9, 0, 0])
    assert len(short) == 6 and torch.equal(short, full)
    assert torch.equal(short[0], short[1]) and not torch.equal(short[2], short[3])


@pytest.mark.parametrize("children", DRAWN)
def test_greedy_requests_among_drawn_trees(children):
    decoder, inputs = decoder_for(children), prompts(3)
    settings = {"max_new_tokens": 20, "eos_token_id": None}
    together = decoder.generate(**inputs, seed=1, temperature=torch.tensor([0.0, 1.0, 0.0]), **settings)
    greedy = decoder.generate(**inputs, do_sample=False, speculate=False, **settings)
    assert torch.equal(together[0], greedy[0]) and torch.equal(together[2], greedy[2])


def test_per_request_parameters_are_refused_in_one_sentence():
    decoder, inputs = decoder_for("coupled"), prompts(2)
    with pytest.raises(ValueError, match="one per request: got 3 for a batch of 2"):
        decoder.generate(**inputs, temperature=[1.0, 1.0, 1.0], max_new_tokens=2)
    with pytest.raises(ValueError, match="do_sample=False decodes every request greedily: leave out temperature"):
        decoder.generate(**inputs, temperature=[1.0, 1.0], do_sample=False, max_new_tokens=2)
    with pytest.raises(ValueError, match="top_p differ by request"):
        decoder.generate(**inputs, top_p=[1.0, 0.9], typical_p=0.9, max_new_tokens=2)


def test_children_are_named():
    with pytest.raises(ValueError, match="children must be one of likeliest, coupled"):
        TreeConfig(children="typical")


@pytest.mark.parametrize("name", ["num_nodes", "max_depth", "topk"])
@pytest.mark.parametrize("value", [4.0, "4", None])
def test_a_tree_has_integers_for_sizes(name, value):
    with pytest.raises(ValueError, match=f"num_nodes, max_depth and topk must be integers, got .*{value!r}"):
        TreeConfig(**{name: value})


@pytest.mark.parametrize("nodes, depth, topk", [(2, 1, 1), (8, 4, 4), (60, 10, 3), (5, 4, 1), (21, 2, 4), (64, 6, 8)])
def test_levels_hold_the_nodes(nodes, depth, topk):
    widths = level_widths(TreeConfig(nodes, depth, topk))
    assert sum(widths) == nodes - 1 and len(widths) == depth
    above = 1
    for width in widths:
        assert width <= min(above, topk) * topk
        above = width


def test_levels_hold_the_cheapest_places():
    """A step down costs 2 and one aside 3: of 2, 5, 8, ..; 4, 7, 7, ..; 6, 9, ..; 8, .. the six up to 7."""
    assert level_widths(TreeConfig(7, 4, 4)) == [2, 3, 1, 0]


def test_rules_fix_children():
    counts = torch.tensor([[3, 0, 1]] * 3, dtype=torch.int32)
    assert fixed_children(torch.arange(3), counts).tolist() == [[0, 0, 0], [2, 0, 0], [3, 0, 1]]


def test_auto_settles_on_the_rule_that_accepts_most():
    """Request b does best with rule b; half of the rounds at least go there, and the other rules are tried."""
    chooser = RuleChooser(3, torch.device("cpu"))
    chooser.observe(torch.tensor([9, 9, 9]))  # the prompt
    chosen = torch.zeros(3, 3)
    for _ in range(60):
        rule = chooser.choose()
        chosen += torch.nn.functional.one_hot(rule, 3)
        chooser.observe((rule == torch.arange(3)).int() * 2)
    assert (chosen.diagonal() > 30).all() and (chosen > 0).all()


def test_a_rule_that_was_rarely_tried_is_favoured_within_reason():
    """Tried 8, 1 and 1 times: sqrt(2 log 10 / rounds) / 2 adds 0.379 to a mean of 1, and 1.073 to one of 0.6 or 0.2."""
    chooser = RuleChooser(2, torch.device("cpu"))
    chooser.rounds[:] = torch.tensor([8.0, 1, 1])
    chooser.accepted[:] = torch.tensor([[8, 0.6, 0], [8, 0.2, 0]])
    assert chooser.choose().tolist() == [1, 0]


@pytest.mark.parametrize("children", ["likeliest", "sampled"])
def test_typical_acceptance_is_lossy_and_accepts_more(children):
    inputs = prompts(6)
    rounds = {}
    for rule in (None, TypicalAcceptance(), TypicalAcceptance(1e-9, 1e-9)):
        decoder = decoder_for(children)
        sample(decoder, inputs, seed=1, top_k=0, eos_token_id=None, typical_acceptance=rule)
        rounds[rule] = decoder.stats.rounds
    exact, typical, everything = rounds.values()
    assert everything < typical < exact


@pytest.mark.parametrize("rule", [TypicalAcceptance(0.02, 0.3), TypicalAcceptance(0.9, 0.3)], ids=["capped", "entropy"])
def test_typical_acceptance_is_its_rule_node_by_node(rule):
    """A token's probability after its parent against the parent's entropy; the first of the deepest kept paths."""
    batch, nodes, vocab = 40, 16, 6
    parents = [random_parents(nodes) for _ in range(batch)]
    parent = torch.tensor(parents, dtype=torch.int32)
    ancestors = torch.stack([ancestor_bits(up) for up in parents])
    depth = ancestors.sum(2, dtype=torch.int32) - 1
    tokens = torch.randint(vocab, (batch, nodes), dtype=torch.int32)
    logits = torch.randn(batch, nodes, vocab) * torch.rand(batch, nodes, 1) * 4  # sure after some nodes only
    tree = DraftTree(tokens, parent, depth, depth, pack(ancestors), None, max_depth=nodes - 1)
    accept_index, accept_length, _ = verify_typically(rule, logits, tree, vars(request_params(batch)))
    laws = logits.double().softmax(-1)
    for b, up in enumerate(parents):
        paths = {0: [0]}
        for node in range(1, nodes):
            law = laws[b, up[node]]
            bar = min(rule.threshold, rule.alpha * float((law * law.log()).sum().exp()))
            if up[node] in paths and law[tokens[b, node]] > bar:
                paths[node] = [*paths[up[node]], node]
        path = max(paths.values(), key=len)
        assert accept_index[b, : len(path)].tolist() == path
        assert int(accept_length[b]) == len(path) - 1


def test_typical_acceptance_of_greedy_requests_is_exact():
    decoder, inputs = decoder_for("likeliest"), prompts(2)
    settings = {"do_sample": False, "max_new_tokens": 20}
    typical = decoder.generate(**inputs, **settings, typical_acceptance=TypicalAcceptance())
    assert torch.equal(typical, decoder.generate(**inputs, **settings, speculate=False))
    with pytest.raises(ValueError, match="threshold and alpha in"):
        TypicalAcceptance(threshold=0)


def test_more_children_than_can_be_looked_at_are_refused():
    """By a head with 40 tokens, by a head and by a small model with 97, before anything is decoded."""
    target, wide = tiny_target(), TreeConfig(num_nodes=60, max_depth=2, topk=80)
    with pytest.raises(ValueError, match=r"topk must be at most 40 .* from 40 tokens, got 41"):
        eagle_decoder(target, TreeConfig(8, 2, 41), draft_vocab=40)
    with pytest.raises(ValueError, match=r"topk must be at most 64 .* from 97 tokens, got 80"):
        eagle_decoder(target, wide)
    with pytest.raises(ValueError, match=r"topk must be at most 64 .* from 97 tokens, got 80"):
        CausalLmDraft(tiny_target(), VOCAB, wide)

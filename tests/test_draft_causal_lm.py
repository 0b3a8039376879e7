"""A small causal language model as draft: chains, trees, sampled children, its cache, and how it is recognised."""

import copy

import pytest
import torch
from models import VOCAB, prompts, tiny_target
from test_decode_sampling import chi_square
from trees import ancestor_bits

from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.drafts.causal_lm import CausalLmDraft, is_causal_lm
from eagle_decoding.drafts.growth import GrowingDraft
from eagle_decoding.sampling import fused_params
from eagle_kernels.reference.ancestor_mask import pack

GREEDY = {"do_sample": False, "max_new_tokens": 40, "eos_token_id": None}


def twin(target, tree: TreeConfig) -> CausalLmDraft:
    """The target itself as draft: everything it drafts greedily is right."""
    return CausalLmDraft(copy.deepcopy(target), VOCAB, tree)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("tree", [TreeConfig(6, 5, 1), TreeConfig(22, 4, 3)], ids=["chain", "tree"])
def test_a_twin_is_accepted_to_the_full_depth(tree, batch):
    """Which it is only when the draft's cache holds exactly the committed tokens, for ragged prompts too.

    A tree ranks by the probability of whole paths and may end the greedy one early.
    """
    target = tiny_target()
    inputs = prompts(batch)
    decoder = SpeculativeDecoder(target, twin(target, tree))
    assert torch.equal(decoder.generate(**inputs, **GREEDY), target.generate(**inputs, **GREEDY))
    tokens_per_round = decoder.stats.tokens_per_round
    assert tokens_per_round == pytest.approx(1 + tree.max_depth) if tree.topk == 1 else tokens_per_round > 4


def test_a_sampled_twin_is_always_accepted():
    """Rejection accepts a draft with probability min(1, target / draft): the same law is never rejected."""
    target = tiny_target()
    decoder = SpeculativeDecoder(target, twin(target, TreeConfig(6, 5, 1, children="sampled")))
    decoder.generate(**prompts(3), do_sample=True, max_new_tokens=37, seed=3, eos_token_id=None)
    assert decoder.stats.tokens_per_round == pytest.approx(6)


@pytest.mark.parametrize("tree", [TreeConfig(4, 3, 1, children="sampled"), TreeConfig(10, 3, 3, children="sampled")])
def test_sampled_drafts_keep_the_law(tree):
    """Chi-square of the second new token: the first comes with the prompt, the second out of a draft tree."""
    torch.manual_seed(1)
    target = tiny_target()
    draft = twin(target, tree)
    for weight in draft.model.model.parameters():
        weight.data += 0.02 * torch.randn_like(weight)
    inputs, draws = prompts(1), 1500
    with torch.no_grad():
        first = target(**inputs).logits[0, -1].argmax()
        prompt = torch.cat([inputs["input_ids"], first[None, None]], dim=1)
        law = target(prompt).logits[0, -1].double().softmax(-1)
    decoder = SpeculativeDecoder(target, draft)
    batch = {"input_ids": inputs["input_ids"].expand(draws, -1)}
    tokens = decoder.generate(**batch, do_sample=True, top_k=0, max_new_tokens=2, seed=11)[:, -2:]
    second = tokens[tokens[:, 0] == first, 1]
    assert len(second) > 100 and decoder.stats.accepted > 0
    assert chi_square(torch.bincount(second, minlength=VOCAB).double(), law * len(second)) < 1


class Table(GrowingDraft):
    """Logits that depend on the token alone, so that they show which row a child came from."""

    def __init__(self, tree: TreeConfig, roots: torch.Tensor):
        self.tree, self.dtype, self.device = tree, torch.float32, roots.device
        self.vocab_size = self.draft_vocab_size = VOCAB
        self.table = 2 * torch.randn(VOCAB, VOCAB)
        self.root_state = self.table[roots.long()][:, None]

    def logits(self, state):
        return state

    def run(self, rows, fed_back):
        return self.table[rows.tokens.long()]


@pytest.mark.parametrize("shape", [(5, 4, 1), (13, 4, 3), (81, 8, 10)])
@pytest.mark.parametrize("children", ["sampled", "hybrid"])
def test_drawn_trees_carry_the_laws_they_came_from(shape, children):
    roots, context_len = torch.tensor([4, 5, 6], dtype=torch.int32), torch.tensor([9, 2, 30], dtype=torch.int32)
    draft = Table(TreeConfig(*shape, children=children), roots)
    draft.make_room(3, fused_params([], True, [0, 1, 2], roots.device))
    drawn = draft.propose(roots, context_len)
    parents = drawn.parent.tolist()
    assert torch.equal(drawn.ancestor_mask, pack(torch.stack([ancestor_bits(row) for row in parents])))
    for b, row in enumerate(parents):
        for node, parent in enumerate(row[1:], start=1):
            if parent >= 0:
                law = draft.table[drawn.draft_tokens[b, parent]]
                assert torch.equal(drawn.proposal.draft_logits[b, parent], law)
                assert drawn.depth[b, node] == drawn.depth[b, parent] + 1
    expanded = drawn.proposal.draft_logits.any(-1)
    for scores, depth, known in zip(drawn.node_scores, drawn.depth, expanded, strict=True):
        for level in range(1, int(depth[known].max()) + 1):
            best, others = scores[known & (depth == level)], scores[~known & (depth == level)]
            assert len(best) <= shape[2] and not (others[:, None] > best).any(), "the best of a level go on"


def constant(law: list[float], tree: TreeConfig) -> Table:
    """A draft of a sampled and a greedy request whose law is the same after every token."""
    draft = Table(tree, torch.tensor([4, 5]))
    draft.table = torch.full((VOCAB, VOCAB), -torch.inf)
    draft.table[:, : len(law)] = torch.tensor(law).log()
    draft.root_state = draft.table[:2, None]
    params = fused_params([], True, [0, 1], draft.device)
    params.temperature[1] = 0
    draft.make_room(2, params)
    return draft


ROOTS, CONTEXT = torch.tensor([4, 5], dtype=torch.int32), torch.tensor([9, 2], dtype=torch.int32)


@pytest.mark.parametrize(
    "children, worth",
    [("sampled", [0.64, 0.31, 0.1, 0.4096, 0.1984, 0.1984]), ("hybrid", [0.6, 0.3, 0.1, 0.36, 0.186, 0.192])],
)
def test_places_go_where_they_are_worth_most(children, worth):
    """Of a law 0.6, 0.3, 0.1 places are worth 0.9 of that and 0.1 of what is left: 0.64, 0.31 and 0.1.

    A child that is chosen without noise has its own probability, and so has all that greedy requests draft.
    """
    drawn = constant([0.6, 0.3, 0.1], TreeConfig(7, 2, 3, children=children)).propose(ROOTS, CONTEXT)
    assert drawn.parent.tolist() == [[-1, 0, 0, 0, 1, 1, 2]] * 2
    torch.testing.assert_close(drawn.node_scores[:, 1:].exp(), torch.tensor([worth, [0.6, 0.3, 0.1, 0.36, 0.18, 0.18]]))
    assert (drawn.proposal.num_fixed is None) == (children == "sampled"), "what says that the tree may be traversed"


@pytest.mark.parametrize("children", ["sampled", "hybrid"])
def test_a_place_that_stays_empty_gets_no_children(children):
    drawn = constant([0.7, 0.3], TreeConfig(7, 2, 3, children=children)).propose(ROOTS, CONTEXT)
    assert drawn.parent.tolist() == [[-1, 0, 0, -1, 1, 1, 2]] * 2


def test_auto_begins_anew_with_every_call():
    """What the last call's rounds accepted decides nothing: the same calls choose the same rules."""
    draft = Table(TreeConfig(7, 2, 3, children="auto"), ROOTS)
    params, chosen = fused_params([], True, [0, 1], ROOTS.device), []
    for _ in range(2):
        draft.start(ROOTS[:, None], torch.ones_like(ROOTS), params)
        for accepted in [[7, 7], [2, 0], [3, 1], [0, 0], [0, 1], [9, 0]]:
            draft.observe(torch.tensor(accepted))
            draft.propose(ROOTS, CONTEXT)
            chosen.append(draft.rule.tolist())
    assert chosen[:6] == chosen[6:] == [[0, 0], [1, 1], [2, 2], [1, 1], [0, 1], [0, 1]]


def test_a_directory_is_recognised(tmp_path):
    target = tiny_target()
    target.save_pretrained(tmp_path / "model")
    decoder = SpeculativeDecoder.from_pretrained(target, tmp_path / "model")
    assert isinstance(decoder.draft, CausalLmDraft)
    decoder.generate(**prompts(1), **GREEDY)
    assert decoder.stats.tokens_per_round > 5
    assert not is_causal_lm(tmp_path)


def test_another_vocabulary_is_refused(tmp_path):
    target = tiny_target()
    target.save_pretrained(tmp_path)
    target.config.vocab_size = 5000
    with pytest.raises(ValueError, match="has 97 tokens and the target's 5000"):
        SpeculativeDecoder.from_pretrained(target, tmp_path)


def test_an_unsupported_draft_model_is_named():
    model = tiny_target()
    model.config.model_type = "gpt2"
    with pytest.raises(ValueError, match="Draft model type 'gpt2' is not supported"):
        CausalLmDraft(model, VOCAB, TreeConfig())

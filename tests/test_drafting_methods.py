"""What holds for every drafting method: greedy text is generate's, sampled text that of plain decoding."""

import pytest
import torch
from models import KINDS, eagle_decoder, prompts, random_head, tiny_target
from transformers import PreTrainedModel

from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.checkpoint import CheckpointError, write_head
from eagle_decoding.drafts import Draft, load_draft
from eagle_decoding.drafts.auto import AutoDraft
from eagle_decoding.drafts.causal_lm import CausalLmDraft
from eagle_decoding.drafts.hybrid import HybridDraft
from eagle_decoding.drafts.load import NAMED

GREEDY = {"do_sample": False, "max_new_tokens": 20}
SMALL = TreeConfig(num_nodes=12, max_depth=3, topk=3)


def small_model(target: PreTrainedModel, tree: TreeConfig) -> CausalLmDraft:
    """The target's own weights, disturbed: right now and then."""
    model = type(target)(target.config).to(target.dtype).eval()
    noise = {name: t + 0.05 * torch.randn_like(t) for name, t in target.state_dict().items()}
    model.load_state_dict(noise)
    return CausalLmDraft(model, target.config.vocab_size, tree)


def drafts(target: PreTrainedModel) -> dict[str, Draft]:
    eagle = eagle_decoder(target, SMALL).draft
    return {
        **{name: load_draft(name, target) for name in NAMED},
        "small model, chain": small_model(target, TreeConfig(6, 5, 1)),
        "small model, tree": small_model(target, SMALL),
        "small model, coupled": small_model(target, TreeConfig(12, 3, 3, children="coupled")),
        "hybrid": HybridDraft(eagle, load_draft("suffix", target), 10),
        "auto": AutoDraft(
            HybridDraft(eagle_decoder(target, SMALL).draft, load_draft("suffix", target), 12), 12, target
        ),
        "auto:suffix": load_draft("auto:suffix", target),
    }


@pytest.mark.parametrize("batch", [1, 3])
def test_greedy_text_is_that_of_generate(batch):
    target = tiny_target()
    inputs = prompts(batch)
    expected = target.generate(**inputs, **GREEDY)
    for name, draft in drafts(target).items():
        assert torch.equal(SpeculativeDecoder(target, draft).generate(**inputs, **GREEDY), expected), name


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "llama"])
def test_greedy_text_of_every_kind_of_target(kind):
    target = tiny_target(kind)
    inputs = prompts(3)
    expected = target.generate(**inputs, **GREEDY)
    for name in ("lookahead", "small model, tree", "hybrid"):
        decoder = SpeculativeDecoder(target, drafts(target)[name])
        assert torch.equal(decoder.generate(**inputs, **GREEDY), expected), name


@pytest.mark.parametrize("warpers", [{"temperature": 1.0}, {"temperature": 0.8, "repetition_penalty": 1.3}])
@pytest.mark.parametrize("batch", [1, 3])
def test_same_seed_same_text(warpers, batch):
    target = tiny_target()
    inputs = prompts(batch)
    for name, draft in drafts(target).items():
        decoder = SpeculativeDecoder(target, draft)
        settings = {**inputs, **warpers, "do_sample": True, "max_new_tokens": 16, "seed": 5}
        assert torch.equal(decoder.generate(**settings), decoder.generate(**settings, speculate=False)), name


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"num_layers": 2}, "has 2 decoder layers, and drafting here runs one"), ({"hidden_act": "gelu"}, "is 'gelu'")],
)
def test_heads_that_would_run_as_another_are_refused(tmp_path, options, sentence):
    target = tiny_target()
    for folder, head in (("fits", random_head(target)), ("not", random_head(target, **options))):
        write_head(tmp_path / folder, head.config, head.tensors)
    load_draft(tmp_path / "fits", target)
    with pytest.raises(CheckpointError, match=sentence):
        load_draft(tmp_path / "not", target)

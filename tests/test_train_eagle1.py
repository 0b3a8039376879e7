"""EAGLE-1 and HASS training: equal to drafting token by token, the published losses, repeatable noise."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from eagle1_head import plain_states, random_eagle1
from models import tiny_target

from eagle_decoding.checkpoint import Eagle1Config
from eagle_decoding.train.config import KINDS, ConfigError, LossOptions, load_config
from eagle_decoding.train.eagle1_head import Eagle1Head
from eagle_decoding.train.initialise import warm_eagle1
from eagle_decoding.train.losses import blended
from eagle_decoding.train.rows import Documents, supervised_rows
from eagle_decoding.train.unroll import feature_noise, unroll

STEPS = 4
HIDDEN, VOCAB = 12, 31


def make_head(draft_vocab_size=VOCAB, **options):
    torch.manual_seed(1)
    config = Eagle1Config(
        hidden_size=HIDDEN,
        intermediate_size=20,
        num_heads=4,
        num_kv_heads=2,
        head_dim=6,
        vocab_size=VOCAB,
        draft_vocab_size=draft_vocab_size,
        **options,
    )
    kept = torch.randperm(VOCAB)[:draft_vocab_size].sort().values
    head = Eagle1Head(config, torch.randn(VOCAB, HIDDEN), torch.randn(VOCAB, HIDDEN), kept)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    return head


def make_documents(lengths, supervised_from):
    ids = torch.randint(0, VOCAB, (sum(lengths),))
    supervised = torch.cat([torch.arange(n) >= s for n, s in zip(lengths, supervised_from, strict=True)])
    documents = Documents(ids, supervised, torch.tensor([0, *lengths]).cumsum(0))
    return documents, torch.full((len(ids), 3, HIDDEN), torch.nan), torch.randn(len(ids), HIDDEN)


def serve(head, ids, final, source, steps):
    """[H], the state after `steps` drafts behind position `source`."""
    tokens = ids[1 : source + steps + 1].tolist()
    return plain_states(head.config, head.state_dict(), head.embed_tokens, tokens, final[: source + 1])[-1]


@pytest.mark.parametrize("options", [{}, {"fc_bias": True, "attention_bias": True}, {"draft_vocab_size": 23}])
@torch.no_grad()
def test_training_steps_equal_drafting_token_by_token(options):
    head = make_head(**options)
    documents, aux, final = make_documents([9, 14, 3, 11], [4, 1, 0, 11])
    weights = LossOptions(token=0.1, feature=2.0)
    compared = 0
    for output in unroll(head, documents, aux, final, STEPS, weights=weights):
        for i, row in enumerate(output.rows.tolist()):
            document = int(torch.searchsorted(documents.starts, row, right=True)) - 1
            span = slice(int(documents.starts[document]), int(documents.starts[document + 1]))
            state = serve(head, documents.input_ids[span], final[span], row - span.start, output.step + 1)
            logprobs, expected = (head.lm_head @ state).log_softmax(-1), final[row + 1 + output.step]
            token = int(head.draft_ids[documents.input_ids[row + 2 + output.step]])
            assert output.token[i] == token
            loss = -((head.lm_head @ expected).softmax(-1) * logprobs).sum()
            torch.testing.assert_close(output.scores.loss[i], loss, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(output.extra[i], 2 * F.smooth_l1_loss(state, expected), rtol=1e-5, atol=1e-5)
            if token >= 0:
                torch.testing.assert_close(output.scores.logprob[i], logprobs[token], rtol=1e-5, atol=1e-5)
            compared += 1
    assert compared == int(supervised_rows(documents, STEPS).sum()) > 40


def test_the_loss_of_a_step_is_the_weighted_mean_over_supervised_rows():
    head = make_head(draft_vocab_size=23)
    documents, aux, final = make_documents([12, 9], [3, 2])
    weights = LossOptions(token=0.1, feature=1.0, topk=0.7)
    for output in unroll(head, documents, aux, final, 3, weights=weights):
        state, expected = [], final[output.rows + 1 + output.step]
        for row in output.rows.tolist():
            document = int(torch.searchsorted(documents.starts, row, right=True)) - 1
            span = slice(int(documents.starts[document]), int(documents.starts[document + 1]))
            state.append(serve(head, documents.input_ids[span], final[span], row - span.start, output.step + 1))
        logprobs = (torch.stack(state) @ head.lm_head.T).log_softmax(-1)
        teacher = (expected @ head.lm_head.T).softmax(-1)
        likely = torch.zeros_like(teacher).scatter(1, teacher.topk(10).indices, 1.0)
        token = 0.1 * -(teacher * logprobs).sum(-1) + 0.7 * -(teacher * likely * logprobs).sum(-1)
        feature = F.smooth_l1_loss(torch.stack(state), expected, reduction="none").mean(-1)
        known = output.token >= 0
        assert 0 < known.sum() < len(known)
        torch.testing.assert_close(output.loss(), token[known].sum() + feature.sum())


def test_detached_steps_pass_no_gradient_back():
    """The value of the second step's loss stays, its gradient through the first step's output goes."""
    documents, aux, final = make_documents([12], [0])
    gradients = []
    for detach in (False, True):
        head = make_head()
        outputs = list(unroll(head, documents, aux, final, 2, detach=detach))
        outputs[1].loss().backward()
        gradients.append(head.layer.mlp.down_proj.weight.grad.clone())
        reference = outputs[1].loss().detach()
    assert not torch.allclose(gradients[0], gradients[1])
    again = [o.loss().detach() for o in unroll(make_head(), documents, aux, final, 2)]
    torch.testing.assert_close(again[1], reference)


def test_blended_teacher_without_topk_is_the_teacher():
    teacher = torch.rand(3, 20).softmax(-1)
    same, weight = blended(teacher, LossOptions(token=0.3))
    assert same is teacher and weight == 0.3
    blend, mass = blended(teacher, LossOptions(token=0.0, topk=1.0))
    assert ((blend > 0).sum(-1) == 10).all()
    torch.testing.assert_close(mass, teacher.topk(10).values.sum(-1))


def test_noise_is_uniform_per_document_and_repeats():
    documents, _, final = make_documents([16, 64], [0, 0])
    noise = feature_noise(final, documents, 0.2, torch.Generator().manual_seed(3))
    assert torch.equal(noise, feature_noise(final, documents, 0.2, torch.Generator().manual_seed(3)))
    for span, length in ((slice(0, 16), 16), (slice(16, 80), 64)):
        bound = 0.1 * 512 / length
        assert 0.8 * bound < noise[span].abs().max() <= bound


def test_noise_reaches_the_first_step_only_when_a_generator_is_given():
    head = make_head()
    documents, aux, final = make_documents([20], [0])
    weights = LossOptions(noise=0.2)
    plain = next(unroll(head, documents, aux, final, 1)).scores.logprob
    still = next(unroll(head, documents, aux, final, 1, weights=weights)).scores.logprob
    noisy = next(unroll(head, documents, aux, final, 1, weights=weights, generator=torch.Generator())).scores.logprob
    assert torch.equal(plain, still) and not torch.allclose(plain, noisy)


def test_the_start_is_the_best_linear_guess():
    """Where the next state is a linear function of embedding and state, the untrained head nearly knows it."""
    target = tiny_target()
    embed, lm_head = (m.weight.detach() for m in (target.get_input_embeddings(), target.get_output_embeddings()))
    config = random_eagle1(target).config
    head = Eagle1Head(replace(config, intermediate_size=48), embed, lm_head, torch.arange(len(embed)))
    law, lengths = torch.randn(32, 64) * 0.15, [90, 70, 80]
    ids, final = torch.randint(0, len(embed), (sum(lengths),)), torch.randn(sum(lengths), 32)
    documents = Documents(ids, torch.ones(len(ids), dtype=torch.bool), torch.tensor([0, *lengths]).cumsum(0))
    for start, end in zip(documents.starts[:-1].tolist(), documents.starts[1:].tolist(), strict=True):
        for t in range(start, end - 1):
            final[t + 1] = law @ torch.cat((embed[ids[t + 1]], final[t]))
    warm_eagle1(head, target, documents, final[:, None], final)
    output = next(unroll(head, documents, final[:, None], final, 1, weights=LossOptions(feature=1.0)))
    expected = final[output.rows + 1]
    assert output.extra.mean() < 0.1 * F.smooth_l1_loss(torch.zeros_like(expected), expected)
    torch.testing.assert_close(
        head.layer.self_attn.k_proj.weight * target.model.norm.weight,
        target.model.layers[-1].self_attn.k_proj.weight * target.model.layers[-1].input_layernorm.weight,
    )


def test_the_kind_brings_its_recipe_and_what_is_given_wins():
    hass = load_config(None, ["head.kind=hass", "loss.topk=0"])
    assert hass.unroll.steps == 3 and hass.unroll.detach and hass.loss.feature == 1.0 and hass.loss.topk == 0.0
    assert load_config(None, ["head.kind=eagle1", "unroll.steps=5"]).unroll.steps == 5
    assert load_config(None).loss == LossOptions() and set(KINDS) >= {"eagle1", "eagle3", "hass"}
    with pytest.raises(ConfigError, match=r"'head\.kind' is 'eagle9'; known: eagle3"):
        load_config(None, ["head.kind=eagle9"])
    with pytest.raises(ConfigError, match=r"head\.features"):
        load_config(None, ["head.features=half"])

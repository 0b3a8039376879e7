"""Training-time test against the serving recurrence, the supervision law, and row compaction."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from eagle_decoding.checkpoint import HeadConfig
from eagle_decoding.train.attention import pack_attention, unrolled_attention
from eagle_decoding.train.eagle3_head import Eagle3Head
from eagle_decoding.train.flash_attention import Span
from eagle_decoding.train.rows import Documents, needed_rows, supervised_rows
from eagle_decoding.train.unroll import unroll

STEPS = 4


def make_head(fc_norm=False, norm_output=False, draft_vocab_size=23, attention_bias=False):
    torch.manual_seed(1)
    config = HeadConfig(
        hidden_size=12,
        target_hidden_size=12,
        intermediate_size=20,
        num_heads=4,
        num_kv_heads=2,
        head_dim=6,
        vocab_size=31,
        draft_vocab_size=draft_vocab_size,
        fc_norm=fc_norm,
        norm_output=norm_output,
        attention_bias=attention_bias,
    )
    kept = torch.randperm(31)[:draft_vocab_size].sort().values
    head = Eagle3Head(config, torch.randn(31, 12), torch.randn(31, 12), kept)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return head


def make_documents(lengths, supervised_from):
    total = sum(lengths)
    ids = torch.randint(0, 31, (total,))
    supervised = torch.cat([torch.arange(n) >= s for n, s in zip(lengths, supervised_from, strict=True)])
    starts = torch.tensor([0, *lengths]).cumsum(0)
    return Documents(ids, supervised, starts), torch.randn(total, 3, 12), torch.randn(total, 12)


def serve(head, ids, aux, source, steps):
    """Log-probabilities over the draft vocabulary at steps 0.. when the head drafts after `source`, one token at a
    time.

    The head first reads the target's features up to source, then its own output; keys are cached in order.
    """
    config, layer = head.config, head.layers[0]
    features = head.begin(aux, aux[:, -1])
    keys, values, logprobs = [], [], []
    hidden = None
    for position in range(source + steps):
        hidden = features[position] if position <= source else hidden
        joined, _ = head.enter(head.embed_tokens[ids[position + 1]], hidden)
        angle = position * head.inv_freq
        cos, sin = torch.cat((angle.cos(),) * 2), torch.cat((angle.sin(),) * 2)

        def turn(x, heads, cos=cos, sin=sin):
            x = x.view(heads, config.head_dim)
            first, second = x.chunk(2, -1)
            return x * cos + torch.cat((-second, first), -1) * sin

        query = turn(layer.self_attn.q_proj(joined), config.num_heads)
        keys.append(turn(layer.self_attn.k_proj(joined), config.num_kv_heads))
        values.append(layer.self_attn.v_proj(joined).view(config.num_kv_heads, config.head_dim))
        group = config.num_heads // config.num_kv_heads
        key = torch.stack(keys, 1).repeat_interleave(group, 0)
        value = torch.stack(values, 1).repeat_interleave(group, 0)
        weights = (torch.einsum("hd,hkd->hk", query, key) / config.head_dim**0.5).softmax(-1)
        hidden = hidden + layer.self_attn.o_proj(torch.einsum("hk,hkd->hd", weights, value).flatten())
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        normed = head.norm(hidden)
        if position >= source:
            logprobs.append((head.lm_head @ normed).log_softmax(-1))
        hidden = normed if config.norm_output else hidden
    return logprobs


@pytest.mark.parametrize("fc_norm, norm_output", [(False, False), (True, False), (False, True), (True, True)])
@torch.no_grad()
def test_training_steps_equal_drafting_token_by_token(fc_norm, norm_output):
    head = make_head(fc_norm, norm_output, attention_bias=fc_norm)
    lengths, supervised_from = [9, 14, 3, 11], [4, 1, 0, 11]
    documents, aux, final = make_documents(lengths, supervised_from)
    compared = 0
    for output in unroll(head, documents, aux, final, STEPS):
        for row, loss, logprob, hit, token in zip(
            output.rows.tolist(),
            output.scores.loss,
            output.scores.logprob,
            output.scores.hit,
            output.token.tolist(),
            strict=True,
        ):
            document = int(torch.searchsorted(documents.starts, row, right=True)) - 1
            span = slice(int(documents.starts[document]), int(documents.starts[document + 1]))
            source = row - span.start
            served = serve(head, documents.input_ids[span], aux[span], source, output.step + 1)[output.step]
            teacher = (head.lm_head @ final[row + 1 + output.step]).softmax(-1)
            torch.testing.assert_close(loss, -(teacher * served).sum(), rtol=1e-5, atol=1e-5)
            predicted = int(documents.input_ids[row + 2 + output.step])
            assert token == int(head.draft_ids[predicted])
            if token >= 0:
                torch.testing.assert_close(logprob, served[token], rtol=1e-5, atol=1e-5)
                assert bool(hit) == (int(served.argmax()) == token)
            else:
                assert logprob == -torch.inf and not hit
            compared += 1
    assert compared == int(supervised_rows(documents, STEPS).sum()) > 40


@given(
    st.lists(st.tuples(st.integers(1, 9), st.lists(st.booleans(), min_size=9, max_size=9)), min_size=1, max_size=4),
    st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_the_supervision_law(rows, steps):
    lengths = [n for n, _ in rows]
    supervised = torch.tensor([flag for n, flags in rows for flag in flags[:n]])
    documents = Documents(
        torch.zeros_like(supervised, dtype=torch.int64), supervised, torch.tensor([0, *lengths]).cumsum(0)
    )
    law = supervised_rows(documents, steps)
    needed = needed_rows(law)
    for begin, length in zip(documents.starts.tolist(), lengths, strict=False):
        for t in range(length):
            wanted = [t + 2 + j < length and bool(supervised[begin + t + 2 + j]) for j in range(steps)]
            assert law[:, begin + t].tolist() == wanted
            assert needed[:, begin + t].tolist() == [any(wanted[j:]) for j in range(steps)]


def test_compaction_changes_neither_loss_nor_gradient():
    """Rows that nothing supervises are computed in one run (by supervising every token) and left out of the other."""
    head = make_head(fc_norm=True, norm_output=True)
    documents, aux, final = make_documents([10, 12], [6, 3])
    law = supervised_rows(documents, STEPS)
    everything = Documents(documents.input_ids, torch.ones_like(documents.supervised), documents.starts)
    gradients, losses = [], []
    for run in (documents, everything):
        head.zero_grad()
        total = torch.zeros(())
        for output in unroll(head, run, aux, final, STEPS):
            total = total + output.scores.loss[law[output.step][output.rows]].sum()
        total.backward()
        losses.append(total.detach())
        gradients.append({name: p.grad.clone() for name, p in head.named_parameters()})
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-5)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-5, msg=name)


def test_path_floor_drops_exactly_the_rows_whose_path_became_improbable():
    head = make_head()
    documents, aux, final = make_documents([20, 15], [3, 2])
    floor = 0.02
    full = {o.step: o for o in unroll(head, documents, aux, final, STEPS)}
    kept = {o.step: o for o in unroll(head, documents, aux, final, STEPS, path_floor=floor)}
    path = {row: 0.0 for row in range(35)}
    for step in range(STEPS):
        expected = [row for row in full[step].rows.tolist() if path[row] >= torch.tensor(floor).log()]
        actual = kept[step].rows.tolist() if step in kept else []
        assert actual == expected
        for row, logprob in zip(full[step].rows.tolist(), full[step].scores.logprob.tolist(), strict=True):
            path[row] += logprob
    assert len(kept[1].rows) < len(full[1].rows)
    assert kept[1].supervised == full[1].supervised


@pytest.mark.parametrize("lengths", [[1], [2, 1], [2, 9]])
def test_documents_too_short_to_predict_anything(lengths):
    head = make_head()
    documents, aux, final = make_documents(lengths, [0] * len(lengths))
    rows = [output.rows for output in unroll(head, documents, aux, final, STEPS)]
    assert sum(len(r) for r in rows) == int(supervised_rows(documents, STEPS).sum())


def test_full_vocabulary_head_predicts_every_token():
    head = make_head(draft_vocab_size=31)
    documents, aux, final = make_documents([8], [0])
    assert "d2t" not in head.state_dict()
    for output in unroll(head, documents, aux, final, STEPS):
        assert torch.equal(output.token, documents.input_ids[output.rows + 2 + output.step])
        assert F.relu(-output.scores.logprob).isfinite().all()


@pytest.mark.parametrize("num_kv_heads, own", [(4, 0), (4, 3), (2, 1), (1, 2)])
def test_flash_attention_of_a_pack_against_plain_attention_of_each_document(num_kv_heads, own):
    def states(rows, heads):
        return torch.randn(rows, 2 * heads, 6, dtype=torch.float64)[:, ::2].requires_grad_()

    query, key, value = states(9, 4), states(21, num_kv_heads), states(21, num_kv_heads)
    own_keys, own_values = ([states(9, num_kv_heads) for _ in range(own)] for _ in range(2))
    source = torch.tensor([0, 3, 4, 5, 2, 0, 1, 8, 9])
    spans = [Span(slice(0, 4), slice(0, 6)), Span(slice(4, 5), slice(8, 11)), Span(slice(5, 9), slice(11, 21))]
    leaves = [query, key, value, *own_keys, *own_values]
    weights = torch.randn(9, 24, dtype=torch.float64)

    def plain(rows, tokens):
        keys, values = [k[rows] for k in own_keys], [v[rows] for v in own_values]
        return unrolled_attention(query[rows], source[rows], key[tokens], value[tokens], keys, values)

    expected = torch.cat([plain(*span) for span in spans])
    actual = pack_attention(query, source, key, value, own_keys, own_values, spans)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad((output * weights).sum(), leaves) for output in (actual, expected)]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)

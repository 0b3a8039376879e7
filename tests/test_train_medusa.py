"""Training Medusa and Hydra heads: the forward that serves, the text's law, resume, export with a measured tree."""

import json

import pytest
import torch
from models import VOCAB, tiny_target
from train_runs import config_for, make_workplace, run_to_the_end

from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.checkpoint import CheckpointError, DepthHeads, DepthHeadsConfig, layer_of, read_depth_heads
from eagle_decoding.drafts import Commit, HydraDraft, load_draft
from eagle_decoding.drafts.depth_heads import HeadStack
from eagle_decoding.drafts.prefix import PrefixLayer
from eagle_decoding.train.assemble import build_trainer
from eagle_decoding.train.config import KINDS, ConfigError, load_config
from eagle_decoding.train.depth_head import DepthHead
from eagle_decoding.train.export import export_head
from eagle_decoding.train.features import FeatureShards
from eagle_decoding.train.objectives import OBJECTIVES
from eagle_decoding.train.rank_accuracy import rank_accuracy
from eagle_decoding.train.rows import Documents, supervised_rows
from eagle_decoding.train.state import newest_state
from eagle_decoding.train.target import frozen_target
from eagle_decoding.train.unroll_heads import unroll_heads

HEADS = 3
KIND_NAMES = ["medusa", "hydra", "hydra++"]
PLAIN = ["head.blocks=1", "head.fc_norm=false", "head.norm_output=false"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("train"))


def make_head(kind, draft_vocab=40, num_layers=2):
    """A random head for a tiny target, and the same weights as they are served."""
    target = tiny_target("llama").requires_grad_(False)
    torch.manual_seed(2)
    config = DepthHeadsConfig(
        method=kind.removesuffix("++"),
        hidden_size=32,
        vocab_size=VOCAB,
        draft_vocab_size=draft_vocab,
        num_heads=HEADS,
        num_layers=num_layers,
        shared_path=kind != "medusa",
        output_map=True,
        prefix=layer_of(target.config) if kind == "hydra++" else None,
    )
    kept = torch.randperm(VOCAB)[:draft_vocab].sort().values
    head = DepthHead(config, target.get_input_embeddings().weight, target.get_output_embeddings().weight, kept)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return target, head, DepthHeads(config, {name: t.detach() for name, t in head.state_dict().items()})


def make_documents(lengths, supervised_from):
    total = sum(lengths)
    supervised = torch.cat([torch.arange(n) >= s for n, s in zip(lengths, supervised_from, strict=True)])
    documents = Documents(torch.randint(0, VOCAB, (total,)), supervised, torch.tensor([0, *lengths]).cumsum(0))
    return documents, torch.randn(total, 32)


def served_states(heads, documents, final):
    """What serving starts a tree from after each token: for Hydra++ the prefix layer, one committed row at a time."""
    if not heads.config.prefix:
        return final
    layer, states = PrefixLayer(heads, torch.float32, torch.device("cpu")), []
    for first, last in zip(documents.starts.tolist(), documents.starts.tolist()[1:], strict=False):
        layer.start(1)
        for row in range(first, last):
            position = torch.tensor([[row - first]], dtype=torch.int32)
            one = torch.ones(1, dtype=torch.int32)
            commit = Commit(position, final[None, row : row + 1], position, position[0], one, row - first + 1)
            states.append(layer.extend(commit)[0, 0])
    return torch.stack(states)


@pytest.mark.parametrize("kind", KIND_NAMES)
@torch.no_grad()
def test_training_computes_what_serving_computes(kind):
    target, head, heads = make_head(kind)
    assert {name: tuple(t.shape) for name, t in heads.tensors.items()} == heads.config.tensor_shapes()
    documents, final = make_documents([9, 14, 3, 11], [4, 1, 0, 11])
    stack = HeadStack(heads, target.get_output_embeddings().weight, torch.float32, torch.device("cpu"))
    states, embed, compared = served_states(heads, documents, final), target.get_input_embeddings().weight, 0
    for output in unroll_heads(head, documents, final, HEADS):
        for i, row in enumerate(output.rows.tolist()):
            path = embed[documents.input_ids[row + 1 : row + 2 + output.step]].flatten()
            inputs = torch.cat((states[row], path)) if kind != "medusa" else states[row]
            served = stack.logits(output.step, inputs[None, None])[0, 0].log_softmax(-1)
            teacher = (head.lm_head @ final[row + 1 + output.step]).softmax(-1)
            torch.testing.assert_close(output.scores.loss[i], -(teacher * served).sum(), rtol=1e-5, atol=1e-5)
            token = int(output.token[i])
            assert token == int(head.draft_ids[documents.input_ids[row + 2 + output.step]])
            if token >= 0:
                torch.testing.assert_close(output.scores.logprob[i], served[token], rtol=1e-5, atol=1e-5)
                assert bool(output.scores.hit[i]) == (int(served.argmax()) == token)
            compared += 1
    assert compared == int(supervised_rows(documents, HEADS).sum()) > 30


def test_path_floor_drops_rows_whose_path_became_improbable():
    _, head, _ = make_head("hydra")
    documents, final = make_documents([20, 15], [3, 2])
    floor = 0.01
    full = {o.step: o for o in unroll_heads(head, documents, final, HEADS)}
    kept = {o.step: o for o in unroll_heads(head, documents, final, HEADS, path_floor=floor)}
    path = dict.fromkeys(range(35), 0.0)
    for step in range(HEADS):
        expected = [row for row in full[step].rows.tolist() if path[row] >= torch.tensor(floor).log()]
        assert (kept[step].rows.tolist() if step in kept else []) == expected
        for row, logprob in zip(full[step].rows.tolist(), full[step].scores.logprob.tolist(), strict=True):
            path[row] += logprob
    assert 0 < len(kept[1].rows) < len(full[1].rows)


@pytest.mark.parametrize("lengths", [[1], [2, 1], [2, 9]])
def test_documents_too_short_to_predict_anything(lengths):
    _, head, _ = make_head("hydra++")
    documents, final = make_documents(lengths, [0] * len(lengths))
    rows = [output.rows for output in unroll_heads(head, documents, final, HEADS)]
    assert sum(map(len, rows)) == int(supervised_rows(documents, HEADS).sum())


@pytest.mark.parametrize("kind", KIND_NAMES)
@torch.no_grad()
def test_a_warm_head_guesses_states_that_follow_linearly(kind):
    """States that turn by the same matrix every token: a head finds its power."""
    target, head, _ = make_head(kind)
    turn = torch.linalg.qr(torch.randn(32, 32)).Q
    states = [torch.randn(32)]
    for _ in range(400):
        states.append(turn @ states[-1])
    final = torch.stack(states)
    final = final * 3 / final.square().mean(-1, keepdim=True).sqrt()
    documents, _ = make_documents([401], [0])
    OBJECTIVES[kind].warm_start(head, target, documents, torch.empty(0), final)
    state = head.begin(final, documents)[:390]
    torch.testing.assert_close(state, final[:390], rtol=1e-4, atol=1e-4)
    for step in range(HEADS):
        guess = head(step, state, documents.input_ids[:390, None].expand(-1, step + 1))
        later = final[1 + step : 391 + step]
        assert torch.cosine_similarity(guess, later).min() > 0.9, step


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_a_run_learns_and_its_export_drafts(workplace, tmp_path, kind):
    reports = []
    overrides = [
        "head.warm_start=false",
        "optim.epochs=12",
        "optim.lr=1e-2",
        "log.eval_every=1000",
        "log.save_every=1000",
    ]
    config = config_for(workplace, tmp_path / "run", f"head.kind={kind}", *PLAIN, *overrides)
    trainer, _ = build_trainer(config, reports.append)
    trainer.run()
    losses = [report["loss"][1] for report in reports if report["kind"] == "train"]
    assert losses[-1] < losses[0] - 0.3
    assert len(reports[-1]["survival"]) == 3 and reports[-1]["scored"] == [1.0, 1.0, 1.0]
    export_head(tmp_path / "run", tmp_path / "heads")
    target = frozen_target(workplace / "target")
    draft = load_draft(tmp_path / "heads", target, TreeConfig(12, 3, 4))
    assert (kind != "medusa") == isinstance(draft, HydraDraft)
    for name, tensor in trainer.head.state_dict().items():
        stored = read_depth_heads(tmp_path / "heads", target.config).tensors[name]
        assert torch.equal(stored, tensor if name == "d2t" else tensor.to(torch.bfloat16)), name
    decoder = SpeculativeDecoder(target, draft)
    settings = {"do_sample": False, "max_new_tokens": 26, "eos_token_id": None}
    prompts = torch.stack([trainer.data.ids[trainer.data.starts[row] :][:4] for row in trainer.train_rows[:8]])
    assert torch.equal(decoder.generate(prompts, **settings), target.generate(prompts, **settings))
    assert decoder.stats.tokens_per_round > 1.1


def test_a_stopped_run_resumes_to_the_same_bits(workplace, tmp_path):
    """Stopped at step 15, it goes on from the checkpoint of step 14."""
    overrides = ["head.kind=hydra++", *PLAIN, "optim.epochs=3", "log.save_every=7"]

    def stop(report):
        if report["step"] == 15:
            raise KeyboardInterrupt

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = run_to_the_end(config_for(workplace, tmp_path / "whole", *overrides))
        config = config_for(workplace, tmp_path / "stopped", *overrides)
        with pytest.raises(KeyboardInterrupt):
            build_trainer(config, stop)[0].run()
        stopped = newest_state(tmp_path / "stopped" / "checkpoints")
        assert stopped.progress["step"] == 14 < whole.progress["step"]
        resumed = run_to_the_end(config)
    finally:
        torch.set_num_threads(threads)
    for name, tensor in whole.head.items():
        assert torch.equal(tensor, resumed.head[name]), name
    for index, entries in whole.optimizer.items():
        for name, tensor in entries.items():
            assert torch.equal(tensor, resumed.optimizer[index][name]), (index, name)


@pytest.mark.parametrize("kind", KIND_NAMES)
@torch.no_grad()
def test_rank_accuracy_counts_rows_that_were_within_reach(kind):
    _, head, _ = make_head(kind, draft_vocab=25)
    packs = [make_documents([140, 95], [3, 0]), make_documents([80], [1])]
    measured = rank_accuracy(head, packs)
    right, rows = torch.zeros(HEADS, 10), torch.zeros(HEADS)
    for documents, final in packs:
        law, state = supervised_rows(documents, HEADS), head.begin(final, documents)
        for row in range(len(final)):
            for depth in range(HEADS):
                if not law[depth, row]:
                    continue
                path = documents.input_ids[None, row + 1 : row + 2 + depth]
                order = (head(depth, state[row, None], path) @ head.lm_head.T)[0].argsort(descending=True)[:10].tolist()
                token = int(head.draft_ids[documents.input_ids[row + 2 + depth]])
                rows[depth] += 1
                if token not in order:
                    break
                right[depth, order.index(token)] += 1
    expected = right / rows[:, None]
    torch.testing.assert_close(torch.tensor(measured), expected, rtol=0, atol=1e-5)
    assert expected.sum() > 0 and int(rows[2]) < int(rows[0])


def test_the_exported_tree_comes_from_the_training_rows(workplace, tmp_path):
    config = config_for(workplace, tmp_path / "run", "head.kind=medusa", *PLAIN, "optim.epochs=1")
    trainer, _ = build_trainer(config, lambda report: None)
    trainer.run()
    export_head(tmp_path / "run", tmp_path / "heads", dtype=torch.float32)
    target = frozen_target(workplace / "target")
    features = FeatureShards(config.data.features, trainer.data, target)
    packs = [(trainer.data.pack([row]), features.read([row])[1]) for row in trainer.train_rows]
    fields = json.loads((tmp_path / "heads" / "config.json").read_text())
    assert torch.tensor(fields["rank_accuracy"]).allclose(torch.tensor(rank_accuracy(trainer.head, packs)))
    with pytest.raises(CheckpointError, match="name it too"):
        export_head(tmp_path / "heads", tmp_path / "published", "published")
    export_head(tmp_path / "heads", tmp_path / "published", "published", torch.float32, str(workplace / "target"))
    portable, published = (load_draft(tmp_path / name, target, TreeConfig()) for name in ("heads", "published"))
    state = torch.randn(1, 1, 24)
    kept = portable.heads.d2t + torch.arange(32)
    logits = [portable.heads.logits(1, state), published.heads.logits(1, state)[..., kept]]
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)
    assert portable.tree.paths == published.tree.paths
    config.data.features = str(tmp_path / "nowhere")
    state = trainer.head.state_dict()
    OBJECTIVES["medusa"].export(
        config, state, frozen_target(config.target), tmp_path / "bare", "portable", torch.float32
    )
    assert "rank_accuracy" not in json.loads((tmp_path / "bare" / "config.json").read_text())


def test_the_recipes_of_the_kinds():
    assert set(KINDS) == set(OBJECTIVES)
    assert load_config(None, ["head.kind=medusa"]).unroll.steps == 4
    recipe = load_config(None, ["head.kind=hydra++", "optim.lr=1e-3"])
    assert (recipe.head.blocks, recipe.optim.lr, recipe.optim.weight_decay) == (4, 1e-3, 0.1)
    with pytest.raises(ConfigError, match=r"known: .*hydra\+\+"):
        load_config(None, ["head.kind=medusa2"])

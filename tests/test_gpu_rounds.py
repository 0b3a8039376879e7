"""The GPU benchmark of rounds, on a CPU: forced acceptance, marked replays, idle shares of a timeline, the command."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models import eagle_decoder, prompts, tiny_target
from tape import Capturable, NoHostReads, Tape
from test_graph_operations import SampledRequests, begin, state_of
from torch.profiler import ProfilerActivity

from bench import graph_rounds
from bench.arms import Arm, speculative
from bench.gpu.forced import ForcedSampler, accepting, forced_path
from bench.gpu.random_models import random_head, random_target
from bench.gpu.replays import marked_replays
from bench.gpu.timeline import Activity, idle_shares, profiled, read_activities
from bench.results_file import read_json
from bench.shapes import MODELS, ModelShape
from bench.timing import Stopwatch
from eagle_decoding import SpeculativeDecoder, TreeConfig, graph
from eagle_decoding.drafts import Eagle3Draft
from eagle_decoding.floor.ceilings import Ceilings
from eagle_decoding.output import Output
from eagle_decoding.rounds import one_round
from eagle_decoding.target import Target, load_target
from eagle_decoding.tree import DraftTree, ancestor_words

CEILINGS = Ceilings(1, "bfloat16", copy_bandwidth=1e10, read_bandwidth=1e10, flops_per_second=1e11)


@pytest.fixture
def tiny(monkeypatch) -> str:
    """A model's name; ceilings are not measured."""
    monkeypatch.setitem(MODELS, "tiny", ModelShape(64, 96, 8, 2, 16, 3, 97, 60))
    monkeypatch.setattr(graph_rounds, "measure_ceilings", lambda dtype, device: CEILINGS)
    return "tiny"


#       0
#      / \
#     1   2
#     |   |  \
#     3   4   5      and one node of padding; 5 has a child 6
PARENT = [-1, 0, 0, 1, 2, 2, 5, -1]


def forked_tree() -> DraftTree:
    depth: list[int] = []
    for parent in PARENT:
        depth.append(depth[parent] + 1 if parent >= 0 else 0)
    row = torch.tensor([PARENT, depth], dtype=torch.int32)[:, None]
    return DraftTree(row[0], row[0], row[1], row[1], ancestor_words(PARENT)[None], None, max_depth=4)


@pytest.mark.parametrize(
    ("accepted", "path"), [(0, [0]), (1, [0, 1]), (2, [0, 1, 3]), (3, [0, 2, 5, 6]), (4, [0, 2, 5, 6])]
)
def test_the_forced_path_is_one_of_the_tree(accepted, path):
    """Ending at the first node as deep as asked, or at the deepest there is; behind it -1."""
    accept_index, accept_length, node = forced_path(forked_tree(), accepted)
    assert accept_index.tolist() == [path + [-1] * (5 - len(path))] and accept_index.dtype == torch.int32
    assert accept_length.tolist() == [len(path) - 1] and node.tolist() == [[path[-1]]]


@pytest.mark.parametrize("accepted", [0, 2])
def test_forced_rounds_can_be_captured(accepted, monkeypatch):
    """On a tape with a graph's rules: the text of rounds one by one, and as many tokens a round as asked."""
    decoder = eagle_decoder(tiny_target(), TreeConfig(num_nodes=12, max_depth=3, topk=3))
    settings = {"do_sample": False, "max_new_tokens": 19, "eos_token_id": None}
    monkeypatch.setitem(graph.CAPTURES, "cpu", lambda step, device: Tape(step).replay)
    monkeypatch.setattr(graph, "BUCKET", 64)
    texts = []
    with accepting(accepted):
        for decoder.graph in (False, True):
            with marked_replays(Stopwatch("cpu")) as replays:
                texts.append(decoder.generate(**prompts(2), **settings))
            assert decoder.stats.tokens_per_round == accepted + 1
            assert decoder.stats.rounds == 2 * 18 // (accepted + 1)
    assert torch.equal(*texts) and len(replays.marks) >= 18 // (accepted + 1) - 2  # a round may be under way too many
    assert replays.round_seconds() > 0 and replays.device_seconds() > 0
    decoder.graph = False
    stock = decoder.generate(**prompts(2), **settings)
    assert torch.equal(stock, texts[0]) == (accepted == 0)  # a round that accepts nothing writes what the target chose


def test_graph_rounds_command(tiny, tmp_path, capsys):
    out = tmp_path / "rounds.json"
    graph_rounds.main(
        tiny, prompt=12, new_tokens=24, trees="4/3/1,12/4/3", accept=2, dtype="float32", device="cpu",
        timelines=tmp_path, out=out,
    )  # fmt: skip
    rows = read_json(out, "machine", "ceilings", "graph_rounds")["graph_rounds"]
    assert [(row["rounds"], row["linear"]) for row in rows] == [
        ("transformers", "torch"),
        *((name, linear) for name in ("plain", "chain 4/3/1", "tree 12/4/3") for linear in ("torch", "ours")),
    ]
    assert [row["tokens_per_round"] for row in rows] == [1, 1, 1, 3, 3, 3, 3]
    assert all(0 < row["floor_seconds"] < row["eager_seconds"] for row in rows)
    for row in rows[1:]:
        assert row["graph_device_seconds"] > 0
        assert row["share_of_floor_speed"] == pytest.approx(row["floor_seconds"] / row["graph_seconds"], rel=1e-3)
    idle = [row["idle"] for row in rows if "idle" in row]
    assert [found["timeline"] for found in idle] == ["tiny-plain.json.gz", "tiny-tree.json.gz"]
    assert all(found["host_gaps"] is None and (tmp_path / found["timeline"]).exists() for found in idle)
    assert "tiny, float32, milliseconds of a round" in capsys.readouterr().out
    assert "cpu" not in graph.CAPTURES


def test_prompts_may_be_as_long_as_models_take_them(tiny, capsys):
    graph_rounds.main(tiny, prompt=2050, new_tokens=3, trees="4/3/1", dtype="float32", device="cpu")
    assert "chain 4/3/1" in capsys.readouterr().out


def test_a_row_tells_why_its_round_was_not_captured(tiny, tmp_path, monkeypatch):
    def failing(step: graph.Step, device: torch.device) -> graph.Step:
        raise RuntimeError("no")

    monkeypatch.setitem(graph.CAPTURES, "cpu", failing)
    out = tmp_path / "rounds.json"
    graph_rounds.main(tiny, prompt=12, new_tokens=9, trees="4/3/1", dtype="float32", device="cpu", out=out)
    for row in read_json(out, "graph_rounds")["graph_rounds"][1:]:
        assert row["capture_error"] == "RuntimeError: no" and "graph_seconds" not in row


class ForcedRequests(SampledRequests, ForcedSampler):
    """Requests whose rounds accept four drafts."""

    accepted = 4


@pytest.mark.parametrize("fused", [False, None, True])
def test_a_round_of_an_8b_model_needs_no_host(fused):
    """The round that is timed, with a forced path, on torch's device without memory and under a graph's rules."""
    shape, dtype, meta = MODELS["Llama-3.1-8B"], torch.bfloat16, torch.device("meta")
    model, head = random_target(shape, dtype, "meta"), random_head(shape, dtype, "meta")
    with torch.inference_mode(), meta:
        sampler, tree = ForcedRequests(1), TreeConfig(60, 8, 10, "likeliest")
        draft = Eagle3Draft(head, model.get_input_embeddings().weight, shape.num_layers, tree, dtype, meta)
        begin(draft, sampler.params)
        state, output = state_of(1, 9, 3 * shape.hidden_size), object.__new__(Output)
        state = state._replace(commit=state.commit._replace(features=state.commit.features.to(dtype)))
    target = Target(model, draft.feature_layers, fused)
    cache = target.new_cache(1)
    with torch.inference_mode(), target.attached():
        one_round(target, draft, sampler, output, cache, state)  # makes room
        with NoHostReads(), Capturable():
            outcome = one_round(target, draft, sampler, output, cache, state)
    assert outcome.emitted.shape == outcome.verified.accept_index.shape == (1, 9)


def trace_of(events: list[dict[str, Any]], path: Path) -> Path:
    with gzip.open(path, "wt") as file:
        json.dump({"traceEvents": events}, file)
    return path


def test_idle_shares_of_a_timeline(tmp_path):
    """Three replays of two kernels at a time and a copy: 100 us apart, 10 us idle inside, 5 us idle between."""
    events = [{"ph": "X", "cat": "cuda_runtime", "name": "cudaGraphLaunch", "ts": 0, "dur": 90, "args": {}}]
    for replay in range(3):
        for category, start, length in (("kernel", 0, 50), ("kernel", 30, 10), ("gpu_memcpy", 60, 35)):
            arguments = {"correlation": replay + 7}
            events.append(
                {"ph": "X", "cat": category, "ts": 1e3 + 100 * replay + start, "dur": length, "args": arguments}
            )
    events.append({"ph": "X", "cat": "kernel", "ts": 500.0, "dur": 9, "args": {"correlation": 3}})  # launched by itself
    found = idle_shares(read_activities(trace_of(events, tmp_path / "trace.json.gz")))
    assert found["rounds"] == 2 and found["round_seconds"] == pytest.approx(1e-4)
    assert found["host_gaps"] == pytest.approx(0.05) and found["inner_gaps"] == pytest.approx(0.10)


def test_a_timeline_without_replays_has_no_shares():
    assert idle_shares([Activity(0, 1, 1), Activity(2, 3, 2)])["host_gaps"] is None
    assert idle_shares([])["rounds"] == 0


def test_a_profile_of_a_cpu_has_no_activity_of_a_device(tmp_path):
    trace = tmp_path / "folder" / "trace.json.gz"
    profiled(lambda: torch.ones(4) + 1, ProfilerActivity.CPU, trace)
    assert read_activities(trace) == [] and b"aten::add" in gzip.decompress(trace.read_bytes())


def test_rounds_logged_apart_are_those_of_the_timed_call(saved, tmp_path):
    """What a GPU does, whose timed rounds are captured: the same text, rounds and acceptance as with the log."""
    target, head, tree = load_target(saved[1], dtype=torch.float32), saved[3], TreeConfig(6, 3, 2)
    logged = speculative(target, head, tree)
    assert logged.log is logged.decoder
    apart = SpeculativeDecoder.from_pretrained(target, head, tree=tree)
    found = []
    for arm in (logged, Arm("apart", apart.generate, apart, logged.log)):
        clock, stats, rounds = arm.run(prompts(1)["input_ids"], {"do_sample": False, "max_new_tokens": 12})
        found.append((clock.tokens, stats.rounds, stats.accepted, rounds))
        assert len(clock.tokens) == clock.steps + 1 and len(rounds) == stats.rounds
    assert found[0] == found[1]

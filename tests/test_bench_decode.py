"""The decoding benchmarks: rounds read off a decode, the papers' metrics, tables, and the commands on tiny models."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
import torch
from models import eagle_decoder, prompts, random_head, tiny_target
from rich.console import Console
from test_cli import make_tokenizer

from bench import bench_decode, growth
from bench.arms import Arm, parse_tree, tree_name
from bench.decode_report import acceptance_lines, all_tables, decode_tables, totals
from bench.metrics import acceptance_rates, average_acceptance_length
from bench.results_file import read_json
from bench.rounds import Acceptance, LoggedRound, RoundLog
from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.checkpoint import write_head

#       0
#      / \
#     1   2        path 0 -> 2 -> 3: a favourite's brother, then a favourite
#         |  \
#         3   4
FORKED = LoggedRound([9, 1, 2, 3, 4], [-1, 0, 0, 2, 2], None, 5, [0, 2, 3], 7)
ROOT_ONLY = LoggedRound([9, 1, 2, 3, 4], [-1, 0, 0, 2, 2], None, 8, [0], 7)
CHAIN = [LoggedRound([9, 1, 2], [-1, 0, 1], None, 5, path, 7) for path in ([0], [0, 1], [0, 1], [0, 1, 2])]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny target, its head, and two question files."""
    folder = tmp_path_factory.mktemp("models")
    target = tiny_target()
    target.save_pretrained(folder / "target")
    make_tokenizer().save_pretrained(folder / "target")
    head = random_head(target, draft_vocab=60)
    write_head(folder / "head", head.config, head.tensors)
    (folder / "questions").mkdir()
    for name in ("one", "two"):
        lines = [json.dumps({"turns": [f"w5 w{7 + i} w8", "w9"]}) for i in range(2)]
        (folder / "questions" / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


def test_logged_rounds_tell_the_text_again():
    """Accepted tokens and bonus tokens of all rounds are the text behind the first token."""
    decoder = eagle_decoder(tiny_target(), TreeConfig(num_nodes=12, max_depth=3, topk=3))
    decoder.draft = RoundLog(decoder.draft)
    prompt = prompts(1)["input_ids"]
    output = decoder.generate(prompt, max_new_tokens=20, do_sample=False)
    rounds = decoder.draft.finish(decoder.stats)
    text = [rounds[0].tokens[0]]
    for logged in rounds:
        assert logged.position == prompt.shape[1] + len(text) - 1
        assert logged.tokens[0] == text[-1]
        text += [*(logged.tokens[node] for node in logged.path[1:]), logged.bonus_token]
    written = output[0, prompt.shape[1] :].tolist()
    assert text[: len(written)] == written
    assert len(rounds) == decoder.stats.rounds
    counted = Acceptance().add(rounds).by_depth
    assert counted[: len(decoder.stats.accepted_by_depth)] == decoder.stats.accepted_by_depth
    assert sum(counted) == decoder.stats.accepted


def test_rounds_are_logged_for_one_request():
    decoder = eagle_decoder(tiny_target())
    decoder.draft = RoundLog(decoder.draft)
    with pytest.raises(ValueError, match="one request at a time"):
        decoder.generate(**prompts(2), max_new_tokens=4, do_sample=False)


def test_acceptance_counts_depth_and_rank():
    counted = Acceptance().add([FORKED, ROOT_ONLY])
    assert counted.rounds == 2
    assert counted.tested == [2, 1]  # nothing hangs below node 3
    assert counted.accepted == [{2: 1}, {1: 1}]
    assert average_acceptance_length(counted) == 2.0
    assert average_acceptance_length(Acceptance()) == 1.0


def test_acceptance_rate_of_a_chain_is_conditional():
    counted = Acceptance().add(CHAIN)
    assert acceptance_rates(counted) == [3 / 4, 1 / 3]
    with pytest.raises(ValueError, match="topk 1"):
        acceptance_rates(Acceptance().add([FORKED]))


def test_tree_names():
    assert tree_name(parse_tree("24/5/4")) == "tree 24/5/4"
    assert tree_name(parse_tree("5/4/1")) == "chain 5/4/1"
    for wrong in ("24", "a/b/c", "24/5/4/1"):
        with pytest.raises(ValueError, match="nodes/depth/topk"):
            parse_tree(wrong)


def measured(**values: object) -> dict:
    measurement = dataclasses.asdict(bench_decode.Measurement(prompts=1, tokens=30, seconds=3.0, prefill_seconds=0.5))
    return measurement | values


def test_tables_follow_from_the_sums():
    acceptance = dataclasses.asdict(Acceptance().add(CHAIN))
    acceptance["accepted"] = json.loads(json.dumps(acceptance["accepted"]))  # ranks are strings in a file
    phases = {"prefill": 0.5, "draft": 0.4, "verify": 0.8, "sample": 0.1, "commit": 0.1, "output": 0.1}
    chain = measured(seconds=1.5, rounds=4, phases=phases, acceptance=acceptance)
    result = {
        "machine": {"label": "a machine", "notes": {"compiled": "not measured"}},
        "files": {"a": {"plain": measured(), "chain 3/2/1": chain}, "b": {"plain": measured(), "chain 3/2/1": chain}},
    }
    whole = totals(result)["chain 3/2/1"]
    assert whole.tokens_per_second == pytest.approx(20)
    assert whole.per_round() == pytest.approx(
        {"draft": 0.1, "verify": 0.2, "sample": 0.025, "commit": 0.025, "host": 0.025}
    )
    tables = {title: lines for title, _, lines in all_tables(result)}
    assert tables["The papers' metrics"][1] == ["chain 3/2/1", "2.00x", "2.00", "0.75, 0.33"]
    assert tables["Time of a round by phase"][1][1:] == ["100.00", "200.00", "25.00", "25.00", "25.00", "375.00", "500"]
    console = Console(file=io.StringIO(), record=True, width=160)
    console.print(decode_tables(result))
    text = console.export_text()
    assert "average acceptance length tau: " in text and "compiled: not measured" in text


def test_acceptance_lines_are_shares_of_all_rounds():
    headings, lines = acceptance_lines(Acceptance().add([FORKED, ROOT_ONLY]))
    assert headings[-2:] == ["from rank 1", "from rank 2"]
    assert lines == [["1", "2", "0.500", "0.500", "0.000", "0.500"], ["2", "1", "0.500", "1.000", "0.500", "0.000"]]


def test_decode_command(saved, capsys):
    out = saved / "decode.json"
    target, head = str(saved / "target"), str(saved / "head")
    bench_decode.main(
        target, head, saved / "questions", prompts=1, new_tokens=12, dtype="float32", trees="6/3/2,4/3/1",
        baselines="transformers,plain", device="cpu", out=out,
    )  # fmt: skip
    result = read_json(out, "machine", "files")
    assert set(result["files"]) == {"one", "two"}
    assert list(result["files"]["one"]) == ["transformers", "plain", "tree 6/3/2", "chain 4/3/1"]
    assert {m["tokens"] for m in result["files"]["one"].values()} == {11}  # all arms wrote the same number
    assert "n-alpha" in capsys.readouterr().out


def test_prompts_that_are_cut_are_told_of_and_counted(saved, tmp_path, capsys):
    (tmp_path / "long.jsonl").write_text(json.dumps({"turns": ["w5 " * 400]}) + "\n" + json.dumps({"turns": ["w5"]}))
    out, context = tmp_path / "decode.json", tiny_target().config.max_position_embeddings
    bench_decode.main(
        str(saved / "target"), str(saved / "head"), tmp_path, new_tokens=12, dtype="float32", trees="4/3/1",
        baselines="plain", device="cpu", out=out,
    )  # fmt: skip
    told = " ".join(capsys.readouterr().err.split())
    assert f"1 of 2 prompts have more than {context - 12} tokens" in told and "ask for fewer new tokens." in told
    facts = read_json(out)["machine"]
    assert (facts["prompts"], facts["cut_prompts"]) == (2, 1)


def test_answers_as_long_as_the_context_are_refused(saved):
    target, head = str(saved / "target"), str(saved / "head")
    with pytest.raises(ValueError, match="--new-tokens 300 leaves no room for a prompt"):
        bench_decode.main(target, head, saved / "questions", new_tokens=300, dtype="float32", device="cpu")


def test_an_arm_that_cannot_compile_is_noted_and_others_are_not():
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler\nat all")

    works = Arm("plain", eagle_decoder(tiny_target()).generate)
    prompt = torch.tensor([[5, 6, 7]])
    kept, notes = bench_decode.able([Arm("compiled", fails), works], prompt, {"do_sample": False})
    assert kept == [works] and notes["compiled"].endswith("failed here: no compiler")
    with pytest.raises(RuntimeError):
        bench_decode.able([Arm("plain", fails)], prompt, {})


def test_growth_command(saved, capsys):
    out = saved / "growth.json"
    target, head = str(saved / "target"), str(saved / "head")
    growth.main(target, head, "16,32", "1,2", tree="6/3/2", dtype="float32", repeats=2, out=out)
    rows = read_json(out, "machine", "growth")["growth"]
    assert [(row["batch"], row["context"], row["nodes"]) for row in rows] == [
        (1, 16, 1), (1, 16, 6), (1, 32, 1), (1, 32, 6), (2, 16, 1), (2, 16, 6),
    ]  # fmt: skip
    assert growth.break_even({"phases": {"a": 2.0}}, {"phases": {"a": 1.0, "b": 2.0}}) == 1.5
    assert "as context and batch grow" in capsys.readouterr().out


def test_plain_decoding_has_no_rounds_to_log():
    decoder: SpeculativeDecoder = eagle_decoder(tiny_target())
    _, stats, rounds = Arm("plain", decoder.generate, decoder).run(prompts(1)["input_ids"], {"max_new_tokens": 4})
    assert stats is decoder.stats and rounds == []

"""Pictures of benchmark results: one command draws all of them, transparent, labelled, and the same again."""

import dataclasses
import json

import pytest
import typer
from test_bench_ops import result as ops_result

from bench import report
from bench.bench_decode import Measurement
from bench.measure import Row
from bench.pictures.__main__ import PICTURES, main
from bench.rounds import Acceptance
from bench.timing import Samples

MACHINE = {"label": "a machine, some versions", "commit": "abc", "notes": {}}


def decode_result() -> dict:
    acceptance = Acceptance(10, [10, 5], [{1: 4, 2: 1}, {1: 2}])
    phases = {"draft": 0.4, "verify": 0.8, "sample": 0.1, "commit": 0.1, "output": 0.1}
    drafted = Measurement(1, 17, 2.0, 0.1, 10, phases, acceptance)
    plain = Measurement(1, 17, 3.0, 0.1, 17, {"verify": 2.8})
    chained = dataclasses.replace(drafted, acceptance=Acceptance(10, [10, 5], [{1: 5}, {1: 2}]))
    arms = {"transformers": Measurement(1, 17, 6.0, 0.1), "plain": plain, "tree 8/4/4": drafted, "chain 3/2/1": chained}
    return {"machine": MACHINE, "files": {"a": {name: dataclasses.asdict(m) for name, m in arms.items()}}}


def growth_result() -> dict:
    def row(batch: int, context: int, nodes: int) -> dict:
        phases = {"draft": 0.0 if nodes == 1 else 0.01, "verify": 0.02 * batch, "sample": 0.001, "commit": 0.001}
        return {"batch": batch, "context": context, "nodes": nodes, "phases": phases, "noise": 0.01}

    points = [(1, 1024), (1, 4096), (2, 1024)]
    return {"machine": MACHINE, "growth": [row(*point, nodes) for point in points for nodes in (1, 8)]}


def counted_ops() -> dict:
    samples = {"cpp": Samples([1e-5], [1e-5]), "torch": Samples([2e-5], [2e-5])}
    row = dataclasses.asdict(Row("linear", "tiny", "m", 2, 10_000, 1_000_000, samples))
    return ops_result(1e-6) | {"machine": MACHINE, "rows": [row]}


@pytest.fixture
def results(tmp_path):
    made = {"ops": counted_ops(), "decode": decode_result(), "growth": growth_result()}
    paths = [tmp_path / f"{name}.json" for name in made]
    for path, content in zip(paths, made.values(), strict=True):
        path.write_text(json.dumps(content))
    return paths


def test_every_picture_is_drawn_and_labelled(results, tmp_path):
    main(tmp_path / "pictures", results)
    drawn = {path.stem: path.read_text() for path in (tmp_path / "pictures").iterdir()}
    assert set(drawn) == {name for by_kind in PICTURES.values() for name in by_kind}
    for picture in drawn.values():
        assert "a machine, some versions" in picture  # matplotlib writes the text it draws as a comment
        assert "fill: #ffffff" not in picture and "fill: #000000" not in picture
    main(tmp_path / "again", results)
    assert {path.stem: path.read_text() for path in (tmp_path / "again").iterdir()} == drawn


def test_the_report_holds_every_table_and_links_the_pictures(results, tmp_path):
    main(tmp_path / "pictures", results)
    report.main(tmp_path / "benchmarks.md", results)
    text = (tmp_path / "benchmarks.md").read_text()
    for kind in PICTURES.values():
        assert all(f"](pictures/{name}.svg)" in text for name in kind)
    for piece in ("| `linear` | tiny |", "| tree 8/4/4 |", "acceptance rate n-alpha: ", "| 1 | 4096 | 8 |"):
        assert piece in text
    with pytest.raises(ValueError, match="No table"):
        report.section({"machine": MACHINE})


def test_another_kind_of_file_is_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"machine": MACHINE}))
    with pytest.raises(typer.BadParameter, match="no picture"):
        main(tmp_path, [path])

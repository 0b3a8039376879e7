"""How a draft is spelt: every form is taken apart and written again, and what is not there is refused."""

from types import SimpleNamespace

import pytest
import torch
from models import tiny_target

import eagle_kernels
from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.drafts import NAMED, Spelling, load_draft, read_spelling
from eagle_decoding.drafts.load import GRAFTED, usual_tree
from eagle_decoding.drafts.spelling import METHODS, TEXT_METHODS


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("suffix", Spelling("suffix")),
        ("auto:prompt-lookup", Spelling("prompt-lookup", auto=True)),
        ("{}", Spelling("{}")),
        ("static:{}", Spelling("{}", static=True)),
        ("suffix+{}", Spelling("{}", grafted="suffix")),
        ("auto:prompt-lookup+{}", Spelling("{}", grafted="prompt-lookup", auto=True)),
        ("auto:static:{}", Spelling("{}", static=True, auto=True)),
    ],
)
def test_every_form(tmp_path, written, expected):
    for folder in (tmp_path / "head", tmp_path / "suffix+head", tmp_path / "a b\n"):
        folder.mkdir(exist_ok=True)
        spelling = read_spelling(written.format(folder))
        directory = folder if "{}" in written else None
        assert vars(spelling) == vars(expected) | {"source": expected.source.format(folder), "directory": directory}
        assert str(spelling) == written.format(folder)


def test_a_path_and_a_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "head").mkdir()
    assert read_spelling(tmp_path / "head").directory == read_spelling("suffix+~/head").directory == tmp_path / "head"


def test_a_method_after_a_prefix_is_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="'static:lookahead' needs a directory and 'lookahead' is none"):
        read_spelling("static:lookahead")
    (tmp_path / "lookahead").mkdir()
    assert read_spelling("static:lookahead").directory is not None
    assert read_spelling("lookahead").directory is None


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("sufix", "The draft 'sufix' needs a directory .* hub id .* prompt-lookup, suffix, lookahead, which need none"),
        ("", "'' needs a directory and '' is none"),
        ("auto:", "'auto:' needs a directory and '' is none"),
        ("suffix+", "'suffix\\+' needs a directory and '' is none"),
        ("auto:suffix+static:head", "and 'static:head' is none"),
        ("auto:auto:suffix", "says auto: twice, write auto:suffix"),
        ("/no/head", "and '/no/head' is none"),
        ("./head", "and './head' is none"),
        (__file__, "test_draft_spelling.py' is none"),
        ("suffix+organisation/head", "organisation/head is no directory here, and it did not come from the hub: "),
    ],
)
def test_what_is_not_there(written, sentence):
    with pytest.raises(ValueError, match=sentence):
        SpeculativeDecoder.from_pretrained("./a target that is not looked for", written)
    with pytest.raises(ValueError, match=sentence):
        load_draft(written, tiny_target())


def test_the_methods_are_those_that_can_be_loaded():
    assert sorted(NAMED) == sorted(METHODS) and sorted(GRAFTED) == sorted(TEXT_METHODS)


@pytest.mark.parametrize(
    ("device", "dtype", "kernels", "num_nodes"),
    [
        ("cpu", torch.bfloat16, "avx512_bf16", 12),
        ("cpu", torch.float32, "avx512_bf16", 4),
        ("cpu", torch.bfloat16, "avx512", 4),
        ("cpu", torch.bfloat16, "avx2", 4),
        ("cpu", torch.float16, "baseline", 4),
        ("cuda", torch.float16, "avx2", 12),
    ],
)
def test_the_usual_tree_is_small_where_rows_cost_time(monkeypatch, device, dtype, kernels, num_nodes):
    monkeypatch.setattr(eagle_kernels, "info", lambda: {"cpu_kernels": kernels})
    tree = usual_tree(SimpleNamespace(device=torch.device(device), dtype=dtype))
    assert tree == TreeConfig(num_nodes, max_depth=4 if num_nodes == 12 else 3)

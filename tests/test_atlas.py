"""The acceptance atlas: counts along every axis from known rounds, token classes, a page that holds all its data."""

import json
import re

import pytest
from models import eagle_decoder, prompts, tiny_target
from test_cli import make_tokenizer

from bench.atlas.__main__ import axis_tables, build_atlas
from bench.atlas.counts import Answer, atlas_counts, bucket, token_class
from bench.atlas.page import render
from bench.rounds import LoggedRound, RoundLog

#       0            1 and 2 hang below the root, 3 and 4 below 2; the path is 0, 2, 3
ROUND = LoggedRound([9, 1, 2, 3, 4], [-1, 0, 0, 2, 2], [0.0, -1.0, -1.5, -2.0, -3.0], 12, [0, 2, 3], 7)
REJECTED = LoggedRound([7, 1, 2, 3, 4], [-1, 0, 0, 2, 2], None, 15, [0], 8)
WORDS = {1: " the", 2: "ing", 3: "7", 4: ".", 7: "\n", 8: " 42"}


def test_counts_along_every_axis():
    counts = atlas_counts([Answer("a", "why?", 10, [ROUND, REJECTED])], WORDS.__getitem__)
    assert counts["depth"] == [["1", 2, 1], ["2", 1, 1]]
    assert counts["rank"] == [["1", 3, 1], ["2", 3, 1]]
    # the root stands at the third new token (2), so its children are new token 3
    assert counts["position"] == [["0 to 7", 3, 2]]
    assert counts["class"] == [["number", 2, 1], ["inside a word", 1, 1]]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (" the", "new word"),
        ("ing", "inside a word"),
        ("'s", "inside a word"),
        (" 12", "number"),
        ("\n\n", "new line"),
        ("  ", "space"),
        (").", "punctuation"),
        (" +", "punctuation"),
        ("<|im_end|>", "other"),
        ("", "other"),
    ],
)
def test_token_classes(text, kind):
    assert token_class(text) == kind


def test_position_buckets():
    assert [bucket(p) for p in (0, 7, 8, 511, 512, 9000)] == [
        "0 to 7", "0 to 7", "8 to 15", "256 to 511", "512 and on", "512 and on",
    ]  # fmt: skip


def test_an_atlas_of_a_tiny_model_agrees_with_its_statistics():
    decoder = eagle_decoder(tiny_target())
    decoder.draft = RoundLog(decoder.draft)
    prompt = prompts(1)["input_ids"]
    decoder.generate(prompt, max_new_tokens=24, do_sample=False)
    answers = [Answer("a", "w5 w6", prompt.shape[1], decoder.draft.finish(decoder.stats))]
    atlas = build_atlas(answers, make_tokenizer(), {"label": "a machine"})
    assert atlas["tau"] == pytest.approx(decoder.stats.tokens_per_round)
    assert atlas["rounds"] == decoder.stats.rounds
    by_depth = [row[2] for row in atlas["counts"]["depth"]]
    assert by_depth[: len(decoder.stats.accepted_by_depth)] == decoder.stats.accepted_by_depth
    for axis in ("position", "class"):
        assert sum(row[2] for row in atlas["counts"][axis]) == sum(by_depth)
    first = atlas["answers"][0]["rounds"][0]
    assert first["tokens"][0].startswith("w") and first["p"][0] == 1.0
    assert [str(table.title) for table in axis_tables(atlas)] == [f"Acceptance by {axis}" for axis in atlas["counts"]]


def test_the_page_holds_its_data_and_nothing_external():
    answers = [Answer("a", "</script><b>&", 10, [ROUND])]
    atlas = build_atlas(answers, make_tokenizer(), {"label": "a machine"})
    page = render(atlas)
    assert page.count("</script>") == 1
    assert not re.search(r"""(src|href)\s*=|@import|url\(|https?://(?!www\.w3\.org/2000/svg)""", page)
    data = re.search(r"const atlas = (.*);\n", page)[1]
    assert json.loads(data) == atlas

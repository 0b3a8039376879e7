"""Draft heads served in fp8: they draft nearly the same, the text stays the target's own, other drafts are refused."""

import pytest
import torch
from command_line import run
from depth_heads import random_commit, random_depth_heads
from eagle1_head import random_eagle1
from models import prompts, random_head, tiny_target

from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.bench.methods import load_method
from eagle_decoding.checkpoint import write_depth_heads, write_head
from eagle_decoding.drafts import load_draft

FP8 = torch.float8_e4m3fn
HEADS = {"eagle3": random_head, "eagle1": random_eagle1}
TREE = TreeConfig(12, 3, 3)


@pytest.fixture(params=HEADS)
def saved_head(request, tmp_path):
    """A target and a directory with a head for it."""
    target = tiny_target()
    head = HEADS[request.param](target, 60)
    write_head(tmp_path, head.config, head.tensors)
    return target, tmp_path


def matrices(draft):
    layer = draft.layer
    return [layer.attention.qkv, layer.attention.output, layer.mlp.gate_up, layer.mlp.down, draft.fc, draft.lm_head]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("way", ["{}", "static:{}", "suffix+{}", "auto:{}"])
def test_greedy_text_is_plain_decodings(saved_head, way, dtype):
    target, folder = saved_head
    target.to(dtype)
    decoder = SpeculativeDecoder.from_pretrained(target, way.format(folder), tree=TREE, draft_dtype=FP8)
    settings = {"do_sample": False, "max_new_tokens": 40}
    inputs = prompts(2)
    plain = decoder.generate(**inputs, speculate=False, **settings)
    assert torch.equal(decoder.generate(**inputs, **settings), plain)


def test_sampled_text_is_plain_samplings(saved_head):
    target, folder = saved_head
    decoder = SpeculativeDecoder.from_pretrained(target, folder, tree=TREE, draft_dtype=FP8)
    settings = {"do_sample": True, "temperature": 0.8, "top_k": 20, "max_new_tokens": 30, "seed": 7}
    inputs = prompts(3)
    plain = decoder.generate(**inputs, speculate=False, **settings)
    assert torch.equal(decoder.generate(**inputs, **settings), plain)


def test_the_benchmark_serves_heads_in_fp8(saved_head):
    target, folder = saved_head
    head = load_method("mine", str(folder), target, "float8_e4m3fn")
    assert all(matrix.weight.dtype == FP8 for matrix in matrices(head.generate.__self__.draft))
    load_method("suffix", "suffix", target, "float8_e4m3fn")  # has no weights


def test_every_matrix_is_served_in_fp8_and_predicts_nearly_the_same(saved_head):
    target, folder = saved_head
    wide, narrow = (load_draft(folder, target, TREE, dtype) for dtype in (None, FP8))
    for of_wide, of_narrow in zip(matrices(wide), matrices(narrow), strict=True):
        assert of_wide.weight.dtype == target.dtype and of_wide.scale is None
        assert of_narrow.weight.dtype == FP8 and of_narrow.weight.shape == of_wide.weight.shape
        assert of_narrow.nbytes == of_wide.weight.numel() + 4 * len(of_wide.weight)
    commit = random_commit(target, [6], [0])
    width = len(wide.feature_layers) * target.config.hidden_size
    commit = commit._replace(features=torch.randn(*commit.tokens.shape, width))
    logits = []
    for draft in (wide, narrow):
        draft.layer.start(1)
        logits.append(draft.logits(draft.read(commit)))
    error = (logits[1] - logits[0]).norm() / logits[0].norm()
    assert 0 < error < 0.1


def test_other_drafts_and_other_dtypes_are_refused(tmp_path):
    target = tiny_target()
    target.save_pretrained(tmp_path / "model")
    heads = random_depth_heads(target, "medusa")
    write_depth_heads(tmp_path / "heads", heads, target.config)
    for spec in ("suffix", "auto:prompt-lookup", str(tmp_path / "model"), str(tmp_path / "heads")):
        with pytest.raises(
            ValueError, match=r"cannot be served in torch\.float8_e4m3fn, only heads of the EAGLE family"
        ):
            load_draft(spec, target, dtype=FP8)
    with pytest.raises(ValueError, match=r"in the target's dtype: torch\.float16 is neither"):
        load_draft("suffix", target, dtype=torch.float16)


def test_the_commands_take_it_by_name(saved):
    command = ("generate", "w5 w9 w11", *saved, "--raw", "--max-new-tokens", "20", "--num-nodes", "8")
    assert run(*command, "--draft-dtype", "float8_e4m3fn").out == run(*command, "--no-speculate").out
    refused = run(*command, "--draft-dtype", "int4")
    assert refused.code == 1 and "--draft-dtype int4 is unknown, choose one of float8_e4m3fn." in refused.err

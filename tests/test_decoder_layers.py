"""decoder_layers: the bits of five ops a layer, whatever a model's layers have, on contiguous and on paged caches."""

from typing import Any

import pytest
import torch
from compare import assert_bitwise, assert_close, strided
from draft_head import EPS, TOLERANCE, DraftHead
from paged import gathered, random_table, scattered
from torch import Tensor
from trees import random_tree_mask

import eagle_kernels
from eagle_kernels.reference.decoder_layers import LayerOps, layer_by_layer

LAYERS = 3
CONTEXT = (70, 3)
OPS = LayerOps(
    eagle_kernels.rms_norm,
    eagle_kernels.draft_qkv_rope,
    eagle_kernels.tree_attention,
    eagle_kernels.draft_output,
    eagle_kernels.draft_mlp,
)
# What models have beside the weights that all have: Llama, Qwen2 with windows in some layers, Qwen3, Mistral.
MODELS = {
    "plain": {},
    "biases": {"qkv_bias": True, "windows": [0, 64, 0]},
    "norms": {"q_norm_weight": True, "k_norm_weight": True},
    "windows": {"windows": [66] * LAYERS},
}


def make_case(
    model: str, dtype: torch.dtype, device: str = "cpu", rows: int = 5, boundaries: tuple[int, ...] = (1, 2)
) -> dict[str, Any]:
    head = DraftHead(dtype, device, batch=len(CONTEXT), rows=rows, positions=100, cache_length=84)
    heads, width = head.heads + 2 * head.kv_heads, head.heads * head.head_dim
    each = range(LAYERS)
    cached = head.random(2, LAYERS, head.batch, head.kv_heads, head.cache_length, head.head_dim)
    context = torch.tensor(CONTEXT, dtype=torch.int32, device=device)
    for b, length in enumerate(CONTEXT):
        cached[:, :, b, :, length:] = torch.nan  # whatever reads a row before it is written, shows it
    optional = {
        "qkv_bias": [head.random(heads * head.head_dim) for _ in each],
        "q_norm_weight": [head.random(head.head_dim) + 1 for _ in each],
        "k_norm_weight": [head.random(head.head_dim) + 1 for _ in each],
    }
    angles = torch.rand(head.positions, head.head_dim // 2, generator=head.generator).to(device) * 6
    return {
        "hidden_states": head.hidden_states(),
        "norm_weight": [head.random(head.hidden) + 1 for _ in each],
        "qkv_weight": [head.weight(heads * head.head_dim, head.hidden) for _ in each],
        "o_weight": [head.weight(head.hidden, width) for _ in each],
        "mlp_norm_weight": [head.random(head.hidden) + 1 for _ in each],
        "gate_up_weight": [head.weight(2 * head.intermediate, head.hidden) for _ in each],
        "down_weight": [head.weight(head.hidden, head.intermediate) for _ in each],
        "caches": cached,
        "cache_rows": context[:, None] + torch.arange(rows, dtype=torch.int32, device=device),
        "rope_cos": angles.cos(),
        "rope_sin": angles.sin(),
        "position_ids": head.integers(0, head.positions, head.batch, rows),
        "context_len": context,
        "ancestor_mask": random_tree_mask(head.batch, rows).to(device),
        "num_heads": head.heads,
        "scale": head.head_dim**-0.5,
        "eps": EPS,
        **{name: optional[name] if given is True else given for name, given in MODELS[model].items()},
        "boundaries": boundaries,
    }


def run(function: Any, case: dict[str, Any], **changed: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Output, kept states and caches afterwards of a call that leaves the case as it is."""
    given = {**case, "caches": case["caches"].clone(), **changed}
    return *function(**given), given["caches"]


@pytest.mark.parametrize("model", MODELS)
def test_matches_reference(backend, device, dtype, model):
    case = make_case(model, dtype, device)
    found = run(eagle_kernels.decoder_layers, case)
    expected = run(eagle_kernels.decoder_layers, case, backend="reference")
    tolerance = TOLERANCE[dtype] * 4 * LAYERS  # four roundings a layer, which the next ones pass on
    for name, one, other in zip(("output", "states", "caches"), found, expected, strict=True):
        assert one.dtype == dtype
        assert_close(one, other, tolerance, tolerance, name)


@pytest.mark.parametrize("rows", [1, 5, 14])
@pytest.mark.parametrize("model", MODELS)
def test_every_bit_is_that_of_the_ops_of_its_layers(device, dtype, model, rows):
    case = make_case(model, dtype, device, rows=rows)
    expected = run(lambda **given: layer_by_layer(OPS, **given), case)
    for name, one, other in zip(
        ("output", "states", "caches"), run(eagle_kernels.decoder_layers, case), expected, strict=True
    ):
        assert_bitwise(one, other, name)


@pytest.mark.parametrize("boundaries", [(), (1,), (2,)])
def test_kept_states_change_no_output(device, dtype, boundaries):
    case = make_case("plain", dtype, device)
    output, states, _ = run(eagle_kernels.decoder_layers, case)
    again, kept, _ = run(eagle_kernels.decoder_layers, case, boundaries=boundaries)
    assert_bitwise(again, output)
    assert_bitwise(kept, states[[boundary - 1 for boundary in boundaries]], "states")


def test_the_input_stays_and_may_be_strided(device, dtype):
    case = make_case("plain", dtype, device)
    before, view = case["hidden_states"].clone(), strided(case["hidden_states"])
    expected = run(eagle_kernels.decoder_layers, case)[0]
    assert_bitwise(case["hidden_states"], before, "hidden_states")
    assert_bitwise(run(eagle_kernels.decoder_layers, case, hidden_states=view)[0], expected)


def test_caches_of_some_of_the_requests(device, dtype):
    """A part of a larger tensor, between others that stay as they are; what a layer lacks in order is refused."""
    case = make_case("plain", dtype, device)
    larger = torch.full_like(case["caches"], 7).repeat(1, 1, 3, 1, 1, 1)
    some = larger[:, :, 2:4]
    some.copy_(case["caches"])
    output, _, caches = run(eagle_kernels.decoder_layers, case)
    assert_bitwise(eagle_kernels.decoder_layers(**{**case, "caches": some})[0], output)
    assert_bitwise(some, caches, "caches")
    assert (larger[:, :, :2] == 7).all() and (larger[:, :, 4:] == 7).all()
    with pytest.raises(RuntimeError, match="the caches of a layer must be contiguous"):
        eagle_kernels.decoder_layers(**{**case, "caches": case["caches"].transpose(3, 4).contiguous().transpose(3, 4)})


def test_paged_caches(device, dtype):
    case, size, pages = make_case("biases", dtype, device), 12, 17
    table = random_table(len(CONTEXT), case["caches"].shape[4] // size, pages)
    pools = torch.stack([scattered(cache, table, pages) for cache in case["caches"].cpu().flatten(0, 1)])
    pools = pools.unflatten(0, (2, LAYERS)).to(device)
    paged = run(eagle_kernels.decoder_layers, case, caches=pools, page_table=table.to(device))
    output, states, caches = run(eagle_kernels.decoder_layers, case)
    assert_bitwise(paged[0], output)
    assert_bitwise(paged[1], states, "states")
    for pool, cache in zip(paged[2].cpu().flatten(0, 1), caches.cpu().flatten(0, 1), strict=True):
        assert_bitwise(gathered(pool, table), cache, "cache")


def test_opcheck(device):
    case = make_case("norms", torch.float32, device)
    names = ("qkv_bias", "q_norm_weight", "k_norm_weight", "windows", "boundaries")
    optional = {name: list(case.pop(name, [])) for name in names}
    torch.library.opcheck(torch.ops.eagle_kernels.decoder_layers.default, (*case.values(), *optional.values()))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"o_weight": []}, "o_weight has 0 tensors, expected one for each of the 3 layers of caches"),
        ({"boundaries": (2, 1)}, "boundaries must ascend and be between 1 and 2, .*, got 1"),
        ({"boundaries": (3,)}, "boundaries must ascend and be between 1 and 2, .*, got 3"),
        ({"windows": (64,)}, "windows has 1 numbers, expected one for each of the 3 layers, or none"),
        ({"windows": (0, 63, 0)}, "windows must be 0 or at least 64, as many rows as a mask has bits, got 63"),
        ({"num_heads": 5}, "num_heads is 5, which is not a multiple of the 2 heads of caches"),
        ({"num_heads": 4}, "qkv_weight has 200 rows and o_weight 120 columns, expected .* num_heads = 4"),
        ({"q_norm_weight": [torch.ones(20)] * 3}, "k_norm_weight has 0 tensors, expected one for each"),
        ({"norm_weight": [torch.ones(72), torch.ones(72), torch.ones(71)]}, r"norm_weight must be \[H\] with H = 72"),
        ({"position_ids": torch.full((2, 5), 100, dtype=torch.int32)}, "position_ids holds 100, expected 0 <="),
    ],
)
def test_errors_name_op_and_tensor(changed, message):
    with pytest.raises(RuntimeError, match=f"decoder_layers: {message}"):
        eagle_kernels.decoder_layers(**{**make_case("plain", torch.float32), **changed})

"""Whole decoder layers of a target on the ops of a draft layer: what they compute, where stock parts stay, memory."""

from typing import Any

import pytest
import torch
from compare import assert_bitwise
from models import KINDS, prompts, tiny_target
from torch import Tensor, nn

import eagle_kernels
from eagle_decoding.experts import MAX_ROWS
from eagle_decoding.matrix import side_by_side
from eagle_decoding.modules import linear_forward
from eagle_decoding.target import Target, TargetOutput
from eagle_decoding.tree import ancestor_words

STOCK = {  # kinds with layers that have a part which the ops lack
    "llama-scaled-rope",
    "phi3",
    "phi3-partial-rope",
    "olmo2",
    "granite",
    "glm4",
    "gemma3",
    "gpt-oss",
    "olmo3",
}
ROTATED = {"smollm3": 3}  # of four layers, where not all rotate
EXPERTS = {"mixtral", "qwen3-moe"}  # which all layers in one op lack


def layers_replaced(model: Any) -> int:
    return sum("forward" in vars(layer) for layer in model.get_decoder().layers)


def tree_logits(model: Any, fused: bool | None, rows: int = 9, batch: int = 2) -> Tensor:
    """Logits [batch, rows, vocab] of a tree: every row but the first hangs below the row at half its index."""
    return run_tree(Target(model, fused=fused), rows, batch).logits


def in_one_op(model: Any) -> bool:
    return "forward" in vars(model.get_decoder())


def run_tree(target: Target, rows: int = 9, batch: int = 2) -> TargetOutput:
    device = target.model.device
    inputs = prompts(batch)["input_ids"].to(device)
    parents = [-1, *(row // 2 for row in range(1, rows))]
    mask = ancestor_words(parents, device).repeat(batch, 1, 1)
    depth = [0]
    for parent in parents[1:]:
        depth.append(depth[parent] + 1)
    lengths = torch.tensor([inputs.shape[1], inputs.shape[1] - 4][:batch], dtype=torch.int32, device=device)
    cache = target.new_cache(batch)
    cache.buffer.reserve(inputs.shape[1] + rows)
    cache.buffer.data.fill_(torch.nan)
    ids = torch.randint(3, 97, (batch, rows), generator=torch.Generator().manual_seed(1)).to(device)
    positions = lengths[:, None] + torch.tensor(depth, dtype=torch.int32, device=device)
    with torch.inference_mode(), target.attached():
        target.prefill(inputs, lengths, cache)
        return target.run(ids, positions, lengths, mask, cache)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_scores_as_in_the_stock_layers(kind, device):
    model = tiny_target(kind).to(device)
    with Target(model, fused=True).attached():
        assert layers_replaced(model) == (0 if kind in STOCK else ROTATED.get(kind, 4))
        assert in_one_op(model) == (kind not in STOCK | set(ROTATED) | EXPERTS)
    assert layers_replaced(model) == 0 and not in_one_op(model)
    stock = tree_logits(tiny_target(kind), False)
    torch.testing.assert_close(tree_logits(model, True).cpu(), stock, rtol=1e-4, atol=1e-4)


def test_rotated_neighbours_stay_so(device):
    """GLM-4 rotates pairs of neighbours, in all of a head too if its configuration says so."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
    stock = tree_logits(tiny_target("glm4", rope_parameters=rope), False)
    fused = tree_logits(tiny_target("glm4", rope_parameters=rope).to(device), True)
    torch.testing.assert_close(fused.cpu(), stock, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shares", [True, False], ids=["of the chosen", "of all"])
def test_experts_weigh_by_their_probability(shares, device):
    """Among the chosen experts, or among all of them: Qwen3's configuration says which."""
    logits = {}
    for fused in (True, False):
        model = tiny_target("qwen3-moe").to(device if fused else "cpu")
        for module in model.modules():
            if hasattr(module, "norm_topk_prob"):
                module.norm_topk_prob = shares
        logits[fused] = tree_logits(model, fused).cpu()
    torch.testing.assert_close(logits[True], logits[False], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "name"), [("mixtral", "gate"), ("qwen3-moe", "gate"), ("gpt-oss", "router")])
@pytest.mark.parametrize("hooked", [False, True])
def test_a_router_of_somebody_elses_chooses_the_experts(kind, name, hooked):
    """A wrapper, or a hook that has every row go to its experts in equal parts."""
    model = tiny_target(kind)
    for block in (layer.mlp for layer in model.get_decoder().layers if hasattr(layer.mlp, name)):
        if hooked:
            getattr(block, name).register_forward_hook(lambda module, args, out: (out[0], out[1] * 0 + 0.5, out[2]))
        else:
            setattr(block, name, Wrapper(getattr(block, name)))
    torch.testing.assert_close(tree_logits(model, True), tree_logits(model, False), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_once_is_nearer_to_the_model(dtype):
    """Against the same rounded weights in float64, of which neither path knows."""
    errors = {}
    for fused in (None, False):
        model = tiny_target("llama", dtype)
        exact = tree_logits(tiny_target("llama", dtype).float(), False).double()
        errors[fused] = (tree_logits(model, fused).double() - exact).norm().item()
    assert errors[None] < errors[False]


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def replace_by_doubled(layer: Any) -> None:
    doubled = Doubled(32, 32, bias=False)
    doubled.weight = layer.self_attn.o_proj.weight
    layer.self_attn.o_proj = doubled


def double_by_hook(layer: Any) -> None:
    layer.self_attn.o_proj.register_forward_hook(lambda module, args, output: 2 * output)


def double_by_forward(layer: Any) -> None:
    layer.self_attn.o_proj.forward = lambda x: 2 * nn.functional.linear(x, layer.self_attn.o_proj.weight)


class Wrapper(nn.Module):
    """Holds a module and nothing that it holds, as an adapter's layer may."""

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base

    def forward(self, *inputs: Tensor) -> Any:
        outputs = self.base(*inputs)
        return 2 * outputs if isinstance(outputs, Tensor) else outputs


def wrap_query(layer: Any) -> None:
    layer.self_attn.q_proj = Wrapper(layer.self_attn.q_proj)


class DoubledNorm(nn.Module):
    """Holds what a norm of transformers holds."""

    def __init__(self, norm: Any):
        super().__init__()
        self.weight, self.variance_epsilon = norm.weight, norm.variance_epsilon

    def forward(self, states: Tensor) -> Tensor:
        return 2 * nn.functional.rms_norm(states, self.weight.shape, self.weight, self.variance_epsilon)


def replace_norm(layer: Any) -> None:
    layer.post_attention_layernorm = DoubledNorm(layer.post_attention_layernorm)


class DoubledMlp(nn.Module):
    """Holds what an MLP of transformers holds."""

    def __init__(self, mlp: Any):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj, self.act_fn = (
            mlp.gate_proj,
            mlp.up_proj,
            mlp.down_proj,
            mlp.act_fn,
        )

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


def test_an_mlp_of_somebody_elses_keeps_its_say():
    model = tiny_target()
    before, layer = tree_logits(model, None), model.get_decoder().layers[1]
    layer.mlp = DoubledMlp(layer.mlp)
    after = tree_logits(model, None)
    assert (after - before).abs().max() > 0.1
    torch.testing.assert_close(after, tree_logits(model, False), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", [replace_by_doubled, double_by_hook, double_by_forward, wrap_query, replace_norm])
def test_a_part_of_somebody_elses_keeps_its_say(change):
    model = tiny_target()
    before = tree_logits(model, None)
    change(model.get_decoder().layers[1])
    with Target(model).attached():
        assert layers_replaced(model) == 3
    after = tree_logits(model, None)
    assert (after - before).abs().max() > 0.1
    torch.testing.assert_close(after, tree_logits(model, False), rtol=1e-4, atol=1e-4)


def test_whoever_listens_to_a_layer_hears_of_every_forward():
    """A hook on a layer itself, which changes nothing: the layers then run one by one, with the same bits."""
    model, heard = tiny_target(), []
    before = tree_logits(model, None)
    model.get_decoder().layers[2].register_forward_hook(lambda *_: heard.append(True))
    with Target(model).attached():
        assert layers_replaced(model) == 4 and not in_one_op(model)
    assert_bitwise(tree_logits(model, None), before)
    assert len(heard) == 2  # the prompt and the tree


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
def test_features_are_those_of_layers_one_by_one(kind, dtype):
    """At every boundary: before the first layer, between two, behind the last one, and behind the final norm."""
    model, boundaries = tiny_target(kind, dtype), (0, 1, 3, 4, 5)
    together = run_tree(Target(model, boundaries))
    model.get_decoder().layers[0].register_forward_hook(lambda *_: None)
    apart = run_tree(Target(model, boundaries))
    assert_bitwise(together.features, apart.features, "features")
    assert_bitwise(together.logits, apart.logits, "logits")


def test_the_hooks_that_transformers_leaves_behind_do_not_count():
    model = tiny_target()
    with torch.no_grad():
        model(**prompts(1), output_hidden_states=True)
    assert any(module._forward_hooks for module in model.modules())
    with Target(model).attached():
        assert layers_replaced(model) == 4 and in_one_op(model)


def test_weights_move_once_and_stay_the_same_parameters(tmp_path):
    model = tiny_target("qwen2", torch.bfloat16)
    before = {name: (parameter, parameter.detach().clone()) for name, parameter in model.named_parameters()}
    Target(model).arrange()
    addresses = [parameter.data_ptr() for parameter in model.parameters()]
    for name, parameter in model.named_parameters():
        assert parameter is before[name][0]
        assert_bitwise(parameter.detach(), before[name][1], name)
    with Target(model).attached():
        assert layers_replaced(model) == 4
    assert addresses == [parameter.data_ptr() for parameter in model.parameters()]
    attention = model.get_decoder().layers[2].self_attn
    storage = attention.q_proj.weight.untyped_storage()
    assert storage.data_ptr() == attention.v_proj.weight.untyped_storage().data_ptr()
    assert storage.nbytes() == sum(p.weight.nbytes for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    model.save_pretrained(tmp_path)
    reloaded = type(model).from_pretrained(tmp_path)
    for name, parameter in reloaded.named_parameters():
        assert_bitwise(parameter.detach(), before[name][1], name)


def test_a_model_that_was_moved_is_arranged_anew():
    model = tiny_target()
    first = tree_logits(model, None)
    model.double().float()
    with torch.no_grad():
        model.get_decoder().layers[3].mlp.up_proj.weight.mul_(3)
    changed = tree_logits(model, None)
    assert (changed - first).abs().max() > 0.1
    torch.testing.assert_close(changed, tree_logits(model, False), rtol=1e-4, atol=1e-4)


def test_neighbours_are_found_where_they_are():
    whole = torch.arange(24.0).view(6, 4)
    first, second, third = (nn.Parameter(part) for part in whole.split([1, 3, 2]))
    assert side_by_side([first, second, third]).data_ptr() == whole.data_ptr()
    assert torch.equal(side_by_side([second, third]), whole[1:])
    swapped = side_by_side([third, second])
    assert swapped.data_ptr() not in (whole.data_ptr(), third.data_ptr() + 1)
    assert torch.equal(swapped, torch.cat([whole[4:], whole[1:4]])) and third.data_ptr() == swapped.data_ptr()
    columns = nn.Parameter(whole[:, :2].detach())
    assert torch.equal(side_by_side([columns, nn.Parameter(whole[:, 2:])]), torch.cat([whole[:, :2], whole[:, 2:]]))


@pytest.mark.parametrize(
    ("dtype", "kernels", "own"),
    [
        (torch.bfloat16, "avx2", True),
        (torch.float16, "baseline", True),
        (torch.float32, "avx2", False),
        (torch.bfloat16, "avx512", False),
    ],
)
def test_prompts_take_own_products_where_torch_has_slow_ones(monkeypatch, dtype, kernels, own):
    monkeypatch.setattr(eagle_kernels, "info", lambda: {"cpu_kernels": kernels})
    rows = []
    product = eagle_kernels.linear
    monkeypatch.setattr(eagle_kernels, "linear", lambda x, *rest: rows.append(x.shape[-2]) or product(x, *rest))
    forward = linear_forward(nn.Linear(8, 8, dtype=dtype))
    for count in (MAX_ROWS, MAX_ROWS + 1):
        forward(torch.zeros(1, count, 8, dtype=dtype))
    assert rows == ([MAX_ROWS, MAX_ROWS + 1] if own else [MAX_ROWS])

"""The PTX that nvcc makes of the CUDA kernels, executed on the CPU by tests/ptx_machine. Needs nvcc, no GPU.

The cases are tests of tests/cuda_emulation with the machine in its place: what they say of the C++ source, they say
here of the compiled code, every access of which is checked. Code for sm_90a is executed; for sm_80 what differs
without clusters.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import test_cuda_emulation as ops
import test_cuda_emulation_products as products
import test_cuda_emulation_window as windows
import torch
from compare import assert_bitwise, strided
from cuda_emulation import emulated
from fp8_cases import CALLS
from ptx_machine.machine import PTX_MACHINE, find_nvcc, never_executed

pytestmark = pytest.mark.skipif(find_nvcc() is None, reason="needs nvcc, in CUDA_HOME or on the path")

DTYPES = torch.float32, torch.bfloat16, torch.float16
AMPERE, HOPPER = 8, 9  # compute capability: attention by mma.sync or by wgmma


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    with emulated.running_on(PTX_MACHINE):
        yield


def cases(test: Callable[..., None], *arguments: dict[str, Any]) -> list[Any]:
    """A test of the emulation and the parameters of its cases."""
    words = [[str(getattr(value, "__name__", value)) for value in given.values()] for given in arguments]
    names = ["-".join([test.__name__.removeprefix("test_"), *of_case]) for of_case in words]
    return [pytest.param(test, given, id=name) for name, given in zip(names, arguments, strict=True)]


def typed(test: Callable[..., None], *arguments: dict[str, Any]) -> list[Any]:
    return cases(test, *({"dtype": dtype, **given} for given in arguments for dtype in DTYPES))


def halves(test: Callable[..., None], *arguments: dict[str, Any]) -> list[Any]:
    return cases(test, *({"dtype": dtype, **given} for given in arguments for dtype in DTYPES[1:]))


@pytest.mark.parametrize(
    ("test", "arguments"),
    [
        *cases(ops.test_verify_tree, {"num_nodes": 1}, {"num_nodes": 33}),
        *cases(ops.test_build_tree, {"num_nodes": 1, "slots": 128}, {"num_nodes": 65, "slots": 711}),
        *cases(ops.test_expand_tree, {"frontier": 1, "branching": 1}, {"frontier": 12, "branching": 23}),
        *typed(ops.test_commit_step, {"hidden": 5}, {"hidden": 64}),
        *typed(ops.test_compact_kv, {"head_dim": 5}, {"head_dim": 64}),
        *typed(ops.test_compact_kv_on_pages, {"page_size": 3}),
        *typed(ops.test_write_kv, {"head_dim": 5}, {"head_dim": 80}),
        *cases(ops.test_gumbel_noise, {}),
        *typed(ops.test_topk_logprobs, {"vocabulary": 257}, {"vocabulary": 9001}),
        *cases(ops.test_topk_logprobs_of_rows_without_a_law, {}),
        *typed(
            ops.test_sample_tokens,
            {"vocabulary": 9001, "top_k": 300, "top_p": 0.5, "min_p": 0.01},
            {"vocabulary": 1, "top_k": 0, "top_p": 1, "min_p": 0},
            {"vocabulary": 257, "top_k": 0, "top_p": 1, "min_p": 0.1},
        ),
        *cases(ops.test_sample_tokens_of_rows_without_a_law, {}),
        *cases(ops.test_sample_tokens_at_infinite_temperature, {}),
        *typed(ops.test_sample_children, {"vocabulary": 257}),
        *cases(
            ops.test_verify_rejection,
            {"rule": "sampled", "mapped": True, "version": 90},
            {"rule": "hybrid", "mapped": True, "version": 90},
            {"rule": "traversal", "mapped": False, "version": 90},
            {"rule": "hybrid", "mapped": True, "version": 80},
        ),
        *cases(
            ops.test_verify_rejection_of_large_trees,
            *(
                {"num_nodes": num_nodes, "dtype": dtype, "traversal": False}
                for num_nodes, dtype in zip((150, 33, 33), DTYPES, strict=True)
            ),
        ),
        *typed(products.test_rope, {}),
        *typed(
            products.test_lm_head_topk,
            *({"rows": rows, "vocabulary": 300, "k": 10, "hidden": 72} for rows in (1, 10, 20, 60)),
            {"rows": 20, "vocabulary": 1000, "k": 64, "hidden": 37},
        ),
    ],
)
def test_ops(test, arguments):
    test(**arguments)


LINEAR = [(1, 64, 130), (8, 1040, 40), (12, 64, 40), (20, 80, 40), (33, 2128, 129), (70, 16, 5), (3, 24, 9)]
LINEAR = [{"rows": rows, "inner": inner, "outputs": outputs} for rows, inner, outputs in LINEAR]
FP8_SIZES = {"hidden": 80, "intermediate": 1040, "head_dim": 16}


@pytest.mark.parametrize("multiprocessors", [4, 64])
@pytest.mark.parametrize(
    ("test", "arguments"),
    [
        *typed(
            products.test_tree_attention,
            {"shape": (4, 2, 64, 5), "contexts": [100, 0], "view": torch.clone},
            {"shape": (4, 1, 64, 40), "contexts": [90], "view": torch.clone},
            {"shape": (4, 4, 5, 7), "contexts": [129, 1], "view": strided},
        ),
        *typed(
            products.test_tree_attention_on_pages,
            {"shape": (3, 3, 80, 65), "contexts": [40], "page_size": 48, "heads_last": True},
        ),
        *typed(
            windows.test_windows,
            *(
                {"shape": shape, "contexts": contexts, "window": window, "view": torch.clone}
                for shape, contexts, window in windows.CASES
            ),
        ),
        *typed(products.test_linear, *({**sizes, "version": version} for version in (80, 90) for sizes in LINEAR)),
        *typed(products.test_linear, {"rows": 3, "inner": 7, "outputs": 9, "version": 90}),
        *typed(products.test_fp8_linear, *LINEAR),
        *typed(products.test_every_fp8_number_in_every_place_is_exact, {"inner": 80}, {"inner": 77}),
        *typed(
            products.test_draft_layer,
            *({"sizes": sizes, "version": version} for version in (80, 90) for sizes in products.SIZES),
        ),
        *typed(products.test_draft_qkv_rope, {"inner": 144, "head_dim": 64, "norms": True}),
        *typed(products.test_draft_qkv_rope, {"inner": 37, "head_dim": 10, "norms": False}),
        *typed(products.test_draft_qkv_rope_on_pages, {}),
        *typed(products.test_norms_of_rows_that_registers_do_not_hold, {"size": 8200}),
        *typed(products.test_fp8_draft_head, *({"op": op, "sizes": FP8_SIZES} for op in CALLS)),
        *halves(
            products.test_fp8_draft_head,
            {"op": "lm_head_topk", "sizes": {"hidden": 37}},
            *(
                {"op": "lm_head_topk", "sizes": {"hidden": 80, "batch": batch, "rows": rows}}
                for batch, rows in [(1, 1), (1, 9), (7, 9)]
            ),
        ),
        *typed(products.test_decoder_layers, {"model": "norms"}),
    ],
)
def test_products(test, arguments, multiprocessors):
    """Few multiprocessors split nothing, many split keys and inner dimensions."""
    emulated.library().set_device(multiprocessors, AMPERE)
    test(**arguments, multiprocessors=multiprocessors)


@pytest.mark.parametrize(
    ("test", "arguments"),
    [
        *halves(
            products.test_tree_attention_by_warpgroups,
            *(
                {"shape": shape, "contexts": contexts, "view": products.heads_last}
                for shape, contexts in products.WARPGROUP_CASES
            ),
        ),
        *halves(products.test_tree_attention_by_warpgroups_on_pages, {"case": ((2, 1, 48, 40), [7]), "page_size": 7}),
        *halves(
            windows.test_windows_by_warpgroups,
            {"shape": (3, 1, 104, 60), "contexts": [390], "window": 101, "view": torch.clone},
        ),
    ],
)
def test_warpgroups(test, arguments):
    emulated.library().set_device(4, HOPPER)
    before = emulated.library().warpgroup_products()
    test(**arguments, hopper=None)
    assert emulated.library().warpgroup_products() > before


def numbered(*messages: str) -> list[tuple[int, str]]:
    """In the order in which wrong_kernels.cu names the mistakes; 0 is none."""
    return list(enumerate(messages, start=1))


def reverse_wrongly(mistake: int) -> torch.Tensor:
    numbers, reversed_numbers = torch.arange(64, dtype=torch.int32), torch.zeros(64, dtype=torch.int32)
    emulated.call("reverse_wrongly", numbers, reversed_numbers, mistake)
    return reversed_numbers


def test_kernels_without_a_mistake():
    assert_bitwise(reverse_wrongly(0), torch.arange(64, dtype=torch.int32).flip(0))
    told, right = torch.zeros(4, 8, dtype=torch.int32), torch.zeros(128, dtype=torch.int32)
    emulated.call("tell_next_block", told, 4, 0)
    assert_bitwise(told, torch.tensor([8, *range(1, 8)], dtype=torch.int32).expand(4, 8))
    emulated.call("multiply_ones_128", right, 0)
    assert right.all()


@pytest.mark.parametrize(
    ("mistake", "message"),
    numbered(
        "global memory that belong to no allocation, at byte 256 of the nearest",
        "4 bytes at an address that is 2 more than a multiple",
        "reach beyond the",
        "nobody has written",
        "wrote, with no barrier between",
        "read, with no barrier between|wrote, with no barrier between",
        "a copy under way has not reached",
        "wrote, with no barrier between|nobody has written|a copy under way has not reached",
        "waits for others that never come",
        "waits for others that never come",
    ),
)
def test_mistakes(mistake, message):
    with pytest.raises(RuntimeError, match=message):
        reverse_wrongly(mistake)


def pass_on_wrongly(mistake: int) -> torch.Tensor:
    out, count = torch.zeros(2, 64, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    emulated.call("pass_on_wrongly", out, count, mistake)
    return out


def test_a_workspace_without_a_mistake():
    assert_bitwise(pass_on_wrongly(0), (torch.arange(64, dtype=torch.int32) ^ 1).expand(2, 64))


@pytest.mark.parametrize(
    ("mistake", "message"),
    numbered(
        "reads byte 12 of a workspace, which nobody has written",
        "global memory, which thread .* wrote, with no barrier between|which nobody has written",
        "reads byte .* of global memory, which a block of another cluster wrote in the same launch",
        "writes byte .* of global memory, which a block of another cluster wrote in the same launch",
        "of global memory, which .* wrote",
    ),
)
def test_mistakes_in_global_memory(mistake, message):
    with pytest.raises(RuntimeError, match=message):
        pass_on_wrongly(mistake)


@pytest.mark.parametrize(
    ("kernel", "arguments", "message"),
    [
        ("diverge_64", [], "waits in a divergent warp"),
        ("leave_early_64", [], "ends before it has waited for earlier kernels"),
        ("tell_next_block", [4, 1], "before a barrier of the cluster"),
        ("tell_next_block", [4, 2], "with no barrier between|nobody has written"),
        ("tell_next_block", [4, 3], "waits for others that never come"),
        ("multiply_ones_128", [1], "not fence.proxy.async of that thread"),
        ("multiply_ones_128", [2], "without wgmma.fence"),
        ("multiply_ones_128", [6], "touches a register of a product that was not waited for"),
    ],
)
def test_mistakes_of_the_emulation(kernel, arguments, message):
    out = torch.zeros(128, dtype=torch.int32)
    with pytest.raises(RuntimeError, match=message):
        emulated.call(kernel, out, *arguments)


def test_every_kernel_was_executed(request):
    """Each instance of each kernel, by the cases above."""
    chosen = sum(item.parent is request.node.parent for item in request.session.items)
    if chosen < len(list(request.node.parent.collect())):
        pytest.skip("some cases of this file were not chosen")
    left = [name for name in never_executed() if "eagle::cuda::" in name]
    assert not left, "\n".join(left)

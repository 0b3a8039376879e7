"""The PTX that nvcc makes of the CUDA kernels, executed on the CPU by tests/ptx_machine. Needs nvcc, no GPU.

The cases are tests of tests/cuda_emulation with the machine in its place: what they say of the C++ source, they say
here of the compiled code, every access of which is checked. Only code for sm_90a is executed.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import test_cuda_emulation as ops
import test_cuda_emulation_products as products
import test_cuda_emulation_window as windows
import torch
from compare import assert_bitwise
from cuda_emulation import emulated
from fp8_cases import CALLS
from ptx_machine.machine import PTX_MACHINE, find_nvcc

pytestmark = pytest.mark.skipif(find_nvcc() is None, reason="needs nvcc, in CUDA_HOME or on the path")

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
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


@pytest.mark.parametrize(
    ("test", "arguments"),
    [
        *cases(ops.test_verify_tree, {"num_nodes": 1}, {"num_nodes": 33}),
        *cases(ops.test_build_tree, {"num_nodes": 1, "slots": 128}, {"num_nodes": 65, "slots": 711}),
        *cases(ops.test_expand_tree, {"frontier": 1, "branching": 1}, {"frontier": 12, "branching": 23}),
        *cases(ops.test_commit_step, {"dtype": BF16, "hidden": 5}, {"dtype": FP32, "hidden": 64}),
        *cases(ops.test_compact_kv, {"dtype": BF16, "head_dim": 5}),
        *cases(ops.test_compact_kv_on_pages, {"dtype": BF16, "page_size": 3}),
        *cases(ops.test_write_kv, {"dtype": BF16, "head_dim": 80}),
        *cases(ops.test_gumbel_noise, {}),
        *cases(ops.test_topk_logprobs, {"dtype": BF16, "vocabulary": 9001}, {"dtype": FP32, "vocabulary": 1}),
        *cases(ops.test_topk_logprobs_of_rows_without_a_law, {}),
        *cases(
            ops.test_sample_tokens,
            {"dtype": BF16, "vocabulary": 257, "top_k": 300, "top_p": 0.5, "min_p": 0.01},
            {"dtype": FP16, "vocabulary": 1, "top_k": 0, "top_p": 1, "min_p": 0},
            {"dtype": FP32, "vocabulary": 257, "top_k": 0, "top_p": 1, "min_p": 0.1},
        ),
        *cases(ops.test_sample_tokens_of_rows_without_a_law, {}),
        *cases(ops.test_sample_tokens_at_infinite_temperature, {}),
        *cases(ops.test_sample_children, {"dtype": BF16, "vocabulary": 257}),
        *cases(
            ops.test_verify_rejection,
            {"rule": "sampled", "mapped": True, "version": 90},
            {"rule": "traversal", "mapped": False, "version": 90},
        ),
        *cases(ops.test_verify_rejection_of_large_trees, {"num_nodes": 150, "traversal": False}),
    ],
)
def test_ops(test, arguments):
    test(**arguments)


@pytest.mark.parametrize("multiprocessors", [4, 64])
@pytest.mark.parametrize(
    ("test", "arguments"),
    [
        *cases(
            products.test_tree_attention,
            {"dtype": BF16, "shape": (4, 2, 64, 5), "contexts": [100, 0], "view": torch.clone},
            {"dtype": FP16, "shape": (2, 1, 128, 7), "contexts": [130], "view": torch.clone},
            {"dtype": BF16, "shape": (2, 2, 256, 9), "contexts": [70, 3], "view": torch.clone},
            {"dtype": FP32, "shape": (4, 4, 5, 7), "contexts": [129, 1], "view": torch.clone},
        ),
        *cases(
            products.test_tree_attention_on_pages,
            {"dtype": BF16, "shape": (3, 3, 80, 65), "contexts": [40], "page_size": 48, "heads_last": True},
        ),
        *cases(
            windows.test_windows,
            {"dtype": BF16, "shape": (9, 3, 64, 24), "contexts": [163], "window": 64, "view": torch.clone},
        ),
        *cases(
            products.test_linear,
            {"dtype": BF16, "rows": 8, "inner": 1032, "outputs": 40, "version": 90},
            {"dtype": FP16, "rows": 33, "inner": 136, "outputs": 129, "version": 90},
            {"dtype": FP32, "rows": 3, "inner": 7, "outputs": 9, "version": 90},
        ),
        *cases(products.test_fp8_linear, {"dtype": BF16, "rows": 33, "inner": 1040, "outputs": 40}),
        *cases(products.test_draft_layer, {"dtype": BF16, "sizes": products.SIZES[0], "version": 90}),
        *cases(products.test_draft_qkv_rope, {"dtype": BF16, "inner": 144, "head_dim": 64, "norms": True}),
        *cases(products.test_draft_qkv_rope_on_pages, {"dtype": BF16}),
        *cases(products.test_norms_of_rows_that_registers_do_not_hold, {"dtype": BF16, "size": 8200}),
        *cases(products.test_every_fp8_number_in_every_place_is_exact, {"dtype": BF16, "inner": 80}),
        *cases(
            products.test_fp8_draft_head,
            *({"dtype": FP16, "op": op, "sizes": {"hidden": 80, "intermediate": 1040, "head_dim": 16}} for op in CALLS),
        ),
        *cases(products.test_decoder_layers, {"dtype": BF16, "model": "norms"}),
    ],
)
def test_products(test, arguments, multiprocessors):
    emulated.library().set_device(multiprocessors, AMPERE)
    test(**arguments, multiprocessors=multiprocessors)


@pytest.mark.parametrize(
    ("test", "arguments"),
    [
        *cases(products.test_rope, {"dtype": BF16}, {"dtype": FP32}),
        *cases(
            products.test_lm_head_topk,
            {"dtype": BF16, "vocabulary": 300, "k": 10, "hidden": 72},
            {"dtype": FP32, "vocabulary": 1000, "k": 64, "hidden": 37},
        ),
    ],
)
def test_rope_and_lm_head(test, arguments):
    test(**arguments)


@pytest.mark.parametrize(
    ("test", "arguments"),
    [
        *cases(
            products.test_tree_attention_by_warpgroups,
            {"dtype": BF16, "shape": (4, 1, 64, 17), "contexts": [100, 0], "view": torch.clone},
            {"dtype": FP16, "shape": (2, 1, 128, 33), "contexts": [130], "view": products.heads_last},
        ),
        *cases(
            products.test_tree_attention_by_warpgroups_on_pages,
            {"dtype": BF16, "case": ((2, 1, 48, 40), [7]), "page_size": 7},
        ),
        *cases(
            windows.test_windows_by_warpgroups,
            {"dtype": BF16, "shape": (3, 1, 104, 60), "contexts": [390], "window": 101, "view": torch.clone},
        ),
    ],
)
def test_warpgroups(test, arguments):
    emulated.library().set_device(4, HOPPER)
    before = emulated.library().warpgroup_products()
    test(**arguments, hopper=None)
    assert emulated.library().warpgroup_products() > before


def reverse_wrongly(mistake: int) -> torch.Tensor:
    numbers, reversed_numbers = torch.arange(64, dtype=torch.int32), torch.zeros(64, dtype=torch.int32)
    emulated.call("reverse_wrongly", numbers, reversed_numbers, mistake)
    return reversed_numbers


def test_a_kernel_without_a_mistake():
    assert_bitwise(reverse_wrongly(0), torch.arange(64, dtype=torch.int32).flip(0))


# In the order of wrong_kernels.cu.
@pytest.mark.parametrize(
    ("mistake", "message"),
    list(
        enumerate(
            (
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
            start=1,
        )
    ),
)
def test_mistakes(mistake, message):
    with pytest.raises(RuntimeError, match=message):
        reverse_wrongly(mistake)


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

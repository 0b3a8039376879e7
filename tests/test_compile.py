"""Triton kernels compile for every GPU generation without spilling; in a process of its own, without a GPU."""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_emulation import emulated

from bench.shapes import MODELS, WORKLOADS

ROOT = Path(__file__).resolve().parent.parent


PRINT_PTX = """
import torch
from bench.shapes import MODELS, WORKLOADS
from compile_gate import TARGETS, Sizes, compile_ops
sizes = Sizes(**vars(MODELS["Llama-3.1-8B"]), **vars(WORKLOADS["chat"]))
for _, kernel in compile_ops(TARGETS["90"], sizes, torch.bfloat16, ["tree_attention"], every_config=True):
    print(kernel.asm["ptx"])
"""


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "python"), *sys.path])
    return {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": path}


def compile_gate(*arguments: str) -> str:
    """The report of tests/compile_gate.py; fails with it when a kernel spills or does not compile."""
    command = [sys.executable, str(ROOT / "tests/compile_gate.py"), *arguments]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    print(result.stdout)
    return result.stdout


def test_every_op_compiles_for_hopper():
    report = compile_gate("90")
    ops = {path.stem for path in (ROOT / "eagle_kernels/triton").glob("*.py")} - {"__init__"}
    assert {line.split()[0] for line in report.splitlines()[2:]} == ops | {"linear_soft_cross_entropy"}


@pytest.mark.parametrize("target", ["80", "100", "120", "gfx942"])
def test_the_largest_kernels_compile_elsewhere(target):
    ops = ("tree_attention", "lm_head_topk", "build_tree", "verify_rejection", "linear_soft_cross_entropy")
    compile_gate(target, *(word for op in ops for word in ("--op", op)))


def test_attention_of_many_rows_multiplies_by_wgmma_on_hopper():
    kernels = [line.split() for line in compile_gate("90", "--op", "tree_attention", "--every-config").splitlines()]
    products = [kernel[-1] for kernel in kernels if kernel[:2] == ["tree_attention", "attend_kernel"]]
    assert products == ["mma.sync"] * 3 + ["wgmma"] * 2


def test_panels_are_described_as_triton_describes_them():
    """The CUDA kernel's tiles lie as Triton's, whose wgmma instructions are known to read them rightly."""
    descriptor = emulated.library().panel_descriptor
    descriptor.restype = ctypes.c_int64
    ptx = subprocess.run(
        [sys.executable, "-c", PRINT_PTX], env=environment(), capture_output=True, text=True, check=True
    ).stdout
    described = {int(number) for number in re.findall(r"(?:or\.b64|add\.s64).*, (\d{15,});", ptx)}
    columns = [panel * 64 * 128 + step * 32 for panel in range(2) for step in range(4)]  # of 64 keys
    assert {descriptor(address) for address in columns} <= described
    rows = [step * 16 * 128 for step in range(4)]  # Triton's values are two panels wide: it adds their distance
    assert {descriptor(address) | (64 * 128 >> 4) << 16 for address in rows} <= described


@pytest.mark.slow
@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("target", ["80", "90", "100", "120", "gfx942"])
def test_every_shape(target, model, workload):
    compile_gate(target, "--model", model, "--workload", workload)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_other_dtypes(dtype):
    compile_gate("90", "--dtype", dtype)

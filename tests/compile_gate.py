"""Compiles every Triton kernel without a GPU and prints what it needs: python tests/compile_gate.py 90 --model ...

The ops run on meta tensors under a driver that names a target and nothing else: what would be launched is compiled
instead, with the very arguments that the op's wrapper passes. Exits with 1 when a kernel spills more than its bound.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.autotuner import Autotuner
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

import eagle_kernels
from bench.shapes import MODELS, WORKLOADS
from eagle_decoding.numerics.cases import Sizes, op_inputs, variants
from eagle_decoding.train.losses_triton import LinearSoftCrossEntropy

SPILL_BOUND = 0  # bytes a thread
PAGE_SIZE = 16
CACHES = {  # arguments that may be paged
    "tree_attention": (1, 2),
    "draft_qkv_rope": (6, 7),
    "write_kv": (2, 3),
    "compact_kv": (0,),
    "decoder_layers": (7,),
}
TARGETS = {
    "80": GPUTarget("cuda", 80, 32),
    "90": GPUTarget("cuda", 90, 32),
    "100": GPUTarget("cuda", 100, 32),
    "120": GPUTarget("cuda", 120, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


class TargetOnly:
    """What Triton asks a driver while it compiles."""

    def __init__(self, target: GPUTarget):
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_ops(
    target: GPUTarget, sizes: Sizes, dtype: torch.dtype, ops: list[str], every_config: bool
) -> Iterator[tuple[str, Any]]:
    """Yields (op, compiled kernel) for each launch that the ops make."""
    compiled: list[Any] = []
    launch = JITFunction.run

    def compile_only(kernel: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        compiled.append(launch(kernel, *args, grid=grid, warmup=True, **kwargs))

    def run_configs(tuner: Autotuner, *args: Any, **kwargs: Any) -> None:
        tuner.nargs = dict(zip(tuner.arg_names, args, strict=False))
        configs = tuner.prune_configs(kwargs)
        for config in configs if every_config else configs[:1]:
            tuner.fn.run(*args, **kwargs, **config.all_kwargs())

    JITFunction.run, Autotuner.run = compile_only, run_configs
    driver.set_active(TargetOnly(target))
    for op, inputs in op_inputs(sizes, dtype, "meta").items():
        if op in ops or not ops:
            for variant, arguments, others in [("", inputs, {}), *paged(op, inputs, sizes), *variants(op, inputs)]:
                getattr(eagle_kernels, op)(*arguments, **others, backend="triton")
                yield from ((f"{op} {variant}".strip(), kernel) for kernel in compiled)
                compiled.clear()
    if "linear_soft_cross_entropy" in ops or not ops:
        rows, positions = sizes.batch * sizes.context_len, torch.empty(sizes.batch * sizes.context_len, device="meta")
        hidden, lm_head = (
            torch.empty(count, sizes.hidden_size, dtype=dtype, device="meta")
            for count in (rows, sizes.draft_vocab_size)
        )
        teacher = torch.empty(rows, sizes.draft_vocab_size, dtype=dtype, device="meta")
        LinearSoftCrossEntropy.apply(hidden, lm_head, teacher, positions.long(), positions.long())
        yield from (("linear_soft_cross_entropy", kernel) for kernel in compiled[:1])


def paged(op: str, inputs: tuple[Any, ...], sizes: Sizes) -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    """The call with a page table, of an op that takes one."""
    columns = -(-(sizes.context_len + sizes.num_nodes) // PAGE_SIZE)

    def pool(cache: Any) -> Any:
        if isinstance(cache, list):
            return [pool(each) for each in cache]
        return cache.new_empty(*cache.shape[:-4], sizes.batch * columns, cache.shape[-3], PAGE_SIZE, cache.shape[-1])

    if op in CACHES:
        arguments = [pool(value) if i in CACHES[op] else value for i, value in enumerate(inputs)]
        table = torch.empty(sizes.batch, columns, dtype=torch.int32, device="meta")
        yield "paged", arguments, {"page_table": table}


def resources(kernel: Any) -> tuple[int, int, int]:
    """(registers a thread, spilled bytes a thread, bytes of shared memory) of a compiled kernel."""
    shared = kernel.metadata.shared
    if kernel.metadata.target.backend == "hip":
        assembly = kernel.asm["amdgcn"]
        registers, spills = (
            int(re.search(rf"\.{name}:\s+(\d+)", assembly)[1]) for name in ("vgpr_count", "vgpr_spill_count")
        )
        return registers, 4 * spills, shared
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        text = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    registers, stack, local = (int(re.search(rf"{name}:(\d+)", text)[1]) for name in ("REG", "STACK", "LOCAL"))
    return registers, stack + local, shared


def tensor_products(kernel: Any) -> str:
    """The instruction that multiplies on an NVIDIA GPU's tensor cores, empty where there is none."""
    return next((name for name in ("wgmma", "tcgen05.mma", "mma.sync") if name in kernel.asm.get("ptx", "")), "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--model", choices=MODELS, default="Llama-3.1-8B")
    parser.add_argument("--workload", choices=WORKLOADS, default="chat")
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    parser.add_argument("--op", action="append", default=[], help="only this op; may be repeated")
    parser.add_argument("--every-config", action="store_true", help="all tuned configurations, not only the first")
    arguments = parser.parse_args()
    sizes = Sizes(**vars(MODELS[arguments.model]), **vars(WORKLOADS[arguments.workload]))
    dtype = getattr(torch, arguments.dtype)
    worst = 0
    print(f"sm_{arguments.target}, {arguments.model}, {arguments.workload}, {arguments.dtype}")
    print(f"{'op':27}{'kernel':26}{'warps':>6}{'registers':>10}{'spills':>8}{'shared':>8}  products")
    for op, kernel in compile_ops(TARGETS[arguments.target], sizes, dtype, arguments.op, arguments.every_config):
        registers, spills, shared = resources(kernel)
        worst = max(worst, spills)
        print(
            f"{op:27}{kernel.metadata.name:26}{kernel.metadata.num_warps:6}{registers:10}{spills:8}{shared:8}"
            f"  {tensor_products(kernel)}",
            flush=True,
        )
    if worst > SPILL_BOUND:
        print(f"A kernel spills {worst} bytes a thread; the bound is {SPILL_BOUND}.")
    return int(worst > SPILL_BOUND)


if __name__ == "__main__":
    sys.exit(main())

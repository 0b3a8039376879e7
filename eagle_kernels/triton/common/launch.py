"""What the Triton wrappers share: block sizes, warps, tuned configurations, and views of rows."""

import math
from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

PRETENDED_MULTIPROCESSORS = 16  # where no GPU can be asked: the interpreter and the compile gate
MOST_THREADS = 1024  # of a program, on every GPU


def tuned(
    configs: list[triton.Config], key: list[str], fitting: Callable[..., list[triton.Config]] | None = None
) -> Callable[[Any], Any]:
    """Decorates a kernel: times `configs` once for each value of the arguments `key` and keeps the choice on disk.

    The interpreter takes the first. Tuning runs on the first call of a shape, so warm up before capturing a graph.

    fitting: picks those of the configurations that are worth timing for a call's arguments
    """
    return triton.autotune(
        configs[:1] if triton.knobs.runtime.interpret else configs,
        key=key,
        prune_configs_by={"early_config_prune": fitting} if fitting else None,
        cache_results=True,
    )


def block_of(size: int, minimum: int = 1) -> int:
    """The power of two that holds `size` elements."""
    return triton.next_power_of_2(max(size, minimum))


def warps_for(block: int) -> int:
    """Warps for one pass over a block of a row: eight elements a thread."""
    return min(max(block // 256, 1), 16)


def most_warps() -> int:
    """Warps of the largest program: 32, or 16 where a warp has 64 threads. The interpreter has none."""
    if triton.knobs.runtime.interpret:
        return 1
    return MOST_THREADS // triton.runtime.driver.active.get_current_target().warp_size


def row_block(rows: int) -> int:
    """Rows that one program multiplies: tensor cores take sixteen at least, registers hold sixty-four."""
    return min(block_of(rows, 16), 64)


def as_rows(t: Tensor) -> Tensor:
    """[..., C] -> [R, C] with contiguous columns; a view wherever the strides allow one."""
    rows = t.reshape(math.prod(t.shape[:-1]), t.shape[-1])
    return rows if rows.stride(1) == 1 or rows.shape[1] == 1 else rows.contiguous()


def as_elements(weight: Tensor) -> Tensor:
    """A weight as kernels read it: fp8 as bytes, since Triton has that type for some GPU generations only."""
    return weight.view(torch.uint8) if weight.dtype == torch.float8_e4m3fn else weight


def multiprocessors(device: torch.device) -> int:
    """How many programs run at once, at least."""
    if device.type != "cuda":
        return PRETENDED_MULTIPROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count

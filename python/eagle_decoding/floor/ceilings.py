"""What a machine can do at most, measured: bytes a second of a copy and of a read, operations a second of a product."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

COPY_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}  # a call's worth; far more than private caches hold
MATMUL_SIZE = {"cpu": 1536, "cuda": 8192}


@dataclass(frozen=True)
class Ceilings:
    """Upper bounds that kernels are measured against.

    threads:          of the CPU while measuring
    copy_bandwidth:   bytes a second, read and written
    read_bandwidth:   bytes a second of a sum
    flops_per_second: of a square matrix product in `dtype` or in float32, whichever is faster on small ones: not every
                      CPU has units for the short types, and kernels may compute in float32
    """

    threads: int
    dtype: str
    copy_bandwidth: float
    read_bandwidth: float
    flops_per_second: float

    @property
    def bandwidth(self) -> float:
        """The better of the two: a write costs a CPU more than a read."""
        return max(self.copy_bandwidth, self.read_bandwidth)

    def floor(self, num_bytes: float, flops: float) -> float:
        """Seconds that nothing on this machine can beat: max(bytes / bandwidth, flops / peak)."""
        return max(num_bytes / self.bandwidth, flops / self.flops_per_second)


def measure_ceilings(dtype: torch.dtype, device: str, repeats: int = 7) -> Ceilings:
    """Runs a copy, a sum and matrix products with torch's current number of threads; about two seconds on a CPU."""
    source, target = (torch.ones(COPY_BYTES[device] // 4, dtype=torch.float32, device=device) for _ in range(2))
    size = MATMUL_SIZE[device]

    def product_seconds(kind: torch.dtype, size: int) -> float:
        return best_seconds(matrix_product(size, kind, device), device, repeats)

    faster = min({dtype, torch.float32}, key=lambda kind: product_seconds(kind, size // 8))
    return Ceilings(
        threads=torch.get_num_threads(),
        dtype=str(dtype).removeprefix("torch."),
        copy_bandwidth=2 * source.nbytes / best_seconds(lambda: target.copy_(source), device, repeats),
        read_bandwidth=source.nbytes / best_seconds(lambda: source.sum(), device, repeats),
        flops_per_second=2 * size**3 / product_seconds(faster, size),
    )


def matrix_product(size: int, dtype: torch.dtype, device: str) -> Callable[[], object]:
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product = torch.empty(size, size, dtype=dtype, device=device)
    return lambda: torch.mm(left, right, out=product)


def best_seconds(call: Callable[[], object], device: str, repeats: int) -> float:
    """Median of the faster half: a ceiling is what the machine reaches undisturbed, and not once by luck."""
    timed = seconds_on_host if device == "cpu" else seconds_on_gpu
    times = [timed(call) for _ in range(repeats + 1)]
    faster = sorted(times[1:])[: repeats // 2 + 1]
    return statistics.median(faster)


def seconds_on_host(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def hold() -> None:
    """Keeps an idle GPU busy for about a quarter of a millisecond, so that what is handed over next waits for the GPU
    and not the GPU for the host."""
    torch.cuda._sleep(500_000)  # cycles


def seconds_on_gpu(call: Callable[[], object]) -> float:
    """Without launch and synchronisation, which would lower a ceiling and so flatter what is measured against it."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    hold()
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000

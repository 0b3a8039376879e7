"""The CUDA kernels on the CPU: builds them with the C++ compiler against cuda_runtime.h here, calls them on tensors."""

import ctypes
import fcntl
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
# -O2 gives wrong results: the compiler does not know that a barrier lets other threads write shared memory.
FLAGS = ["-std=c++20", "-O1", "-fPIC", "-MMD", "-ffp-contract=off", "-Wno-unknown-pragmas"]
FLAGS += ["-fno-omit-frame-pointer", f"-I{HERE}", f"-I{CSRC}"]  # the frames tell where a thread is


@dataclass(frozen=True)
class Machine:
    """What runs the kernels.

    library: the launchers of harness.cpp and products.cpp, set_device, set_code_version and warpgroup_products
    expose: is told before each call of the tensors that kernels may touch
    """

    library: Callable[[], ctypes.CDLL]
    expose: Callable[[Iterable[Tensor]], None]


@contextmanager
def running_on(machine: Machine) -> Iterator[None]:
    """Calls go to this machine in place of the emulation."""
    _machines.append(machine)
    try:
        yield
    finally:
        _machines.pop()


def library() -> ctypes.CDLL:
    """That of the machine in use."""
    return _machines[-1].library()


@cache
def emulation() -> ctypes.CDLL:
    """Compiles what has changed since the last time, into build/cuda_emulation."""
    build = HERE.parents[1] / "build" / "cuda_emulation"
    shared = build / "libcuda_emulation.so"
    with alone_in(build):
        compiled = objects([*CSRC.glob("cuda/*.cu"), *HERE.glob("*.cpp")], build)
        newest = max(path.stat().st_mtime for path in compiled)
        if not shared.exists() or shared.stat().st_mtime < newest:
            run("-shared", "-o", shared, *compiled)
    return ctypes.CDLL(str(shared))


_machines = [Machine(emulation, lambda tensors: None)]


@contextmanager
def alone_in(build: Path) -> Iterator[None]:
    """Other processes wait meanwhile: they would write the same files."""
    build.mkdir(parents=True, exist_ok=True)
    with (build / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def objects(sources: list[Path], build: Path, *flags: str) -> list[Path]:
    """Compiles what has changed since the last time, a file for each source."""
    build.mkdir(parents=True, exist_ok=True)
    compiled = {source: build / f"{source.stem}.o" for source in sources}
    stale = [source for source in sources if is_stale(compiled[source])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda source: run(*FLAGS, *flags, "-x", "c++", "-c", source, "-o", compiled[source]), stale))
    return list(compiled.values())


def run(*arguments: str | Path) -> None:
    """Runs the C++ compiler."""
    subprocess.run([os.environ.get("CXX", "c++"), *arguments], check=True)


def is_stale(object_file: Path) -> bool:
    """Whether it was never compiled, or before its source or a header that the compiler has listed (-MMD) changed."""
    listed = object_file.with_suffix(".d")
    if not object_file.exists() or not listed.exists():
        return True
    prerequisites = listed.read_text().split(":", 1)[1].replace("\\\n", " ").split()
    return any(not os.path.exists(p) or os.path.getmtime(p) > object_file.stat().st_mtime for p in prerequisites)


@contextmanager
def code_for(version: int) -> Iterator[None]:
    """Kernels as compiled for a compute capability times 10; those for less than 90 have no clusters."""
    library().set_code_version(version)
    try:
        yield
    finally:
        library().set_code_version(90)


def call(op: str, *arguments: Tensor | ctypes.Array | int | None, reaches: Sequence[Tensor] = ()) -> None:
    """Calls a function of harness.cpp. Raises RuntimeError with its message.

    arguments: tensors as pointers, numbers as int64, arrays that only the launcher reads
    reaches: tensors whose addresses are among the numbers
    """
    function = getattr(library(), op)
    _machines[-1].expose([*(a for a in arguments if isinstance(a, Tensor)), *reaches])
    function.restype = ctypes.c_char_p
    error = function(*(_argument(a) for a in arguments))
    if error is not None:
        raise RuntimeError(f"{op}: {error.decode()}")


def host_array(numbers: Iterable[int]) -> ctypes.Array:
    """int64 numbers for the launcher alone."""
    numbers = list(numbers)
    return (ctypes.c_int64 * len(numbers))(*numbers)


def _argument(value: Tensor | ctypes.Array | int | None) -> ctypes.c_void_p | ctypes.c_int64 | ctypes.Array:
    if isinstance(value, ctypes.Array):
        return value
    if value is None or isinstance(value, Tensor):
        return ctypes.c_void_p(None if value is None else value.data_ptr())
    return ctypes.c_int64(value)


def _int32(*shape: int) -> Tensor:
    return torch.full(shape, -(2**31), dtype=torch.int32)  # poisoned: an entry that is not written shows


def topk_logprobs(logits: Tensor, k: int, d2t: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    rows, vocabulary = logits.shape
    outputs = torch.full((rows, k), torch.nan), _int32(rows, k), torch.zeros(rows, dtype=torch.bool)
    call("topk_logprobs", *outputs, logits, DTYPES[logits.dtype], logits.stride(0), d2t, rows, vocabulary, k)
    return outputs


def sample_tokens(logits: Tensor, position_ids: Tensor, seed: Tensor, *filters: Tensor) -> Tensor:
    token_ids = _int32(*logits.shape[:2])
    call("sample_tokens", token_ids, *_logits(logits), position_ids, seed, *filters, *logits.shape)
    return token_ids


def sample_children(*arguments: Tensor | int | None) -> tuple[Tensor, Tensor]:
    logits, *tensors, max_children, d2t = arguments
    shape = *tensors[0].shape, max_children
    outputs = _int32(*shape), torch.full(shape, torch.nan)
    call("sample_children", *outputs, *_logits(logits), *tensors, d2t, *logits.shape, max_children)
    return outputs


def verify_rejection(*arguments: Tensor | int | bool | None) -> tuple[Tensor, Tensor, Tensor]:
    target, draft, *tensors, d2t, max_depth, traversal = arguments
    batch = target.shape[0]
    outputs = _int32(batch, max_depth + 1), _int32(batch), _int32(batch)
    sizes = *target.shape, draft.shape[2], max_depth, int(traversal)
    call("verify_rejection", *outputs, *_logits(target), *_logits(draft), *tensors, d2t, *sizes)
    return outputs


def _logits(logits: Tensor) -> tuple[Tensor, int, int, int]:
    """The fields of LogitsView."""
    return logits, DTYPES[logits.dtype], logits.stride(0), logits.stride(1)


def gumbel_noise(seed: Tensor, position_ids: Tensor, num_tokens: int, stream: int) -> Tensor:
    noise = torch.full((*position_ids.shape, num_tokens), torch.nan)
    call("gumbel_noise", noise, seed, position_ids, *noise.shape, stream)
    return noise


def verify_tree(
    draft_tokens: Tensor, parent: Tensor, target_tokens: Tensor, max_depth: int
) -> tuple[Tensor, Tensor, Tensor]:
    batch, num_nodes = draft_tokens.shape
    outputs = _int32(batch, max_depth + 1), _int32(batch), _int32(batch)
    call("verify_tree", *outputs, draft_tokens, parent, target_tokens, batch, num_nodes, max_depth)
    return outputs


def expand_tree(*arguments: Tensor | int) -> tuple[Tensor, ...]:
    *tensors, slot_offset, row_offset = arguments
    frontier_mask, logprobs, node_scores = tensors[2], tensors[3], tensors[5]
    batch, frontier, branching = logprobs.shape
    words, slots = frontier_mask.shape[2], node_scores.shape[1]
    next_mask = torch.zeros(batch, branching, words, dtype=torch.int64)
    outputs = torch.full((batch, branching), torch.nan), *(_int32(batch, branching) for _ in range(3)), next_mask
    call("expand_tree", *tensors, *outputs, batch, frontier, branching, words, slots, slot_offset, row_offset)
    return outputs


def build_tree(*arguments: Tensor | int) -> tuple[Tensor, ...]:
    *history, num_nodes = arguments
    batch, slots = history[0].shape
    words = (num_nodes + 63) // 64
    draft_tokens, parent, depth, position_ids, node_slots = (_int32(batch, num_nodes) for _ in range(5))
    ancestor_mask = torch.full((batch, num_nodes, words), -1, dtype=torch.int64)
    outputs = draft_tokens, parent, depth, position_ids, ancestor_mask, node_slots
    call("build_tree", *history, *outputs, batch, slots, num_nodes, words)
    return outputs


def commit_step(*arguments: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draft_tokens, accept_index, _, _, hidden, _ = arguments
    batch, path_length = accept_index.shape
    next_hidden = torch.full((batch, path_length, hidden.shape[2]), torch.nan, dtype=hidden.dtype)
    outputs = _int32(batch, path_length), next_hidden, _int32(batch, path_length), _int32(batch)
    item = hidden.element_size()
    sizes = batch, draft_tokens.shape[1], path_length, hidden.shape[2] * item
    call("commit_step", *arguments, *outputs, *sizes, hidden.stride(0) * item, hidden.stride(1) * item)
    return outputs


def page_fields(cache: Tensor, page_table: Tensor | None) -> tuple[Tensor | None, int, int, int]:
    """The arguments of make_page_table."""
    return page_table, 1 if page_table is None else page_table.shape[1], cache.shape[0], cache.shape[2]


def compact_kv(
    caches: list[Tensor],
    accept_index: Tensor,
    accept_length: Tensor,
    context_len: Tensor,
    page_table: Tensor | None = None,
) -> None:
    views = host_array(field for cache in caches for field in _cache_view(cache))
    path = accept_index, accept_length, context_len
    sizes = len(caches), *accept_index.shape
    call("compact_kv", views, *path, *page_fields(caches[0], page_table), *sizes, reaches=caches)


def write_kv(
    key_states: Tensor,
    value_states: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    cache_rows: Tensor,
    page_table: Tensor | None = None,
) -> None:
    tensors = key_states, value_states, key_cache, value_cache
    states = host_array(field for t in tensors[:2] for field in _states_view(t))
    views = host_array(field for t in tensors[2:] for field in _cache_view(t))
    pages = page_fields(key_cache, page_table)
    call("write_kv", states, views, cache_rows, *pages, *cache_rows.shape, reaches=tensors)


def _states_view(states: Tensor) -> list[int]:
    """The fields of KvStatesView."""
    return [states.data_ptr(), *(stride * states.element_size() for stride in states.stride()[:3])]


def _cache_view(cache: Tensor) -> list[int]:
    """The fields of KvCacheView."""
    item = cache.element_size()
    strides = [stride * item for stride in cache.stride()[:3]]
    return [cache.data_ptr(), cache.shape[1], cache.shape[2], cache.shape[3] * item, *strides]


OPS: dict[str, Callable[..., object]] = {
    op.__name__: op
    for op in (
        build_tree,
        commit_step,
        compact_kv,
        expand_tree,
        gumbel_noise,
        sample_children,
        sample_tokens,
        topk_logprobs,
        verify_rejection,
        verify_tree,
        write_kv,
    )
}

"""The PTX of the CUDA kernels on the CPU: compiles them with nvcc, the machine with the C++ compiler; see machine.h."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from cuda_emulation import emulated
from torch import Tensor

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "ptx_machine"
# The PTX as text in the object, beside the launch code that nvcc makes of a launch.
CODE = [*(f"-gencode=arch=compute_{a},code=compute_{a}" for a in ("80", "90a")), "--no-compress", "-lineinfo"]
FLAGS = ["-std=c++20", "-O2", "-march=native", "-ffp-contract=off", "-fvisibility=hidden", "-fPIC", "-MMD"]


def find_nvcc() -> Path | None:
    """The compiler that setup.py would take."""
    home = os.environ.get("CUDA_HOME")
    found = str(Path(home, "bin", "nvcc")) if home else shutil.which("nvcc")
    return Path(found) if found and Path(found).exists() else None


@cache
def library() -> ctypes.CDLL:
    """Compiles what has changed since the last time, into build/ptx_machine."""
    runtime, shared = HERE / "runtime.cpp", BUILD / "libptx_machine.so"
    with emulated.alone_in(BUILD):
        compiled = objects(
            machine=sorted({*HERE.glob("*.cpp")} - {runtime}),
            launchers=[runtime, emulated.HERE / "harness.cpp", emulated.HERE / "products.cpp"],
            kernels=[*emulated.CSRC.glob("cuda/*.cu"), emulated.HERE / "mistakes.cpp", *HERE.glob("*.cu")],
        )
        if not shared.exists() or shared.stat().st_mtime < max(path.stat().st_mtime for path in compiled):
            emulated.run("-shared", "-Wl,-Bsymbolic", "-o", shared, *compiled)
    return ctypes.CDLL(str(shared))


def objects(machine: list[Path], launchers: list[Path], kernels: list[Path]) -> list[Path]:
    """Compiles what has changed since the last time, a file for each source."""
    nvcc = find_nvcc()
    host = [os.environ.get("CXX", "c++"), *FLAGS]
    device = [nvcc, *CODE, "-std=c++20", "-MMD", "-Xcompiler=-fPIC", f"-I{emulated.CSRC}"]
    commands = {BUILD / f"{path.stem}.o": [*host, "-c", path] for path in machine}
    commands |= {BUILD / f"{path.stem}.nvcc.o": [*device, "-c", path] for path in launchers}
    commands |= {BUILD / f"{path.stem}.cu.o": [*device, "-x=cu", "-c", path] for path in kernels}
    stale = [path for path in commands if emulated.is_stale(path)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda path: subprocess.run([*commands[path], "-o", path], check=True), stale))
    return list(commands)


def expose(tensors: Iterable[Tensor]) -> None:
    """Makes the elements of these tensors, and what lies between them, the GPU's memory."""
    library().forget_memory()
    for tensor in tensors:
        if tensor.numel() > 0:
            last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            extent = (last + 1) * tensor.element_size()
            library().add_memory(ctypes.c_void_p(tensor.data_ptr()), ctypes.c_int64(extent))


def never_executed() -> list[str]:
    """The kernels, by name and template arguments, of which no launch has come to its end in this process."""
    ask = library().never_executed
    ask.restype = ctypes.c_char_p
    return sorted(ask().decode().splitlines())


PTX_MACHINE = emulated.Machine(library, expose)

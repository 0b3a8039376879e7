"""Runs the GPU tests without a GPU: python tests/pretended_gpu [pytest's arguments], or a module: [-m module ...].

torch's CUDA backend works on a runtime that keeps device memory in the host's (runtime.cpp), torch's own operations are
done by the CPU (operations.py), the ops' kernels by the emulation of tests/cuda_emulation. What is tested is all that
lies between them: devices, streams, memory and its lifetime, capture and replay. Triton's kernels are left out.

Needs a torch that was built with CUDA and the extension with CUDA kernels, for any architecture.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import torch
from torch.utils.cpp_extension import library_paths

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "pretended_gpu"
TESTS = "cuda and not emulation and not triton and not exact_bits"  # the exact bits are Triton's too
RUN_MODULE = """import runpy, sys, pretended_gpu.operations
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)"""


def build() -> Path:
    """Compiles what has changed; returns the extension with emulated kernels."""
    from cuda_emulation import emulated

    BUILD.mkdir(parents=True, exist_ok=True)
    configured = ROOT / "build" / "cmake" / "CMakeCache.txt"
    host_objects = sorted((ROOT / "build" / f"objects-{sys.implementation.cache_tag}").rglob("*.o"))
    if torch.version.cuda is None or not configured.exists() or not host_objects:
        sys.exit(
            "A pretended GPU needs a torch built with CUDA (a wheel from PyPI) and the extension: install the one, "
            "then run `EAGLE_BUILD_CUDA=1 python setup.py build_ext --inplace`."
        )
    nvcc = Path(re.search(r"CMAKE_CUDA_COMPILER:\w+=(.*)", configured.read_text())[1])
    shared = ["-std=c++20", "-O1", "-fPIC", "-shared", f"-I{nvcc.parents[1] / 'include'}"]
    emulated.run(*shared, HERE / "runtime.cpp", "-o", BUILD / "libpretended.so")
    emulated.run(*shared, HERE / "driver.cpp", "-Wl,-soname,libcuda.so.1", "-o", BUILD / "libcuda.so.1")
    kernels = emulated.objects(
        [*emulated.CSRC.glob("cuda/*.cu"), emulated.HERE / "fibers.cpp"],
        BUILD,
        "-DCUDA_EMULATION_IN_ORDER",
        "-DCUDA_EMULATION_COMPUTE_CAPABILITY_MAJOR=9",
        "-fvisibility=hidden",
    )
    extension = BUILD / "_C.so"
    libraries = [*(f"-L{path}" for path in (*library_paths(), BUILD)), "-lpretended", "-Wl,--no-as-needed", "-ltorch"]
    emulated.run("-shared", *host_objects, *kernels, *libraries, "-o", extension)
    return extension


def main() -> None:
    sys.path.insert(0, str(HERE.parent))
    environment = {
        **os.environ,
        "PRETENDED_GPU_EXTENSION": str(build()),
        "OMP_NUM_THREADS": "1",  # waiting threads would take the emulation's processors
        "LD_PRELOAD": str(BUILD / "libpretended.so"),
        "LD_LIBRARY_PATH": str(BUILD),
        "PYTHONPATH": os.pathsep.join(map(str, (HERE.parent, ROOT, ROOT / "python"))),
    }
    if sys.argv[1:2] == ["-m"]:
        command = ["-c", RUN_MODULE, *sys.argv[2:]]
    else:
        command = ["-m", "pytest", "-p", "pretended_gpu.operations", "-k", TESTS, *sys.argv[1:]]
    sys.exit(subprocess.run([sys.executable, *command], cwd=ROOT, env=environment).returncode)


if __name__ == "__main__":
    main()

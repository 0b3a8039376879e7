"""Builds the extension: CMake compiles the CUDA kernels when nvcc is there, torch's builder the C++ around them.

EAGLE_BUILD_CUDA=1 insists on CUDA kernels, =0 leaves them out; unset builds them when nvcc is found.
EAGLE_CUDA_ARCHS narrows the list of architectures, for example "90a-real"; unset builds those of CMakeLists.txt that
nvcc knows. A kernel that spills registers ends the build; with EAGLE_ALLOW_SPILLS=1, for an nvcc that allocates them
otherwise, it is only a warning.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pybind11
from setuptools import find_packages, setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

ROOT = Path(__file__).resolve().parent  # ninja needs absolute include paths
CMAKE_BUILD = ROOT / "build" / "cmake"
TORCH_2_10 = "0x020a000000000000"  # oldest torch that the built extension loads into


class Cuda(NamedTuple):
    """A CUDA toolkit as its nvcc describes it: an installer's, conda's and pip's lie in folders of different names."""

    nvcc: Path
    library_paths: list[str]  # -L options


def find_cuda() -> Cuda | None:
    """Returns the CUDA toolkit, or None for a build without CUDA kernels."""
    wanted = os.environ.get("EAGLE_BUILD_CUDA")
    if wanted == "0":
        return None
    home = os.environ.get("CUDA_HOME")
    nvcc = str(Path(home, "bin", "nvcc")) if home else shutil.which("nvcc")
    if nvcc is None or not Path(nvcc).exists():
        if wanted == "1":
            sys.exit(
                "EAGLE_BUILD_CUDA=1 asks for CUDA kernels but nvcc was not found: put it on PATH or set CUDA_HOME."
            )
        return None
    # Ask nvcc itself: the one on PATH may be a wrapper script.
    dry_run = subprocess.run([nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True).stderr
    told = dict(re.findall(r"^#\$ (TOP|LIBRARIES)=(.*)", dry_run, re.MULTILINE))
    if len(told) < 2:
        what = dry_run.strip().splitlines()[-1:] or ["it says nothing"]
        sys.exit(f"{nvcc} does not work ({what[0]}): mend it, or set EAGLE_BUILD_CUDA=0 to build without CUDA kernels.")
    return Cuda(Path(told["TOP"]).resolve() / "bin" / "nvcc", shlex.split(told["LIBRARIES"]))


def architectures(nvcc: Path) -> str:
    """What EAGLE_CUDA_ARCHS says, or what CMakeLists.txt lists and this nvcc can compile for."""
    if wanted := os.environ.get("EAGLE_CUDA_ARCHS"):
        return wanted
    known = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout.split()
    listed = re.search(r'CMAKE_CUDA_ARCHITECTURES "([^"]+)"', (ROOT / "CMakeLists.txt").read_text())[1].split(";")
    found = [name for name in listed if f"compute_{re.match('[0-9]+', name)[0]}" in known]
    if not found:
        sys.exit(f"{nvcc} knows none of {', '.join(listed)}: use CUDA 12.8 or newer, or set EAGLE_CUDA_ARCHS.")
    return ";".join(found)


CUDA = find_cuda()


class Build(BuildExtension):
    """Builds the CUDA kernels with CMake first, then the torch-facing C++ with torch's own builder."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # One folder of objects for every kind of build: an in-place build after pip's editable one has nothing to do.
        self.build_temp = str(ROOT / "build" / f"objects-{sys.implementation.cache_tag}")

    def build_extensions(self) -> None:
        built = "no CUDA kernels"
        if CUDA:
            chosen = architectures(CUDA.nvcc)
            self.build_cuda_kernels(CUDA.nvcc, chosen)
            built = f"CUDA kernels for {chosen}"
        super().build_extensions()
        print(f"eagle_kernels: built C++ kernels and {built}.")

    def build_cuda_kernels(self, nvcc: Path, architectures: str) -> None:
        cache = CMAKE_BUILD / "CMakeCache.txt"
        if cache.exists() and f"CMAKE_HOME_DIRECTORY:INTERNAL={ROOT}\n" not in cache.read_text():
            shutil.rmtree(CMAKE_BUILD)  # it came with a copied checkout, and CMake would refuse it
        configure = ["cmake", "-S", ROOT, "-B", CMAKE_BUILD, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"]
        configure.append(f"-DCMAKE_CUDA_COMPILER={nvcc}")
        configure.append(f"-DCMAKE_CUDA_ARCHITECTURES={architectures}")
        subprocess.check_call(configure)
        subprocess.check_call(["cmake", "--build", CMAKE_BUILD])


def cpp_files(folder: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc" / folder).glob("*.cpp"))


extension = CppExtension(
    "eagle_kernels._C",
    cpp_files(".") + cpp_files("ops") + cpp_files("cpu"),
    include_dirs=[str(ROOT / "csrc"), pybind11.get_include()],
    define_macros=[("TORCH_TARGET_VERSION", TORCH_2_10)] + ([("EAGLE_WITH_CUDA", None)] if CUDA else []),
    extra_compile_args=["-O3", "-g0", "-std=c++20", "-fvisibility=hidden", "-Wno-psabi"],  # Python's own flags have -g
    extra_objects=[str(CMAKE_BUILD / "libeagle_cuda.a")] if CUDA else [],
    extra_link_args=["-Wl,--no-as-needed", "-ltorch"]
    + ([*CUDA.library_paths, "-lcudart_static", "-lrt", "-ldl", "-lpthread"] if CUDA else []),
)

setup(
    package_dir={"eagle_kernels": "eagle_kernels", "eagle_decoding": "python/eagle_decoding"},
    packages=find_packages(".", include=["eagle_kernels*"]) + find_packages("python"),
    package_data={"eagle_decoding": ["**/*.yaml"]},
    ext_modules=[extension],
    cmdclass={"build_ext": Build},
)

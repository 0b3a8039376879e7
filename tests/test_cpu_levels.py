"""The CPU kernels that older processors run: the build's objects, linked to a processor of a lower level.

Which of its function clones a library runs depends on what libgcc says of the processor; cpu_level.cpp takes its place.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compare import assert_bitwise
from cuda_emulation import emulated
from torch import Tensor
from torch.utils.cpp_extension import library_paths

import eagle_kernels
from eagle_decoding.numerics.audit import SIZES
from eagle_decoding.numerics.cases import op_inputs
from eagle_kernels.library import _C

LANES = {"baseline": 4, "avx2": 8, "avx512": 16, "avx512_bf16": 16}
LEVELS = {"baseline": "x86-64", "avx2": "x86-64-v3", "avx512": "x86-64-v4"}  # as GCC names them
OWN = eagle_kernels.info()["cpu_kernels"]  # what all other tests run
LOWER = list(LEVELS)[: list(LANES).index(OWN)]
ROOT = Path(__file__).resolve().parents[1]
OBJECTS = sorted((ROOT / "build" / f"objects-{sys.implementation.cache_tag}").rglob("*.o"))
VECTOR_CODE = [path.stem for path in sorted(ROOT.glob("csrc/cpu/*.cpp")) if '#include "cpu/' in path.read_text()]
TESTS = [ROOT / "tests" / f"test_{name}.py" for name in (*VECTOR_CODE, "fp8", "exact_bits", "decode_bitwise")]


def lanes() -> int:
    """Of the vectors in products: a lane that holds 2^24 swallows the ones that are added to it."""
    weight = torch.zeros(2, 32)
    weight[:, 0] = 2**24
    weight[0, [4, 12]] = 1  # swallowed where there are four lanes
    weight[1, [8, 24]] = 1  # where there are four or eight
    return 4 << int((eagle_kernels.linear(torch.ones(1, 32), weight) > 2**24).sum())


def outputs() -> dict[str, list[Tensor]]:
    """Of the ops whose bits do not depend on the processor."""
    inputs = op_inputs(SIZES, torch.float32, "cpu")
    ops = ["gumbel_noise", "rope", "sample_children", "sample_tokens", "topk_logprobs", "verify_rejection"]
    results = {op: getattr(eagle_kernels, op)(*inputs[op]) for op in ops}
    return {op: [result] if isinstance(result, Tensor) else list(result) for op, result in results.items()}


@pytest.fixture(scope="module", params=LOWER)
def level(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as a processor of that level runs it."""
    if not OBJECTS:
        pytest.skip("needs the objects of a build: python setup.py build_ext --inplace")
    folder = tmp_path_factory.mktemp(request.param, numbered=False)
    package = shutil.copytree(Path(eagle_kernels.__file__).parent, folder / "eagle_kernels")
    sources = [f'-DLEVEL="{LEVELS[request.param]}"', ROOT / "tests" / "cpu_level.cpp", *OBJECTS]
    libraries = [*(f"-L{path}" for path in library_paths()), "-Wl,--no-as-needed", "-ltorch", "-Wl,-z,lazy"]
    library = package / Path(_C.__file__).name
    emulated.run("-shared", "-fPIC", "-fvisibility=hidden", *sources, *libraries, "-o", library)
    return folder


def run(level: Path, code: str, *arguments: str | Path) -> str:
    """Runs Python code on the package of a level; returns what it printed."""
    code = f"import os, sys; sys.setdlopenflags(os.RTLD_LAZY); {code}"  # the CUDA kernels are not there
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code, *arguments]  # modules come from the working directory first
    done = subprocess.run(command, cwd=level, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_level_is_the_one_that_runs(level):
    code = "import eagle_kernels, test_cpu_levels; print(test_cpu_levels.lanes(), eagle_kernels.info()['cpu_kernels'])"
    assert run(level, code).split() == [str(LANES[level.name]), level.name]
    assert lanes() == LANES[OWN]


def test_ops(level):
    code = "import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    run(level, code, *filter(Path.exists, TESTS), "-p", "no:cacheprovider", "-k", "not triton and not long_contexts")


def test_bits_that_do_not_depend_on_the_processor(level):
    run(level, "import test_cpu_levels, torch; torch.save(test_cpu_levels.outputs(), 'outputs')")
    there = torch.load(level / "outputs")
    for op, tensors in outputs().items():
        for i, (actual, expected) in enumerate(zip(there[op], tensors, strict=True)):
            assert_bitwise(actual, expected, f"{op}: tensor {i}")

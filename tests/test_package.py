"""The package as installed and as built: names, import costs, and what is said when something is missing."""

import importlib
import importlib.metadata
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import eagle_kernels
from eagle_kernels import library

ROOT = Path(__file__).resolve().parent.parent


def test_metadata_names_the_command():
    commands = importlib.metadata.entry_points(group="console_scripts", name="eagle-decoding")
    assert [command.value for command in commands] == ["eagle_decoding.cli:app"]
    assert importlib.metadata.version("eagle-kernels")


def test_importing_the_kernels_does_not_import_transformers():
    code = "import sys, eagle_kernels; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_help_needs_no_torch():
    code = "import sys, eagle_decoding.cli; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_decoding_offers_its_names():
    import eagle_decoding

    assert all(getattr(eagle_decoding, name).__name__ == name for name in eagle_decoding.__all__)
    assert set(eagle_decoding.__all__) <= set(dir(eagle_decoding))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = eagle_decoding.nothing


def test_info_tells_what_was_built():
    facts = eagle_kernels.info()
    assert facts["torch"] == torch.__version__
    assert isinstance(facts["cuda_kernels"], bool)
    assert facts["cpu_kernels"] in ("avx512_bf16", "avx512", "avx2", "baseline")


def test_an_old_torch_is_named(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(ImportError, match=r"needs torch >= 2\.10 but found 2\.9\.1\+cpu: upgrade torch"):
        library.load()


@pytest.mark.parametrize(
    ("raised", "sentence"),
    [
        (ModuleNotFoundError("No module named 'eagle_kernels._C'"), "library of eagle_kernels is missing: build it"),
        (
            ImportError("undefined symbol: aoti_torch"),
            "does not load into torch .*: undefined symbol: aoti_torch. Rebuild",
        ),
    ],
)
def test_a_library_that_does_not_load_is_explained(monkeypatch, raised, sentence):
    def fail(name: str) -> None:
        raise raised

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ImportError, match=sentence):
        library.load()


def test_insisting_on_cuda_without_nvcc_is_an_error(tmp_path):
    environment = {"EAGLE_BUILD_CUDA": "1", "PATH": str(tmp_path), "HOME": str(tmp_path)}
    build = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert build.returncode != 0
    assert "EAGLE_BUILD_CUDA=1 asks for CUDA kernels but nvcc was not found" in build.stderr


@pytest.mark.parametrize("folder", ["lib64", "lib", "targets/x86_64-linux/lib"])  # of an installer, of pip, of conda
def test_the_cuda_runtime_is_linked_from_where_nvcc_has_it(tmp_path, monkeypatch, folder):
    nvcc = tmp_path / "the toolkit" / "bin" / "nvcc"
    top, library = f"{nvcc.parent}/..", nvcc.parents[1] / folder / "libcudart_static.a"
    for file in (nvcc, library):
        file.parent.mkdir(parents=True)
        file.touch()
    told = f'#$ _SPACE_= \n#$ TOP={top}\n#$ LIBRARIES=  "-L{top}/{folder}/stubs" "-L{top}/{folder}"\n#$ gcc -m64 x.o'
    nvcc.write_text(f"#!/bin/sh\ncat >&2 <<END\n{told}\nEND\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(nvcc.parents[1]))
    monkeypatch.delenv("EAGLE_BUILD_CUDA", raising=False)
    monkeypatch.setattr("setuptools.setup", lambda **arguments: None)
    monkeypatch.chdir(ROOT)
    link = runpy.run_path("setup.py")["extension"].extra_link_args
    searched = [Path(option[2:], library.name) for option in link if option.startswith("-L")]
    assert any(path.is_file() for path in searched)


def fake_nvcc(folder: Path, script: str) -> Path:
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(f"#!/bin/sh\n{script}\n")
    nvcc.chmod(0o755)
    return nvcc


def test_an_nvcc_that_does_not_work_is_named(tmp_path, monkeypatch):
    fake_nvcc(tmp_path, "echo 'nvcc fatal: no host compiler' >&2; exit 1")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("EAGLE_BUILD_CUDA", raising=False)
    with pytest.raises(SystemExit, match=r"does not work \(nvcc fatal: no host compiler\): .*EAGLE_BUILD_CUDA=0"):
        runpy.run_path(str(ROOT / "setup.py"))


def test_only_architectures_that_nvcc_knows_are_built(tmp_path, monkeypatch):
    monkeypatch.setenv("EAGLE_BUILD_CUDA", "0")
    monkeypatch.setattr("setuptools.setup", lambda **arguments: None)
    monkeypatch.chdir(ROOT)
    architectures = runpy.run_path("setup.py")["architectures"]
    nvcc = fake_nvcc(tmp_path, "echo compute_80; echo compute_90")
    monkeypatch.setenv("EAGLE_CUDA_ARCHS", "75")
    assert architectures(nvcc) == "75"
    monkeypatch.delenv("EAGLE_CUDA_ARCHS")
    assert architectures(nvcc) == "80-real;90a-real"
    nvcc.write_text("#!/bin/sh\necho compute_50\n")
    with pytest.raises(SystemExit, match="knows none of 80-real, 90a-real"):
        architectures(nvcc)


def test_the_folder_of_a_copied_checkout_is_made_anew(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setenv("EAGLE_BUILD_CUDA", "0")
    monkeypatch.setattr("setuptools.setup", lambda **arguments: None)
    monkeypatch.setattr(subprocess, "check_call", commands.append)
    shutil.copy(ROOT / "setup.py", tmp_path)
    script = runpy.run_path(str(tmp_path / "setup.py"))
    cache = script["CMAKE_BUILD"] / "CMakeCache.txt"
    for home, stays in ((tmp_path, True), (tmp_path / "elsewhere", False)):
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(f"CMAKE_HOME_DIRECTORY:INTERNAL={home}\n")
        script["Build"].build_cuda_kernels(None, Path("nvcc"), "90a-real")
        assert cache.exists() == stays
        assert "-DCMAKE_CUDA_ARCHITECTURES=90a-real" in commands[-2]

"""The layout of the source: one stem per op in every folder, short files, layers that look only downwards."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import eagle_kernels
from eagle_decoding.numerics.audit import SIZES
from eagle_decoding.numerics.cases import op_inputs

ROOT = Path(__file__).resolve().parent.parent
OPS = sorted(
    set(eagle_kernels.__all__) - {"BACKENDS", "backend_in_use", "can_run", "info", "quantize_fp8", "use_backend"}
)
FOLDERS = ("csrc", "eagle_kernels", "python", "tests", "bench")
SUFFIXES = (".py", ".cpp", ".h", ".cu", ".cuh")
MAX_LINES = 400

PAGES = sorted(
    path.relative_to(ROOT)
    for place in ("*.md", "docs/**/*.md", "heads/*/*.md", "bench/**/*.md")
    for path in ROOT.glob(place)
)

# What the files of a C++ folder may include, by the first part of the path; only ops and binding.cpp know torch.
INCLUDES = {
    "common": ("common",),
    "cpu": ("common", "cpu"),
    "cuda": ("common", "cuda"),
    "ops": ("common", "ops"),
}
TORCH = re.compile(r"^(torch|ATen|c10|pybind11|Python\.h)")


def sources() -> list[Path]:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    return sorted(files) + [ROOT / name for name in ("setup.py", "CMakeLists.txt", "Makefile", ".ci/run")]


def anchors(page: Path) -> set[str]:
    """What GitHub calls a page's headings in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(), re.MULTILINE)


def imports(path: Path) -> Iterator[str]:
    """Dotted names of every module that a file imports, at any depth; `from a import b` yields a and a.b."""
    package = path.relative_to(ROOT).with_suffix("").parts
    package = package[1:] if package[0] == "python" else package
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: -node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def violations(folder: str, *forbidden: str) -> list[str]:
    """Imports under `folder` of a forbidden module or of what lies inside one."""
    return [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / folder).rglob("*.py")
        for name in imports(path)
        if any(name == module or name.startswith(module + ".") for module in forbidden)
    ]


@pytest.mark.parametrize("op", OPS)
def test_an_op_has_its_file_in_every_folder(op):
    expected = [
        f"csrc/cpu/{op}.cpp",
        f"csrc/cuda/{op}.cu",
        f"csrc/ops/{op}.cpp",
        f"eagle_kernels/{op}.py",
        f"eagle_kernels/reference/{op}.py",
        f"eagle_kernels/triton/{op}.py",
        f"tests/test_{op}.py",
        f"bench/bench_{op}.py",
    ]
    assert [name for name in expected if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("op", OPS)
def test_an_op_is_registered_faked_and_opchecked(op):
    binding = (ROOT / "csrc/binding.cpp").read_text()
    assert f'm.def("{op}(' in binding
    assert binding.count(f'm.impl("{op}", TORCH_BOX(&eagle::ops::{op}))') == 2  # CPU and CUDA
    assert f'register_fake("eagle_kernels::{op}")' in (ROOT / f"eagle_kernels/{op}.py").read_text()
    test = (ROOT / f"tests/test_{op}.py").read_text()
    assert "torch.library.opcheck(" in test and f"torch.ops.eagle_kernels.{op}.default" in test


def test_every_op_is_compiled_and_measured():
    """numerics/cases.py feeds `eagle-decoding numerics` and tests/compile_gate.py."""
    assert sorted(op_inputs(SIZES, torch.float32, "meta")) == OPS


def test_no_kernel_without_an_op():
    """Kernels of an op may spread over files op_part; what several ops share carries a header of its own name."""
    strays = []
    for pattern in ("csrc/ops/*.cpp", "csrc/cpu/*.cpp", "csrc/cuda/*.cu", "eagle_kernels/triton/*.py"):
        for path in ROOT.glob(pattern):
            of_op = any(path.stem == op or path.stem.startswith(op + "_") for op in OPS)
            shared = any(path.with_suffix(suffix).is_file() for suffix in (".h", ".cuh")) or path.stem == "__init__"
            if not of_op and not shared:
                strays.append(str(path.relative_to(ROOT)))
    assert strays == []


def test_the_public_names_are_sorted():
    assert eagle_kernels.__all__ == sorted(eagle_kernels.__all__)


def test_files_are_short():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_the_first_line_says_what_a_file_is_for():
    """A docstring or a comment of at least three words; a shebang may precede it."""
    silent = []
    for path in sources():
        lines = path.read_text().splitlines()
        first = lines[1] if lines and lines[0].startswith("#!") else "".join(lines[:1])
        if not re.match(r'("""|// |# )\w.*', first) or len(first.split()) < 3:
            silent.append(f"{path.relative_to(ROOT)}: {first}")
    assert silent == []


def test_the_map_names_every_file():
    page = (ROOT / "docs/map.md").read_text()
    unnamed = []
    for path in sources():
        name = path.relative_to(ROOT)
        stem = re.sub(r"^(test|bench)_", "", name.stem)
        of_op = name.parts[0] != "python" and any(stem == op or stem.startswith(op + "_") for op in OPS)
        spellings = (str(name), "/".join(name.parts[1:]), "/".join(name.parts[2:]))
        if not of_op and not any(f"`{spelling}`" in page for spelling in spellings):
            unnamed.append(f"| `{name}` | {path.read_text().splitlines()[0]} |")
    assert unnamed == [], "rows to add to docs/map.md:\n" + "\n".join(unnamed)


def test_the_architecture_page_says_what_every_op_computes():
    page = (ROOT / "docs/architecture.md").read_text()
    table = page.split("| op | computes |")[1].split("\n\n")[0]
    named = [op for row in re.findall(r"^\| (`.+`) \|", table, re.MULTILINE) for op in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == OPS


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    """Links to files of the repository, and the headings in them."""
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        name, _, heading = link.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        if not link.startswith("https://") and not (file.exists() and (not heading or heading in anchors(file))):
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize("folder", INCLUDES)
def test_cpp_folders_include_only_what_lies_below(folder):
    wrong = []
    for path in (ROOT / "csrc" / folder).iterdir():
        for name in includes(path):
            ours = (ROOT / "csrc" / name).is_file()
            upwards = ours and name.split("/")[0] not in INCLUDES[folder]
            if upwards or (folder != "ops" and TORCH.match(name)):
                wrong.append(f"{path.relative_to(ROOT)}: {name}")
    assert wrong == []


def test_only_the_binding_knows_pybind11():
    files = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    knowing = [path.name for path in files if any(name.startswith("pybind11") for name in includes(path))]
    assert knowing == ["binding.cpp"]


def test_the_reference_stands_alone():
    others = [f"eagle_kernels.{op}" for op in OPS] + ["eagle_kernels.backend", "eagle_kernels.library"]
    assert violations("eagle_kernels/reference", "eagle_decoding", *others) == []
    for path in (ROOT / "eagle_kernels/reference").rglob("*.py"):
        ours = [name for name in imports(path) if name.split(".")[0] == "eagle_kernels"]
        assert all(name.startswith("eagle_kernels.reference") for name in ours), path


def test_kernels_know_no_models():
    assert violations("eagle_kernels", "transformers", "eagle_decoding") == []


def test_decoding_uses_only_public_ops():
    inner = ("eagle_kernels._C", "eagle_kernels.library", "eagle_kernels.backend", "torch.ops")
    assert violations("python", *inner) == []
    custom = re.compile(r"torch\.(ops\.(?!aten\.)|classes\.)")  # torch's own ops are not ours to hide
    assert [path for path in (ROOT / "python").rglob("*.py") if custom.search(path.read_text())] == []

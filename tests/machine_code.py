"""Checks the machine code of a built extension: python tests/machine_code.py EXTENSION

For sm_90a every kernel must wait for earlier ones, once, before it reads or writes global memory or ends: it is
launched while the kernel before it still runs (csrc/cuda/dependent.cuh). Kernels that multiply by wgmma must start a
whole tile's products at once and compute a softmax while products run (csrc/cuda/attention_warpgroup.cuh); the
assembler may order that otherwise. Prints the kernels that do not, and exits with 1 if there is one, or no kernel to
look at.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import triton

ARCHITECTURE = "sm_90a"
WAIT = "ACQBULK"
TOUCHES_MEMORY = {"LD", "LDG", "LDGSTS", "ST", "STG", "ATOM", "ATOMG", "RED", "REDG", "UBLKCP", "EXIT"}
FUNCTION = re.compile(r"\s*Function : (\S+)")
INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([\w.]+)")
TILE = re.compile("(HGMMA[^ ]* ){8}")
OVERLAP = re.compile("HGMMA[^ ]* WARPGROUP.DEPBAR[^ ]* (MUFU.EX2 ){32,}WARPGROUP.DEPBAR")


def kernels(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """(name, mnemonics in the order of their addresses) of each kernel that cuobjdump disassembled."""
    name, mnemonics = "", list[str]()
    for line in lines:
        if found := FUNCTION.match(line):
            if name:
                yield name, mnemonics
            name, mnemonics = found[1], []
        elif found := INSTRUCTION.match(line):
            mnemonics.append(found[1])
    if name:
        yield name, mnemonics


def fault(mnemonics: list[str]) -> str | None:
    """What is wrong with how a kernel waits, None where nothing is."""
    if mnemonics.count(WAIT) != 1:
        return f"waits {mnemonics.count(WAIT)} times for earlier kernels, not once"
    before = [mnemonic.split(".")[0] for mnemonic in mnemonics[: mnemonics.index(WAIT)]]
    early = [mnemonic for mnemonic in before if mnemonic in TOUCHES_MEMORY]
    if early:
        return f"has {', '.join(early)} before it waits for earlier kernels"
    products = " ".join(m for m in mnemonics if m.startswith(("HGMMA", "WARPGROUP", "MUFU.EX2")))
    if "HGMMA" in products and not TILE.search(products):
        return "waits for its products one by one"
    if "HGMMA" in products and not OVERLAP.search(products):
        return "waits for all its products before it computes a softmax"
    return None


def main(extension: Path) -> int:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    command = [tool, "-sass", "-arch", ARCHITECTURE, extension]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        faults = {name: fault(mnemonics) for name, mnemonics in kernels(process.stdout)}
    if process.returncode or not faults:
        print(
            f"{extension} has no kernels for {ARCHITECTURE} that cuobjdump can read: build it with nvcc for 90a-real."
        )
        return 1
    for name, wrong in faults.items():
        if wrong:
            print(f"{name} {wrong}.")
    wrongs = sum(wrong is not None for wrong in faults.values())
    print(f"{len(faults) - wrongs} of {len(faults)} kernels for {ARCHITECTURE} wait before they touch memory.")
    return int(wrongs > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

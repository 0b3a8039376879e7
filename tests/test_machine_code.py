"""The check of kernels' machine code finds the ones that touch memory too early, never wait, or wait too often."""

import pytest
from machine_code import fault, kernels

WAITING = """
\t\tFunction : good
\t.headerflags\t@"EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                  /* 0x00000a00ff017b82 */
                                                                           /* 0x000fe20000000800 */
        /*0010*/               @!P0 CCTL.E.PF2 [R4] ;                      /* 0x00000000000073b9 */
        /*0020*/                   ACQBULK ;                               /* 0x000000000000782e */
        /*0030*/               @P0 EXIT ;                                  /* 0x000000000000094d */
        /*0040*/                   LDG.E R2, desc[UR4][R2.64] ;            /* 0x0000000402037981 */
"""


def test_kernels_that_wait_first():
    lines = (WAITING + WAITING.replace("good", "twin")).split("\n")
    assert {name: fault(mnemonics) for name, mnemonics in kernels(lines)} == {"good": None, "twin": None}


@pytest.mark.parametrize(
    "instruction, at, message",
    [
        ("LDG.E R2, desc[UR4][R2.64]", "0010", "LDG before"),
        ("@!P0 EXIT", "0010", "EXIT before"),
        ("NOP", "0020", "waits 0 times"),
        ("ACQBULK", "0040", "waits 2 times"),
    ],
)
def test_what_is_wrong_is_named(instruction, at, message):
    lines = [f"        /*{at}*/  {instruction} ;" if f"/*{at}*/" in line else line for line in WAITING.split("\n")]
    ((_, mnemonics),) = kernels(lines)
    assert message in fault(mnemonics)


ISSUE, AWAIT, SOFTMAX = "HGMMA.64x64x16.F32.BF16", "WARPGROUP.DEPBAR.LE", ["MUFU.EX2"] * 32


@pytest.mark.parametrize(
    "order, message",
    [
        ([*[ISSUE] * 16, AWAIT, *SOFTMAX, AWAIT], None),
        ([*[ISSUE] * 16, AWAIT, AWAIT, *SOFTMAX], "before it computes a softmax"),
        ([*[ISSUE, AWAIT] * 16, *SOFTMAX, AWAIT], "one by one"),
    ],
)
def test_products_that_run_during_a_softmax(order, message):
    wrong = fault(["ACQBULK", *order])
    assert wrong is None if message is None else message in wrong

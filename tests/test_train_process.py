"""Settings of a training process: numbers next to zero are zero, in the threads of an operation as well."""

import subprocess
import sys

import pytest

PROGRAM = """
import torch
from eagle_decoding.train.process import settle_process
torch.set_num_threads(2)
{settle}
products = torch.full((1 << 20,), 1e-30) * 1e-10
print(int((products != 0).sum()))
"""


@pytest.mark.parametrize("settle, left", [("settle_process()", 0), ("", 1 << 20)])
def test_denormal_products_are_zero(settle, left):
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(settle=settle)], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) == left

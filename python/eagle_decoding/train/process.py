"""Settings of the process that training on a CPU needs: freed memory is kept, and numbers next to zero are zero."""

from __future__ import annotations

import ctypes

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # names and values of glibc's malloc.h


def settle_process() -> None:
    """Both settings; call it before the first tensor operation, because torch's threads inherit the second.

    By default glibc maps a block of megabytes when it is taken and unmaps it when it is freed, and the system clears
    every page of it again; that costs more than many operations on the tensor. Here freed blocks are handed out again.

    Gradients through a softmax are full of numbers below 1e-38. An x86 core takes a slow path for every product with
    one, so that matrix products of the backward pass can be several times slower; now they count as zero.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
    torch.set_flush_denormal(True)

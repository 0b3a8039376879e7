"""Keeps freed memory in the process: training frees and takes the same large tensors at every step."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # names and values of glibc's malloc.h


def keep_freed_memory() -> None:
    """Tell glibc to hand freed blocks out again instead of returning them to the system; elsewhere nothing happens.

    By default a block of megabytes is mapped when taken and unmapped when freed, and the system clears every page of
    it again; that costs more than many operations on the tensor.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)

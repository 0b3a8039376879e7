"""Which kernels a measured call really launched, read off torch.profiler: a fallback must not pass for the kernel."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity

from bench.gpu.rows import Rows, first_line
from bench.gpu.timeline import profiled, read_kernels
from bench.timing import Call
from eagle_decoding.floor.work import Work


class KernelNames(Rows):
    """Takes the place of Rows in a second pass, after all timing: the profiler slows kernels down while it is up.

    Each row that was measured gets `kernels`: the names of what its call launched, each once, in order. Empty on a CPU
    and where CUPTI tells nothing; where the profiler raises, `profile_error` says why.
    """

    def __init__(self, measured: Rows):
        super().__init__(measured.watch, measured.ceilings)
        self.rows = measured.rows

    def add(
        self,
        name: str,
        calls: Sequence[Call],
        work: Work,
        rivals: Mapping[str, Callable[[], Sequence[Call]]],
        **about: Any,
    ) -> None:
        for row in self.rows:
            if row.items() >= {"name": name, **about}.items():
                try:
                    row["kernels"] = self.launched(calls[0])
                except Exception as error:
                    row["profile_error"] = first_line(error)

    def launched(self, call: Call) -> list[str]:
        activity = ProfilerActivity.CUDA if self.watch.device == "cuda" else ProfilerActivity.CPU
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "trace.json.gz"
            profiled(call, activity, trace)
            return read_kernels(trace)

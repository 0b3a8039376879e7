"""The processes of one run, started by torchrun: who takes which pack, and what all of them agree on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

Item = TypeVar("Item")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Processes:
    """This process among those of the run. Every method but `part` is called by all of them, in the same order.

    device: where this process computes: its GPU if there is one, else the CPU.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this process writes the checkpoints and the log."""
        return self.rank == 0

    def part(self, items: Sequence[Item]) -> list[Item | None]:
        """This process's items, as many on every process: None where there is none left."""
        rounds = range(0, len(items), self.count)
        return [items[start + self.rank] if start + self.rank < len(items) else None for start in rounds]

    def join(self, module: nn.Module, shard: bool) -> None:
        """Let the gradients of module's parameters be summed over the processes in every backward (FSDP2).

        shard: each process keeps its share of the parameters and of the optimiser's state; else each keeps all of them.
        """
        if self.count == 1:
            return
        shape = (1, self.count) if shard else (self.count, 1)
        mesh = init_device_mesh(self.device.type, shape, mesh_dim_names=("replicate", "shard"))
        joined = fully_shard(module, mesh=mesh, reshard_after_forward=False)
        joined.set_gradient_divide_factor(1.0)
        joined.set_force_sum_reduction_for_comms(True)

    def settle(self, module: nn.Module) -> None:
        """After forwards without a backward: let go of what the next forward has to gather again."""
        if isinstance(module, FSDPModule):
            module.reshard()

    def sum(self, values: Tensor) -> Tensor:
        """The sum of every process's values."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def agree(self, value: float) -> float:
        """The first process's value."""
        if self.count > 1:
            shared = torch.tensor([value], dtype=torch.float64, device=self.device)
            dist.broadcast(shared, 0)
            value = shared.item()
        return value


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that the processes share; called by all of them. Another tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_like(tensor: Tensor, shared: Tensor) -> Tensor:
    """This process's share of a whole tensor, spread as `shared` is; the tensor itself if `shared` is not spread."""
    if not isinstance(shared, DTensor) or tensor.dim() == 0:
        return tensor
    return distribute_tensor(tensor, shared.device_mesh, shared.placements, src_data_rank=None)


@contextmanager
def processes() -> Iterator[Processes]:
    """The processes that torchrun started, or this one alone; they part when the block ends."""
    on_gpu = torch.cuda.is_available()
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Processes(device=torch.device("cuda" if on_gpu else "cpu"))
        return
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else CPU
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()

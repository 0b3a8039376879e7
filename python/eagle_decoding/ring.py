"""What rounds emitted, on its way to the host: written by the device into pinned memory, which the host polls."""

import time

import torch
from torch import Tensor

SLOTS = 4  # rounds that may be under way at a time, and one more that the host reads


class Ring:
    """The last SLOTS rounds' tokens and acceptance lengths, first on the device, then in the host's memory.

    A round's slot follows from a counter on the device, so that the same operations serve every round. The counter is
    copied after the slots, in the order of the stream: a host that sees it sees the round's tokens too. Slots that are
    copied again hold what they held.
    """

    def __init__(self, batch: int, width: int, device: torch.device):
        """width: most tokens that a round emits for a request."""
        self.width = width
        self.slots = torch.zeros(SLOTS, batch, width + 1, dtype=torch.int32, device=device)
        self.count = torch.zeros(1, dtype=torch.int64, device=device)
        pinned = device.type == "cuda"
        self.host_slots = torch.zeros(self.slots.shape, dtype=torch.int32, pin_memory=pinned)
        self.host_count = torch.zeros(1, dtype=torch.int64, pin_memory=pinned)

    def write(self, emitted: Tensor, accept_length: Tensor) -> None:
        """Appends a round: emitted [batch, width] int32, accept_length [batch] int32."""
        entry = torch.cat((accept_length[:, None], emitted), dim=1)
        self.slots.index_copy_(0, self.count % SLOTS, entry[None])
        self.count += 1
        self.host_slots.copy_(self.slots, non_blocking=True)
        self.host_count.copy_(self.count, non_blocking=True)

    def read(self, number: int) -> tuple[list[list[int]], list[int]]:
        """The tokens (with padding) and acceptance lengths of round `number`, counted from 0, once it has ended.

        Raises RuntimeError when the device has nothing left to do and the round did not end.
        """
        while self.arrived <= number:
            idle = self.idle()
            if idle and self.arrived <= number:
                raise RuntimeError(f"Round {number} never ended: the device is idle after {self.arrived} rounds.")
            time.sleep(0)
        entry = self.host_slots[number % SLOTS].tolist()
        return [row[1:] for row in entry], [row[0] for row in entry]

    @property
    def arrived(self) -> int:
        """How many rounds have reached the host."""
        return int(self.host_count)

    def idle(self) -> bool:
        """Whether all work that was handed to the device has ended; raises what went wrong there."""
        return self.slots.device.type != "cuda" or torch.cuda.current_stream(self.slots.device).query()

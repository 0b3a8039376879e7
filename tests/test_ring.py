"""The ring between rounds and the host: order, laps, and a round that never ends."""

import pytest
import torch

from eagle_decoding.ring import SLOTS, Ring


def entry(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((2, 3), number, dtype=torch.int32), torch.tensor([number % 3, 1], dtype=torch.int32)


def test_every_round_is_read_in_order_over_many_laps(device):
    ring = Ring(2, 3, torch.device(device))
    for number in range(3 * SLOTS):
        ring.write(*(t.to(device) for t in entry(number)))
        if number:  # one behind, as the loop reads it
            assert ring.read(number - 1) == ([[number - 1] * 3] * 2, [(number - 1) % 3, 1])


def test_a_round_that_never_ends_is_an_error(device):
    ring = Ring(2, 3, torch.device(device))
    ring.write(*(t.to(device) for t in entry(0)))
    with pytest.raises(RuntimeError, match="Round 1 never ended: the device is idle after 1 rounds"):
        ring.read(1)

"""The loss of one pack as a module, so that torch's data parallelism finds its forward and backward."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from eagle_decoding.train.config import TrainConfig
from eagle_decoding.train.head import DraftHead
from eagle_decoding.train.metrics import Acceptance
from eagle_decoding.train.objectives import OBJECTIVES
from eagle_decoding.train.rows import Documents


class PackLoss(nn.Module):
    """A pack's share of the loss of its optimiser step.

    complete: every parameter gets a gradient, if only zero; processes must bring the same ones to their sum.
    """

    def __init__(self, head: DraftHead, config: TrainConfig, complete: bool):
        super().__init__()
        self.complete = complete
        self.head = head
        self.config = config
        self.objective = OBJECTIVES[config.head.kind]

    def forward(
        self,
        pack: tuple[Documents, Tensor, Tensor] | None,
        supervised: list[int],
        generator: Generator | None,
        figures: Acceptance,
    ) -> Tensor:
        """Sum over steps j of decay^j times the pack's losses at step j over supervised[j].

        pack: documents with their target features aux [T, A, H] and final [T, H]; None where this process has no pack
            left while others have: then the loss is zero.
        supervised [steps]: supervised rows at each step in all packs of the optimiser step, so that any division of the
            same rows into packs and processes gives the same sum. generator: see Objective. figures: counts the pack.
        """
        parameters = list(self.parameters())
        anchors = parameters if self.complete else [min(parameters, key=torch.numel)]
        total = torch.stack([anchor.sum() for anchor in anchors]).sum() * 0.0
        if pack is None:
            return total
        documents, aux, final = pack
        figures.start(documents.input_ids.shape[0], documents.input_ids.device)
        with torch.autocast(documents.input_ids.device.type, torch.bfloat16, enabled=self.config.optim.bf16):
            for output in self.objective.unroll(self.head, documents, aux, final, self.config, generator):
                figures.add(output)
                total = total + output.loss() * (self.config.unroll.decay**output.step / supervised[output.step])
        return total

"""The training loop: packs in, optimiser steps out, with exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from eagle_decoding.train.config import TrainConfig
from eagle_decoding.train.data import TokenRows, pack_rows
from eagle_decoding.train.distributed import Processes, whole
from eagle_decoding.train.features import FeatureShards
from eagle_decoding.train.folder import RunFolder
from eagle_decoding.train.head import DraftHead
from eagle_decoding.train.metrics import Acceptance
from eagle_decoding.train.pack_loss import PackLoss
from eagle_decoding.train.rows import Documents, supervised_rows
from eagle_decoding.train.schedule import learning_rate
from eagle_decoding.train.state import TrainState

Report = Callable[[dict[str, Any]], None]


class DivergedError(ValueError):
    """A gradient that is not finite."""


@dataclass
class Trainer:
    """One run: the head, its data, the figures that `report` receives, and the processes that share the work."""

    config: TrainConfig
    head: DraftHead
    data: TokenRows
    features: FeatureShards
    train_rows: list[int]
    held_out_rows: list[int]
    report: Report
    processes: Processes = field(default_factory=Processes)

    def __post_init__(self) -> None:
        optim = self.config.optim
        self.loss = PackLoss(self.head, self.config, self.processes.count > 1).to(self.processes.device)
        self.processes.join(self.loss, optim.shard)
        self.optimizer = torch.optim.AdamW(
            self.head.parameters(),
            lr=optim.lr,
            betas=(optim.betas[0], optim.betas[1]),
            weight_decay=optim.weight_decay,
            fused=True,
        )
        self.progress: dict[str, Any] = {"step": 0, "epoch": 0, "pack": 0, "tokens": 0, "seconds": 0.0}

    def run(self) -> dict[str, Any]:
        """Train to the end of the schedule, resuming from the newest whole checkpoint in `out` if there is one.

        Returns the figures of the evaluation at the end, none where no row is held out.

        A checkpoint on the way that the disk does not take is reported, and training goes on; the last one raises.
        """
        log, folder = self.config.log, RunFolder(Path(self.config.out), self.processes.first, self._note)
        state = folder.open(self.config)
        if state:
            self.progress = state.restore(self.head, self.optimizer)
        since = Acceptance(self.config.unroll.steps)
        mark = time.perf_counter() - self.progress["seconds"]
        packs = self._packs()
        if state:
            self._note_resumed(self._done(len(packs)) >= 1)
        while (done := self._done(len(packs))) < 1:
            lr = learning_rate(self.config.optim, done)
            first = self.progress["pack"]
            group = packs[first : first + self.config.optim.packs]
            norm = self._step(group, lr, since)
            self.progress["seconds"] = time.perf_counter() - mark
            self.progress["step"] += 1
            self.progress["pack"] += len(group)
            if self.progress["pack"] == len(packs):
                self.progress |= {"pack": 0, "epoch": self.progress["epoch"] + 1}
                packs = self._packs()
            step = self.progress["step"]
            if step % log.every == 0:
                figures = {"kind": "train", "done": round(done, 4), "lr": lr, "grad_norm": round(norm, 4)}
                self.report(self.progress | figures | self._summary(since))
                since = Acceptance(self.config.unroll.steps)
            if step % log.eval_every == 0:
                self._report_held_out()
            if step % log.save_every == 0:
                folder.try_to_save(self._state())
        folder.save(self._state())
        return self._report_held_out()

    def _report_held_out(self) -> dict[str, Any]:
        figures = self.evaluate() if self.held_out_rows else {}
        if figures:
            self.report(self.progress | {"kind": "eval"} | figures)
        return figures

    def evaluate(self) -> dict[str, Any]:
        """Figures on held-out rows that the target decoded greedily, every supervised row computed."""
        rows = [row for row in self.held_out_rows if self.data.greedy[row]] or self.held_out_rows
        packs = pack_rows(self.data, rows, self.config.data.pack_tokens, None)
        figures = Acceptance(self.config.unroll.steps)
        with torch.no_grad():
            for pack in self.processes.part(packs):
                self.loss(self._load(pack), [1] * self.config.unroll.steps, None, figures)
        self.processes.settle(self.loss)
        return self._summary(figures)

    def _packs(self) -> list[list[int]]:
        seed = self.config.seed * 1_000_003 + self.progress["epoch"]
        return pack_rows(self.data, self.train_rows, self.config.data.pack_tokens, seed)

    def _done(self, packs: int) -> float:
        optim, spent = self.config.optim, []
        if optim.tokens > 0:
            spent.append(self.progress["tokens"] / optim.tokens)
        if optim.minutes > 0:
            spent.append(self.processes.agree(self.progress["seconds"] / (60 * optim.minutes)))
        return max(spent) if spent else (self.progress["epoch"] + self.progress["pack"] / packs) / optim.epochs

    def _step(self, group: list[list[int]], lr: float, figures: Acceptance) -> float:
        """One optimiser step over a group of packs; returns the norm of its gradient."""
        documents = [self.data.pack(pack) for pack in group]
        self.progress["tokens"] += sum(int(document.supervised.sum()) for document in documents)
        steps = self.config.unroll.steps
        supervised = torch.stack([supervised_rows(document, steps).sum(1) for document in documents]).sum(0).tolist()
        if supervised[0] == 0:
            return 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for index, pack in enumerate(self.processes.part(group)):
            generator = self._generator(index * self.processes.count + self.processes.rank)
            self.loss(self._load(pack), supervised, generator, figures).backward()
        for parameter in self.head.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        norm = whole(torch.nn.utils.clip_grad_norm_(self.head.parameters(), self.config.optim.clip)).item()
        if not math.isfinite(norm):
            raise DivergedError(
                f"The gradient norm is {norm} at step {self.progress['step']}; lower optim.lr (now {lr:g}) and run "
                f"again: training goes on from the newest checkpoint in {self.config.out}."
            )
        for options in self.optimizer.param_groups:
            options["lr"] = lr
        self.optimizer.step()
        return norm

    def _generator(self, index: int) -> Generator:
        """Noise for one pack of the optimiser step; it depends on the place in the run alone, so that a resumed run
        and one on more processes draw the same."""
        place = (self.config.seed * 1_000_003 + self.progress["epoch"]) * 1_000_003 + self.progress["pack"] + index
        return Generator().manual_seed(place % 2**64)

    def _load(self, pack: list[int] | None) -> tuple[Documents, Tensor, Tensor] | None:
        if pack is None:
            return None
        device = self.processes.device
        aux, final = self.features.read(pack)
        return self.data.pack(pack).to(device), aux.to(device), final.to(device)

    def _summary(self, figures: Acceptance) -> dict[str, Any]:
        figures.totals = self.processes.sum(figures.totals.to(self.processes.device))
        return figures.summary()

    def _state(self) -> TrainState:
        return TrainState.take(self.head, self.optimizer, self.progress)

    def _note_resumed(self, at_end: bool) -> None:
        run, step = f"The run in {self.config.out}", self.progress["step"]
        if at_end:
            end = "raise the budget in optim to train on, or give another `out`"
            self._note(f"{run} is at its end, step {step}: {end}.")
        else:
            self._note(f"{run} goes on from step {step}.")

    def _note(self, sentence: str) -> None:
        self.report({"kind": "note", "text": sentence})

"""The training loop: packs in, optimiser steps out, with exact resume."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eagle_decoding.train.config import TrainConfig, dump_config
from eagle_decoding.train.data import TokenRows, pack_rows
from eagle_decoding.train.features import FeatureShards
from eagle_decoding.train.head import DraftHead
from eagle_decoding.train.metrics import Acceptance
from eagle_decoding.train.objectives import OBJECTIVES
from eagle_decoding.train.schedule import learning_rate
from eagle_decoding.train.state import newest_state, save_state

Report = Callable[[dict[str, Any]], None]


@dataclass
class Trainer:
    """One run: the head, its data, and the figures that `report` receives."""

    config: TrainConfig
    head: DraftHead
    data: TokenRows
    features: FeatureShards
    train_rows: list[int]
    held_out_rows: list[int]
    report: Report

    def __post_init__(self) -> None:
        optim = self.config.optim
        self.optimizer = torch.optim.AdamW(
            self.head.parameters(),
            lr=optim.lr,
            betas=(optim.betas[0], optim.betas[1]),
            weight_decay=optim.weight_decay,
            fused=True,
        )
        self.progress: dict[str, Any] = {"step": 0, "epoch": 0, "pack": 0, "tokens": 0, "seconds": 0.0}

    def run(self) -> None:
        """Train to the end of the schedule, resuming from the newest whole checkpoint in `out` if there is one."""
        out, log = Path(self.config.out), self.config.log
        out.mkdir(parents=True, exist_ok=True)
        (out / "config.yaml").write_text(dump_config(self.config))
        state = newest_state(out / "checkpoints")
        if state:
            self.progress = state.restore(self.head, self.optimizer)
        since = Acceptance(self.config.unroll.steps)
        mark = time.perf_counter() - self.progress["seconds"]
        packs = self._packs()
        while (done := self._done(len(packs))) < 1:
            lr = learning_rate(self.config.optim, done)
            norm = self._step(packs[self.progress["pack"]], lr, since)
            self.progress["seconds"] = time.perf_counter() - mark
            self.progress["step"] += 1
            self.progress["pack"] += 1
            if self.progress["pack"] == len(packs):
                self.progress |= {"pack": 0, "epoch": self.progress["epoch"] + 1}
                packs = self._packs()
            step = self.progress["step"]
            if step % log.every == 0:
                figures = {"kind": "train", "done": round(done, 4), "lr": lr, "grad_norm": round(norm, 4)}
                self.report(self.progress | figures | since.summary())
                since = Acceptance(self.config.unroll.steps)
            if step % log.eval_every == 0:
                self.report(self.progress | {"kind": "eval"} | self.evaluate())
            if step % log.save_every == 0:
                save_state(out / "checkpoints", self.head, self.optimizer, self.progress)
        save_state(out / "checkpoints", self.head, self.optimizer, self.progress)
        self.report(self.progress | {"kind": "eval"} | self.evaluate())

    def evaluate(self) -> dict[str, Any]:
        """Figures on held-out rows that the target decoded greedily, every supervised row computed."""
        rows = [row for row in self.held_out_rows if self.data.greedy[row]] or self.held_out_rows
        figures = Acceptance(self.config.unroll.steps)
        with torch.no_grad():
            for pack in pack_rows(self.data, rows, self.config.data.pack_tokens, None):
                self._unroll(pack, None, figures)
        return figures.summary()

    def _packs(self) -> list[list[int]]:
        seed = self.config.seed * 1_000_003 + self.progress["epoch"]
        return pack_rows(self.data, self.train_rows, self.config.data.pack_tokens, seed)

    def _done(self, packs: int) -> float:
        optim = self.config.optim
        if optim.minutes > 0:
            return self.progress["seconds"] / (60 * optim.minutes)
        return (self.progress["epoch"] + self.progress["pack"] / packs) / optim.epochs

    def _step(self, pack: list[int], lr: float, figures: Acceptance) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self._unroll(pack, self._generator(), figures)
        if loss is None:
            return 0.0
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.head.parameters(), self.config.optim.clip)
        if not norm.isfinite():
            raise FloatingPointError(
                f"The gradient norm is {norm.item()} at step {self.progress['step']}; lower optim.lr."
            )
        self.optimizer.step()
        return norm.item()

    def _generator(self) -> torch.Generator:
        """Noise that depends on the place in the run alone, so that a resumed run draws the same."""
        return torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.progress["tokens"])

    def _unroll(self, pack: list[int], generator: torch.Generator | None, figures: Acceptance) -> Tensor | None:
        """The pack's loss: the steps' losses, weighted by decay^step; None if nothing was scored."""
        documents = self.data.pack(pack)
        aux, final = self.features.read(pack)
        self.progress["tokens"] += int(documents.supervised.sum())
        figures.start(documents.input_ids.shape[0])
        total: Tensor | None = None
        objective = OBJECTIVES[self.config.head.kind]
        for output in objective.unroll(self.head, documents, aux, final, self.config, generator):
            figures.add(output)
            loss = output.loss() * self.config.unroll.decay**output.step
            total = loss if total is None else total + loss
        return total

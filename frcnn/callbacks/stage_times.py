"""How long an image takes: its preparation, the network, and what makes detections of the outputs."""

import statistics
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

READ = 16  # images whose preparation is timed


class StageTimes(Callback):
    """Times an evaluation, in milliseconds.

    Preparation (decoding, resizing, normalising) is timed before the evaluation, on its first images and in
    this process, because loader workers do it beside the network. The first batch warms up and counts only
    if it is the only one. A GPU is waited for twice a batch.
    """

    def __init__(self) -> None:
        self._times: dict[str, list[float]] = {"pre-processing": [], "network": [], "post-processing": []}
        self._started = self._between = 0.0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Time the preparation, and have the backend say when the network is done."""
        loader: Any = trainer.val_dataloaders
        backend: Any = pl_module.backend
        for number in range(min(READ, len(loader.dataset))):
            start = time.perf_counter()
            loader.dataset[number]
            self._times["pre-processing"].append(1e3 * (time.perf_counter() - start))
        backend.after_network = self._mark

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Start the clock."""
        self._started = self._now()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop it. This callback stands before those that do something with the outputs."""
        images = len(batch.ids)
        self._times["network"].append(1e3 * (self._between - self._started) / images)
        self._times["post-processing"].append(1e3 * (self._now() - self._between) / images)

    def medians(self) -> dict[str, float]:
        """Milliseconds of an image by stage."""
        warm = {name: times[1:] or times for name, times in self._times.items()}
        return {name: statistics.median(times) for name, times in warm.items() if times}

    def _mark(self) -> None:
        self._between = self._now()

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

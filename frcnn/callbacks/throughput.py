"""How fast a training is, and how much GPU memory it takes."""

import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

RATE, MEMORY = "throughput/images_per_second", "memory/gpu_GiB"


class Throughput(Callback):
    """Logs images per second of all devices, over the steps since it last did, and the peak GPU memory.

    It does so when Lightning writes to the loggers and never waits for a device. Validation does not count.
    The rate of a whole epoch is `throughput/images_per_second_epoch`; memory is that of the first device.
    """

    def __init__(self) -> None:
        self._since = self._epoch_since = 0.0
        self._images = self._epoch_images = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; a run that goes on within an epoch does not begin one."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._since = self._epoch_since = time.monotonic()
        self._images = self._epoch_images = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count, and log if it is time."""
        self._images += len(batch.ids) * trainer.world_size
        last = trainer.is_last_batch
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (batch_idx + 1) % every and not last:
            return
        now = time.monotonic()
        self._epoch_images += self._images
        figures = {RATE: self._images / (now - self._since)}
        if last:
            figures[f"{RATE}_epoch"] = self._epoch_images / (now - self._epoch_since)
        if pl_module.device.type == "cuda":
            figures[MEMORY] = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
        pl_module.log_dict(figures, batch_size=1)
        self._since, self._images = now, 0

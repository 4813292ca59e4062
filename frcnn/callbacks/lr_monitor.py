"""The learning rate of every step, for loggers and other callbacks."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class LrMonitor(Callback):
    """Logs the rate that a step uses as `lr`, before the schedule sets the next one.

    Lightning's own monitor tells the loggers alone, and nothing where there are none.
    """

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Log the rate."""
        pl_module.log("lr", trainer.optimizers[0].param_groups[0]["lr"], batch_size=1)

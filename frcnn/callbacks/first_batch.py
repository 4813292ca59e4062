"""The first training batch, for people to look at."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from frcnn.data.sample import Batch


class FirstBatch(Callback):
    """Hands the first batch of a training to `show`, in the first process, as the network is about to see it.

    Args:
        show: takes the batch; it is called once.
    """

    def __init__(self, show: Callable[[Batch], None]) -> None:
        self._show: Callable[[Batch], None] | None = show

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Show the batch if it is the first."""
        if self._show and trainer.is_global_zero:
            self._show(batch)
        self._show = None

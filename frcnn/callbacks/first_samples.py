"""The first training images, for people to look at."""

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from frcnn.data.sample import Sample, unbatch


class FirstSamples(Callback):
    """Hands the first images of a training to `show`, in the first process, as the network is to see them.

    Fewer than wanted are shown after the first epoch, and at once if the training fails before.

    Args:
        show: takes the samples; it is called once.
        count: how many images.
    """

    def __init__(self, show: Callable[[Sequence[Sample]], None], *, count: int) -> None:
        self._show: Callable[[Sequence[Sample]], None] | None = show
        self.count = count
        self._samples: list[Sample] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take images of the batch; with the last one that is wanted, show them."""
        if self._show is None or not trainer.is_global_zero:
            return
        self._samples += unbatch(batch)[: self.count - len(self._samples)]
        if len(self._samples) >= self.count:
            self._flush()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """There are no more images than these."""
        self._flush()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """What the training failed on may be among them."""
        self._flush()

    def _flush(self) -> None:
        if self._show is not None and self._samples:
            self._show(self._samples)
            self._show, self._samples = None, []

"""What a training that does not end well leaves to read."""

import logging
from collections.abc import Callable

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from frcnn.errors import FrcnnError

log = logging.getLogger(__name__)


class LastWords(Callback):
    """Calls `write`, in the first process, with the exception that ends a training or an evaluation.

    What it cannot write is said and changes nothing about the end: the disk may be full.

    Args:
        write: takes the exception.
    """

    def __init__(self, write: Callable[[BaseException], None]) -> None:
        self._write = write

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Write."""
        if trainer.is_global_zero:
            try:
                self._write(exception)
            except (OSError, FrcnnError) as error:
                log.warning("no report of the run: %s", error)

"""The end of a training that no longer learns."""

import logging
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping

log = logging.getLogger(__name__)


class LossEarlyStopping(EarlyStopping):
    """Stops after `patience` epochs without a mean training loss below the best one minus `min_delta`.

    TAO: `monitor: "loss"` is the training loss, and the only thing it watches.

    Args:
        patience: epochs to wait, at least 1.
        min_delta: what counts as better, at least 0.
    """

    def __init__(self, *, patience: int, min_delta: float = 0.0) -> None:
        super().__init__(
            "train/loss_epoch",
            patience=patience,
            min_delta=min_delta,
            mode="min",
            check_on_train_epoch_end=True,
            check_finite=False,  # a loss that is no number is an error, not an early end
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting; the patience is that of the settings."""
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say why the training is over, if this is why."""
        if self.stopping_reason_message and trainer.is_global_zero:
            log.info(
                "stopped early, after epoch %d: %s", self.stopped_epoch + 1, self.stopping_reason_message
            )

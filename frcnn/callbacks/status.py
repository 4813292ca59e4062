"""status.json, the file by which TAO's tools follow a job: one JSON object per line."""

import time
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from frcnn.status import StatusFile

# TAO: the names that Keras gave the losses.
LOSS_NAMES = {
    "train/loss_epoch": "loss",
    "train/loss_rpn_class_epoch": "rpn_out_class_loss",
    "train/loss_rpn_box_epoch": "rpn_out_regress_loss",
    "train/loss_rcnn_class_epoch": "dense_class_td_loss",
    "train/loss_rcnn_box_epoch": "dense_regress_td_loss",
}


class StatusWriter(StatusFile, Callback):
    """Appends to status.json: by hand with `write`, and from a training's start to its end as a callback.

    The callback leaves SUCCESS and FAILURE to its owner, who knows when the whole job is over.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._epoch_start = 0.0
        self._validated = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The loop begins, which may be within an epoch."""
        self._epoch_start = time.monotonic()
        self.write("STARTED", "Starting Training Loop.")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the time."""
        self._epoch_start, self._validated = time.monotonic(), False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember that this epoch's mAP is its own."""
        self._validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Losses, learning rate, mAP, and how long it will take."""
        metrics = trainer.callback_metrics  # reading them is a matter of all processes
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or 0
        seconds = time.monotonic() - self._epoch_start
        # TAO: figures of an epoch are strings.
        graphical = {name: str(float(metrics[key])) for key, name in LOSS_NAMES.items() if key in metrics}
        if "lr" in metrics:  # of the epoch's last step; the optimizer holds that of the next
            graphical["learning_rate"] = f"{float(metrics['lr']):.7g}"
        kpi = {}
        if self._validated and "val/mAP" in metrics:
            kpi = {"mean average precision": str(float(metrics["val/mAP"]))}
        self.write(
            "RUNNING",
            "Training loop in progress",
            data={
                "epoch": epoch,
                "max_epoch": epochs,
                "time_per_epoch": str(timedelta(seconds=seconds)),
                "eta": str(timedelta(seconds=seconds * max(epochs - epoch, 0))),
            },
            graphical=graphical | kpi,
            kpi=kpi,
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The loop is over."""
        self.write("RUNNING", "Training loop complete.")

"""The curves of a training, kept whatever loggers there are."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from frcnn.callbacks.throughput import MEMORY, RATE
from frcnn.report.plots import LOSSES, Series

POINTS = 1000
STEP_NAMES = (*LOSSES, "lr")
EPOCH_NAMES = (*(f"{name}_epoch" for name in LOSSES), "lr", f"{RATE}_epoch", MEMORY)


class History(Callback):
    """Remembers losses and learning rate over steps, and what each epoch came to; checkpoints carry it on.

    A long training keeps every second, fourth, ... step: there are never more than 2 x `POINTS`.

    Attributes:
        epochs: a row per epoch: `epoch` and `step` (both from 1), mean losses, the last rate, images per
            second, peak GPU memory, and the `val/` figures of an epoch that was validated.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self._points: list[dict[str, Any]] = []
        self._every = 1
        self._validated = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation figures of an earlier epoch are not this one's."""
        self._validated = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the step's losses, on their device: reading them here would wait for it."""
        step = trainer.global_step
        if step % self._every or (self._points and self._points[-1]["step"] == step):
            return
        known = trainer.callback_metrics
        values = {name: known[name] for name in STEP_NAMES if name in known}
        self._points.append({"step": step, "epoch": trainer.current_epoch + 1, **values})
        if len(self._points) >= 2 * POINTS:
            self._thin()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember that the figures are new; a validation after the last epoch belongs to it."""
        self._validated = True
        if trainer.state.fn == TrainerFn.VALIDATING and self.epochs:
            self.epochs[-1] |= _validation_figures(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row."""
        known = trainer.callback_metrics  # reading them is a matter of all processes
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        row |= {name: float(known[name]) for name in EPOCH_NAMES if name in known}
        self.epochs.append(row | (_validation_figures(trainer) if self._validated else {}))

    def series(self) -> dict[str, Series]:
        """Every curve by its logged name: over steps where they were kept, else over epochs."""
        self._fetch()
        rows = [{"step": row["step"], "epoch": row["epoch"], **_over_epochs(row)} for row in self.epochs]
        columns: dict[str, list[tuple[float, float, float]]] = {}
        for row in (*self._points, *rows):
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    columns.setdefault(name, []).append((row["step"], row["epoch"], value))
        return {name: Series(*np.array(cells).T) for name, cells in columns.items()}

    def state_dict(self) -> dict[str, Any]:
        """The curves so far, as plain numbers."""
        self._fetch()
        return {"epochs": list(self.epochs), "points": list(self._points), "every": self._every}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the curves of a checkpoint."""
        self.epochs, self._points = list(state_dict["epochs"]), list(state_dict["points"])
        self._every = state_dict["every"]

    def _fetch(self) -> None:
        """Bring what is still on a device to the host, all at once."""
        waiting = [(point, name) for point in self._points for name in point if _is_tensor(point[name])]
        if waiting:
            values = torch.stack([point[name].float() for point, name in waiting]).tolist()
            for (point, name), value in zip(waiting, values, strict=True):
                point[name] = value

    def _thin(self) -> None:
        """Put two neighbours into one, at the place of the later."""
        pairs = zip(self._points[::2], self._points[1::2], strict=True)
        self._points = [
            b | {name: (a[name] + b[name]) / 2 for name in STEP_NAMES if name in a and name in b}
            for a, b in pairs
        ]
        self._every *= 2


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _over_epochs(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name not in ("step", "epoch", "lr")}


def _validation_figures(trainer: pl.Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}

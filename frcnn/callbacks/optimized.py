"""A look at the metric that a sweep optimises, as soon as there are metrics."""

import difflib
from collections.abc import Collection

import pytorch_lightning as pl

from frcnn.errors import SpecError


class OptimizedMetric(pl.Callback):
    """Stops a training in its first epoch if nothing logs the metric that it is to be judged by.

    Args:
        name: of a logged metric; one of validation is waited for until there is a validation.
        sometimes: metrics that exist but may be undefined, and are not logged then.

    Raises:
        SpecError: there is no such metric, with those that there are.
    """

    def __init__(self, name: str, *, sometimes: Collection[str] = ()) -> None:
        self.name, self.sometimes = name, sometimes

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look for a metric of validation."""
        if self.name.startswith("val/"):
            self._check(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look for any other metric."""
        if not self.name.startswith("val/"):
            self._check(trainer)

    def _check(self, trainer: pl.Trainer) -> None:
        names = sorted({*trainer.callback_metrics, *self.sometimes})
        if self.name not in names:
            near = difflib.get_close_matches(self.name, names, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else None
            message, allowed = "no such metric is logged", ", ".join(names)
            raise SpecError(message, where="run.optimize", found=self.name, allowed=allowed, hint=hint)

"""An exponential moving average of the weights, which is what is validated, stored and exported."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor


class WeightEMA(WeightAveraging):
    """Averages weights and running statistics after every optimizer step.

    The decay of step t is min(decay, (1 + t) / (10 + t)), as in TensorFlow's ExponentialMovingAverage with
    `num_updates`: without that a short run would still carry the weights that it began with. A checkpoint's
    weights are the averaged ones; those that a resumed run goes on from are stored beside them.

    Args:
        decay: what is kept of the average in a step, below 1.
    """

    def __init__(self, *, decay: float) -> None:
        super().__init__(multi_avg_fn=self._average)
        self.decay = decay

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the average in before a distributed validation hands out the first process's statistics."""
        super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """It is in already."""

    @torch.no_grad()
    def _average(self, averages: list[Tensor], current: list[Tensor], steps: Tensor | int) -> None:
        decay = min(self.decay, (1 + int(steps)) / (10 + int(steps)))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, current, 1 - decay)
        else:  # counters
            torch._foreach_copy_(averages, current)

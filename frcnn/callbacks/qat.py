"""Quantisation-aware training: ranges to begin with, and their end."""

import logging
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from frcnn.model.batch_norm import BatchNorm2d
from frcnn.model.detector import FasterRCNN
from frcnn.quantize import activation_quantizers, calibrate, quantized_layers, quantizers
from frcnn.quantize.ranges import Histogram

log = logging.getLogger(__name__)


class QuantizationAware(Callback):
    """Calibrates activations that have no range when a training begins, and freezes all ranges near its end.

    With them batch norm's statistics are frozen: from then on a step computes what is deployed. When that is
    follows from the place in the run, so a resumed one does the same. Processes begin with common ranges, go
    on with those of their own images, and end with those of the first.

    Args:
        rule: of `frcnn.quantize.ranges.METHODS`.
        batches: of training images, for the calibration.
        fixed: whether ranges stay as they were calibrated.
        freeze_at: share of the run after which they are frozen.
    """

    def __init__(
        self, *, rule: Callable[[Histogram], float], batches: int, fixed: bool, freeze_at: float
    ) -> None:
        self.rule, self.batches, self.fixed, self.freeze_at = rule, batches, fixed, freeze_at
        self._frozen = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Calibrate; a resumed run, or one that begins with a quantised network, has its ranges."""
        detector: FasterRCNN = pl_module.detector  # type: ignore[assignment]
        waiting = sum(not quantizer.scale > 0 for quantizer in activation_quantizers(detector))
        if waiting:
            log.info("calibrating %d activations with %d batches of training images", waiting, self.batches)
            self._calibrate(trainer, pl_module, detector)
        for quantizer in activation_quantizers(detector):
            quantizer.frozen = self.fixed
        tensors, layers = len(activation_quantizers(detector)), len(quantized_layers(detector))
        log.info("quantised: %d layers, %d activations", layers, tensors)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Freeze, if it is time."""
        done = trainer.current_epoch + batch_idx / max(int(trainer.num_training_batches), 1)
        if self._frozen or done < self.freeze_at * (trainer.max_epochs or 1):
            return
        self._frozen = True
        for quantizer in quantizers(pl_module):
            quantizer.frozen = True
        for layer in pl_module.modules():
            if isinstance(layer, BatchNorm2d):
                layer.frozen = True
        if trainer.world_size > 1:
            with torch.no_grad():
                for buffer in pl_module.buffers():
                    dist.broadcast(buffer, src=0)
        log.info(
            "ranges and statistics are frozen from epoch %d, step %d",
            trainer.current_epoch + 1,
            batch_idx + 1,
        )

    def _calibrate(self, trainer: pl.Trainer, pl_module: pl.LightningModule, detector: FasterRCNN) -> None:
        norms = [layer for layer in detector.modules() if isinstance(layer, BatchNorm2d)]
        before = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]

        def run() -> None:
            for batch in islice(trainer.datamodule.train_dataloader(), self.batches):  # type: ignore[attr-defined]
                batch = trainer.strategy.batch_to_device(batch)
                generator = torch.Generator(device=pl_module.device).manual_seed(0)
                with trainer.precision_plugin.train_step_context():
                    detector.losses(
                        batch.images,
                        batch.boxes,
                        batch.labels,
                        image_sizes=batch.image_sizes,
                        generator=generator,
                    )

        calibrate(detector, run, self.rule)
        for norm, buffers in zip(norms, before, strict=True):
            norm.load_state_dict(buffers, strict=False)
        if trainer.world_size > 1:
            for quantizer in activation_quantizers(detector):
                largest: Tensor = quantizer.scale.clone()
                dist.all_reduce(largest, op=dist.ReduceOp.MAX)
                quantizer.set_scale(largest)

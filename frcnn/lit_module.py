"""The Lightning module: a detector with its optimizer, its schedule and what a checkpoint carries."""

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from frcnn.data.sample import Batch
from frcnn.errors import RunError
from frcnn.model.detector import Detections, DetectionSettings, FasterRCNN
from frcnn.optim.optimizers import l1_penalty


class LitFasterRCNN(pl.LightningModule):
    """Trains and validates a `FasterRCNN`.

    Args:
        detector: the network.
        evaluation: how detections are made in validation.
        make_optimizer: detector to optimizer; its rate is set by `rate`.
        rate: learning rate of a step of a run of so many steps, for one device. TAO: more devices
            multiply it.
        l1: weight of the L1 penalty.
        seed: seed of the random choice of anchors and regions.
        stored: texts that checkpoints carry (spec and whole configuration).
    """

    def __init__(
        self,
        *,
        detector: FasterRCNN,
        evaluation: DetectionSettings,
        make_optimizer: Callable[[nn.Module], Optimizer] | None = None,
        rate: Callable[[int, int], float] | None = None,
        l1: float = 0.0,
        seed: int = 0,
        stored: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.detector, self.evaluation = detector, evaluation
        self.make_optimizer, self.rate = make_optimizer, rate
        self.l1, self.seed, self.stored = l1, seed, dict(stored or {})

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of the four losses and the L1 penalty."""
        losses = self.detector.losses(
            batch.images,
            batch.boxes,
            batch.labels,
            image_sizes=batch.image_sizes,
            generator=self._generator(batch_idx),
        )
        if self.l1:
            losses["l1"] = l1_penalty(self.detector, self.l1)
        total = torch.stack(list(losses.values())).sum()
        self._log_losses({"loss": total, **{f"loss_{name}": value for name, value in losses.items()}}, batch)
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> Detections:  # type: ignore[override]
        """Detections of a batch, for the callbacks."""
        return self.detector.detect(batch.images, settings=self.evaluation, image_sizes=batch.image_sizes)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, with its rate set before every step."""
        if self.make_optimizer is None or self.rate is None:
            raise RunError("this module was built to evaluate, not to train")
        rate, devices = self.rate, self.trainer.world_size
        steps = int(self.trainer.estimated_stepping_batches)
        optimizer = self.make_optimizer(self.detector)
        scheduler = LambdaLR(optimizer, lambda step: devices * rate(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Log the rate that this step uses."""
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the texts that say what this model is."""
        checkpoint["frcnn"] = dict(self.stored)

    def _log_losses(self, losses: Mapping[str, Tensor], batch: Batch) -> None:
        values = {f"train/{name}": value.detach() for name, value in losses.items()}
        self.log_dict(values, on_step=True, on_epoch=True, batch_size=len(batch.ids))

    def _generator(self, batch_idx: int) -> torch.Generator:
        # A function of the place in the run, so that a resumed run draws what it would have drawn.
        place = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        generator = torch.Generator(device=self.device)
        return generator.manual_seed(hash(place) & 0x7FFF_FFFF_FFFF_FFFF)

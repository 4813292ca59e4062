"""The Lightning module: a detector with its optimizer, its schedule and what a checkpoint carries."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from frcnn.data.sample import Batch
from frcnn.errors import RunError
from frcnn.model.detector import Detections, DetectionSettings, FasterRCNN
from frcnn.model.parallel import follow
from frcnn.optim.optimizers import l1_penalty, l2_penalty

FINITE_EVERY = 20
"""Steps between two looks at the loss on a GPU: what is no number stays none."""


class LitFasterRCNN(pl.LightningModule):
    """Trains and validates a `FasterRCNN`.

    Args:
        detector: the network.
        evaluation: how detections are made in validation.
        make_optimizer: detector to optimizer; its rate is set by `rate`.
        rate: learning rate of a step of a run of so many steps, for one device. TAO: more devices
            multiply it.
        l1: weight of the L1 penalty.
        l2: weight of the L2 penalty, which the optimizer applies; it is part of the logged loss.
        seed: seed of the random choice of anchors and regions.
        place: spreads the network over the devices of this process, of which it is told the first.
        stored: what checkpoints carry: spec and whole configuration as texts, traits of an imported network.
    """

    def __init__(
        self,
        *,
        detector: FasterRCNN,
        evaluation: DetectionSettings,
        make_optimizer: Callable[[nn.Module], Optimizer] | None = None,
        rate: Callable[[int, int], float] | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
        seed: int = 0,
        place: Callable[[FasterRCNN, torch.device], None] | None = None,
        stored: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.detector, self.evaluation = detector, evaluation
        self.make_optimizer, self.rate = make_optimizer, rate
        self.l1, self.l2, self.seed, self.stored = l1, l2, seed, dict(stored or {})
        self.place = place
        self._finite: Tensor | None = None

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move to a device, from there to the others of a split network."""
        super().to(*args, **kwargs)
        if self.place is not None:
            self.place(self.detector, self.device)
        return self

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of the four losses and the L1 penalty."""
        losses = self.detector.losses(
            batch.images,
            batch.boxes,
            batch.labels,
            image_sizes=batch.image_sizes,
            ignored=batch.ignored,
            generator=self._generator(batch_idx),
        )
        if self.l1:
            losses["l1"] = l1_penalty(self.detector, self.l1).to(self.device)
        total = torch.stack(list(losses.values())).sum()
        finite = torch.isfinite(total.detach())
        self._finite = finite if self._finite is None else self._finite & finite
        logged = total + l2_penalty(self.detector, self.l2).to(total.device) if self.l2 else total
        self._log_losses({"loss": logged, **{f"loss_{name}": value for name, value in losses.items()}}, batch)
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

    def on_train_start(self) -> None:
        """Lightning puts restored slots of an optimizer on the first device."""
        if self.place is not None:
            for optimizer in self.trainer.optimizers:
                follow(optimizer)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Log the rate that this step uses."""
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=1)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Stop at a loss that is no number; where asking means waiting, only now and then."""
        waits = self.device.type != "cpu" or self.trainer.world_size > 1
        if not waits or batch_idx % FINITE_EVERY == 0:
            self._check_finite(f"step {batch_idx + 1}", batch.ids)

    def on_train_epoch_end(self) -> None:
        """Look once more before the epoch's checkpoint is written."""
        self._check_finite("the last steps", [])

    def _check_finite(self, place: str, ids: Sequence[str]) -> None:
        if self._finite is None:
            return
        if self.trainer.world_size > 1:  # all stop, or none
            flag = self._finite.float()
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MIN)
            self._finite = flag > 0
        if not bool(self._finite):
            raise RunError(
                "the loss is not a finite number",
                where=f"epoch {self.current_epoch + 1}, {place}",
                found=f"images of the step: {', '.join(ids)}" if ids else None,
                hint="lower the learning rate, or look at the images and their labels",
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the texts that say what this model is."""
        checkpoint["frcnn"] = dict(self.stored)

    def _log_losses(self, losses: Mapping[str, Tensor], batch: Batch) -> None:
        values = {f"train/{name}": value.detach() for name, value in losses.items()}
        size, several = len(batch.ids), self.trainer.world_size > 1
        self.log_dict(values, on_step=True, on_epoch=False, batch_size=size)
        # Synchronising in every step would make all devices wait for each other.
        means = {f"{name}_epoch": value for name, value in values.items()}
        self.log_dict(means, on_step=False, on_epoch=True, batch_size=size, sync_dist=several)

    def _generator(self, batch_idx: int) -> torch.Generator:
        # A function of the place in the run, so that a resumed run draws what it would have drawn.
        place = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        generator = torch.Generator(device=self.device)
        return generator.manual_seed(hash(place) & 0x7FFF_FFFF_FFFF_FFFF)

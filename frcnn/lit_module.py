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
from frcnn.datamodule import TrainingLoader
from frcnn.errors import RunError
from frcnn.model.detector import Detections, DetectionSettings, FasterRCNN
from frcnn.model.parallel import follow
from frcnn.optim.optimizers import group_settings, l1_penalty, l2_penalty

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
        self._groups: list[dict[str, Any]] = []  # what the settings say of the optimizer's groups
        self._rate_of: Callable[[int], float] = float
        self._unchecked: list[tuple[int, Sequence[str], Tensor]] = []  # step, images, whether it was finite
        self._sums: dict[str, Tensor] = {}  # of this epoch's losses, each times its number of images
        self._images = 0
        self._batches = 0  # of the epoch that a resumed run is in
        self.place = place
        self.after_network: Callable[[], None] = lambda: None
        """Called in validation between the network and its post-processing, for a clock."""

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
        self._unchecked.append((batch_idx, batch.ids, torch.isfinite(total.detach())))
        logged = total + l2_penalty(self.detector, self.l2).to(total.device) if self.l2 else total
        self._log_losses({"loss": logged, **{f"loss_{name}": value for name, value in losses.items()}}, batch)
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> Detections:  # type: ignore[override]
        """Detections of a batch, for the callbacks."""
        raw = self.detector.outputs(batch.images, settings=self.evaluation, image_sizes=batch.image_sizes)
        self.after_network()
        return self.detector.postprocess(*raw, settings=self.evaluation)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, with its rate set before every step."""
        if self.make_optimizer is None or self.rate is None:
            raise RunError("this module was built to evaluate, not to train")
        rate, devices = self.rate, self.trainer.world_size
        steps = int(self.trainer.estimated_stepping_batches)
        optimizer = self.make_optimizer(self.detector)
        self._groups = group_settings(optimizer)
        self._rate_of = lambda step: devices * rate(step, steps)
        scheduler = LambdaLR(optimizer, self._rate_of)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """A resumed run goes by its own settings, where the optimizer brings those of its checkpoint."""
        for optimizer in self.trainer.optimizers if self.place is not None else ():
            follow(optimizer)  # Lightning puts restored slots on the first device
        for group, settings in zip(self.trainer.optimizers[0].param_groups, self._groups, strict=True):
            group.update(settings)
            # The schedule, too, may have changed; the rate of the next step was computed with the old one.
            group["lr"] = self._rate_of(self.trainer.global_step)
        if self._batches:
            self._loader.skip(self._batches)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make chance a function of the place in the run."""
        torch.manual_seed(self._seed(batch_idx))  # for dropout, which takes no generator

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the epoch's means, and stop at a loss that is no number; asking waits for a GPU, so seldom."""
        waits = self.device.type != "cpu" or self.trainer.world_size > 1
        last = self.trainer.is_last_batch
        if last or not waits or batch_idx % FINITE_EVERY == 0:
            self._check_finite()
        if last:
            sums, images = self._totals()
            means = {f"train/{name}_epoch": value / images for name, value in sums.items()}
            self.log_dict(means, on_step=False, on_epoch=True, batch_size=1, sync_dist=False)
            self._sums, self._images = {}, 0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the texts that say what this model is, and how far it is."""
        sums, images = self._totals()
        share = self.trainer.world_size  # each process goes on with its share of the sum over all
        loop = self.trainer.fit_loop
        progress = {
            "epochs": loop.epoch_progress.state_dict()["current"]["processed"],
            "batches": loop.batch_idx + 1 if sums else 0,
            "images_per_step": self._loader.images_per_step,
            "sums": {name: value / share for name, value in sums.items()},
            "images": images / share,
        }
        checkpoint["frcnn"] = {**self.stored, "progress": progress}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the sums of an epoch that is under way."""
        progress = checkpoint["frcnn"].get("progress", {})
        self._sums, self._images = dict(progress.get("sums", {})), progress.get("images", 0)
        self._batches = progress.get("batches", 0)

    def _check_finite(self) -> None:
        steps, self._unchecked = self._unchecked, []
        flags = torch.stack([flag for *_, flag in steps])
        fine = flags.all().float()
        if self.trainer.world_size > 1:  # all stop, or none
            torch.distributed.all_reduce(fine, op=torch.distributed.ReduceOp.MIN)
        if fine > 0:
            return
        bad = [(step, ids) for (step, ids, _), flag in zip(steps, flags.tolist(), strict=True) if not flag][
            :1
        ]
        if self.trainer.world_size > 1:
            found: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(found, bad)
            bad = [place for places in found for place in places][:1]
        step, ids = bad[0]
        raise RunError(
            "the loss is not a finite number",
            where=f"epoch {self.current_epoch + 1}, step {step + 1}",
            found=f"images of the step: {', '.join(ids)}",
            hint="lower the learning rate, or look at the images and their labels",
        )

    def _log_losses(self, losses: Mapping[str, Tensor], batch: Batch) -> None:
        size, values = len(batch.ids), {name: value.detach() for name, value in losses.items()}
        logged = {f"train/{name}": value for name, value in values.items()}
        self.log_dict(logged, on_step=True, on_epoch=False, batch_size=size)
        before = self._sums or dict.fromkeys(values, torch.zeros(()))
        # Sums of our own, because Lightning does not keep its own in a checkpoint.
        self._sums = {name: before[name].to(self.device) + size * value for name, value in values.items()}
        self._images += size

    @property
    def _loader(self) -> TrainingLoader:
        loader: TrainingLoader = self.trainer.train_dataloader  # type: ignore[assignment]
        return loader

    def _totals(self) -> tuple[dict[str, Tensor], float]:
        """The sums of all processes, and the images that they are of."""
        if not self._sums or self.trainer.world_size == 1:
            return self._sums, self._images
        total = torch.stack([*self._sums.values(), torch.tensor(float(self._images), device=self.device)])
        torch.distributed.all_reduce(total)
        *sums, images = total.unbind()
        return dict(zip(self._sums, sums, strict=True)), float(images)

    def _generator(self, batch_idx: int) -> torch.Generator:
        return torch.Generator(device=self.device).manual_seed(self._seed(batch_idx))

    def _seed(self, batch_idx: int) -> int:
        # A function of the place in the run, so that a resumed run draws what it would have drawn.
        place = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        return hash(place) & 0x7FFF_FFFF_FFFF_FFFF

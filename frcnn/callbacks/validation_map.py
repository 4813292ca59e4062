"""Mean average precision after every validation, gathered from all processes."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from frcnn.metrics import DetectionEvaluator, EvaluationResult
from frcnn.report.tables import coco_table, evaluation_table, render

log = logging.getLogger(__name__)


class ValidationSample(NamedTuple):
    """A validated image on the host, for the report; boxes are xyxy pixels of `image`."""

    id: str
    image: Tensor  # (C, H, W) normalised, without the batch's padding
    gt_boxes: Tensor  # (G, 4)
    gt_labels: Tensor  # (G,), -1 is padding
    gt_difficult: Tensor  # (G,)
    gt_ignored: Tensor  # (I, 4) areas to ignore; padding is 0
    boxes: Tensor  # (N, 4)
    scores: Tensor  # (N,)
    labels: Tensor  # (N,), -1 is unused


class ValidationMap(Callback):
    """Evaluates what `validation_step` returns, and logs `val/mAP`, `val/AP/<class>`, `val/mAP@<IoU>`.

    The step returns `boxes, scores, labels, proposals, proposals_valid` of `frcnn.model`'s `Detections`
    for a `frcnn.data` `Batch`. A figure that is undefined is not logged.

    Args:
        class_names: (K,) names in the order of class ids.
        iou_thresholds: smallest IoU of a match; with several, mAP is their mean.
        voc07: eleven-point metric.
        score_threshold: detections below it do not exist.
        ignore_difficult: difficult objects need not be found.
        tao_quirks: match as the original did.
        batch: images of a validation batch.
        keep_samples: how many images stay in `samples` for the report.
        tables: whether they are logged.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        iou_thresholds: Sequence[float] = (0.5,),
        voc07: bool = False,
        score_threshold: float = 0.0,
        ignore_difficult: bool = True,
        tao_quirks: bool = False,
        batch: int = 1,
        keep_samples: int = 8,
        tables: bool = True,
    ) -> None:
        self.evaluator = DetectionEvaluator(
            class_names,
            iou_thresholds=iou_thresholds,
            voc07=voc07,
            score_threshold=score_threshold,
            ignore_difficult=ignore_difficult,
            tao_quirks=tao_quirks,
            batch=batch,
        )
        self.names = ("val/mAP", *(f"val/AP/{name}" for name in class_names))  # logged unless undefined
        self.keep_samples, self.tables = keep_samples, tables
        self.result: EvaluationResult | None = None
        self.epoch: int | None = None  # of the result, from 1
        self.samples: list[ValidationSample] = []

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start anew."""
        self.evaluator.reset()
        self.samples = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch."""
        self.evaluator.update(
            boxes=outputs.boxes,
            scores=outputs.scores,
            labels=outputs.labels,
            gt_boxes=batch.boxes,
            gt_labels=batch.labels,
            gt_difficult=batch.difficult,
            gt_ignored=batch.ignored,
            gt_ignored_labels=batch.ignored_labels,
            ids=batch.ids,
            proposals=outputs.proposals,
            proposals_valid=outputs.proposals_valid,
            sizes=batch.image_sizes,
            original_sizes=batch.original_sizes,
        )
        for i in range(min(len(batch.ids), self.keep_samples - len(self.samples))):
            height, width = batch.image_sizes[i].int().tolist()
            image = batch.images[i, :, :height, :width]
            truth = (batch.boxes[i], batch.labels[i], batch.difficult[i], batch.ignored[i])
            found = (outputs.boxes[i], outputs.scores[i], outputs.labels[i])
            host = [tensor.detach().cpu() for tensor in (image, *truth, *found)]
            self.samples.append(ValidationSample(batch.ids[i], *host))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate all processes' images, and log the figures and the table."""
        if trainer.sanity_checking:
            return
        if trainer.world_size > 1:
            states: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(states, self.evaluator.state())
            self.evaluator.reset()  # an image that two processes saw counts as the first did, for both
            for state in states:
                self.evaluator.merge(state)
        self.result = result = self.evaluator.compute()
        self.epoch = trainer.current_epoch + (1 if trainer.state.fn == TrainerFn.FITTING else 0)

        figures = {"val/mAP": result.mAP}
        figures |= {f"val/AP/{name}": figure.AP for name, figure in result.per_class.items()}
        if len(result.iou_thresholds) > 1:
            means = zip(result.iou_thresholds, result.mAP_per_iou, strict=True)
            figures |= {f"val/mAP@{threshold:.2f}": mean for threshold, mean in means}
        if trainer.state.fn == TrainerFn.VALIDATING and trainer.current_epoch:
            figures["epoch"] = trainer.current_epoch - 1  # after the training: still its last epoch's
        for name, value in figures.items():
            if value is not None:  # the processes agree; sync_dist only says so to Lightning
                pl_module.log(name, value, sync_dist=trainer.world_size > 1)
        if trainer.is_global_zero and self.tables:
            place = f" after epoch {trainer.current_epoch + 1}" if trainer.state.fn == "fit" else ""
            log.info("validation%s\n%s", place, render(evaluation_table(result)))
            if trainer.state.fn != "fit":
                log.info("%s", render(coco_table(result.coco)))

"""What W&B gets besides Lightning's scalars."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from frcnn.callbacks.validation_map import ValidationMap
from frcnn.data.sample import Sample


class WandbMedia(Callback):
    """Sends settings, the spec as an artifact, and images with boxes that W&B's viewer toggles by class.

    Args:
        logger: where to.
        settings: values by dotted path, W&B's config of the run.
        spec: the experiment's file, made an artifact.
        validation: whose samples are sent after every validation.
        class_names: (K,) in the order of class ids.
        pixels: a normalised image (C, H, W) to (H, W, 3) RGB.
        min_score: detections below it are not sent.
    """

    def __init__(
        self,
        logger: WandbLogger,
        *,
        settings: Mapping[str, object],
        spec: Path,
        validation: ValidationMap,
        class_names: Sequence[str],
        pixels: Callable[[Tensor], NDArray[np.uint8]],
        min_score: float,
    ) -> None:
        self.logger, self.settings, self.spec, self.validation = logger, dict(settings), spec, validation
        self.names, self.pixels, self.min_score = dict(enumerate(class_names)), pixels, min_score

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send settings and spec, and let validation figures be drawn over epochs."""
        if not trainer.is_global_zero:
            return
        import wandb

        run = self.logger.experiment
        run.config.update(self.settings, allow_val_change=True)
        run.define_metric("epoch")
        run.define_metric("val/*", step_metric="epoch")
        artifact = wandb.Artifact(f"spec-{run.id}", type="spec")
        artifact.add_file(str(self.spec))
        run.log_artifact(artifact)

    def show_training(self, samples: Sequence[Sample]) -> None:
        """Send training images with their objects."""
        images = [
            self._image(sample.image, Path(sample.id).name, objects=(sample.boxes, sample.labels))
            for sample in samples
        ]
        self.logger.experiment.log({"augmented_images": images})

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send validated images with ground truth and detections."""
        if not trainer.is_global_zero or not self.validation.samples:
            return
        images = [
            self._image(
                sample.image,
                Path(sample.id).name,
                objects=(sample.gt_boxes, sample.gt_labels),
                detections=(sample.boxes, sample.labels, sample.scores),
            )
            for sample in self.validation.samples
        ]
        epoch = self.validation.epoch
        step = max(trainer.global_step - 1, 0)  # where Lightning puts the figures: it counts from 0
        self.logger.experiment.log({"validation_images": images, "epoch": epoch, "trainer/global_step": step})

    def _image(
        self,
        image: Tensor,
        caption: str,
        *,
        objects: tuple[Tensor, Tensor],
        detections: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Any:
        import wandb

        boxes = {"ground_truth": self._boxes(*objects)}
        if detections is not None:
            boxes["detections"] = self._boxes(*detections)
        return wandb.Image(self.pixels(image), caption=caption, boxes=boxes)

    def _boxes(self, boxes: Tensor, labels: Tensor, scores: Tensor | None = None) -> dict[str, Any]:
        """W&B's overlay of boxes (N, 4) xyxy pixels; labels of -1 are unused slots."""
        certainty = [None] * len(labels) if scores is None else scores.tolist()
        data = []
        for (x1, y1, x2, y2), label, score in zip(boxes.tolist(), labels.tolist(), certainty, strict=True):
            if label < 0 or (score is not None and score < self.min_score):
                continue
            entry = {
                "position": {"minX": x1, "minY": y1, "maxX": x2, "maxY": y2},
                "domain": "pixel",
                "class_id": label,
                "box_caption": self.names[label] if score is None else f"{self.names[label]} {score:.2f}",
            }
            data.append(entry if score is None else entry | {"scores": {"score": score}})
        return {"box_data": data, "class_labels": self.names}

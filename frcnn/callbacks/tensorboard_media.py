"""What TensorBoard gets besides Lightning's scalars."""

from collections.abc import Callable, Sequence

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger

from frcnn.callbacks.validation_map import ValidationMap, ValidationSample
from frcnn.data.sample import Sample

SIDE = 1600  # pixels of a grid's longer side


class TensorBoardMedia(Callback):
    """Writes the spec as text, images with their boxes drawn, and histograms of the weights if asked.

    Args:
        logger: where to.
        spec: the experiment as prototxt.
        validation: whose samples are shown after every validation, as `image/validation`.
        draw_validation: validated images to a grid.
        draw_training: training images to a grid; it is shown by `show_training`.
        weight_histograms: whether every epoch ends with a histogram of each weight. TAO: they came with
            `visualizer.enabled` whatever the flag said, and without the head's layers.
    """

    def __init__(
        self,
        logger: TensorBoardLogger,
        *,
        spec: str,
        validation: ValidationMap,
        draw_validation: Callable[[Sequence[ValidationSample]], Image.Image],
        draw_training: Callable[[Sequence[Sample]], Image.Image],
        weight_histograms: bool = False,
    ) -> None:
        self.logger, self.spec, self.validation = logger, spec, validation
        self.draw_validation, self.draw_training = draw_validation, draw_training
        self.weight_histograms = weight_histograms
        self._step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the spec, indented as Markdown wants code."""
        self._step = trainer.global_step
        if trainer.is_global_zero:
            text = "\n".join(f"    {line}" for line in self.spec.splitlines())
            self.logger.experiment.add_text("spec", text, self._step)

    def show_training(self, samples: Sequence[Sample]) -> None:
        """Write training images. TAO: under `image/augmented_images`."""
        self._image("image/augmented_images", self.draw_training(samples))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write validated images, at the step where Lightning puts the figures: it counts from 0."""
        self._step = max(trainer.global_step - 1, 0)
        if trainer.is_global_zero and self.validation.samples:
            self._image("image/validation", self.draw_validation(self.validation.samples))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the histograms."""
        if self.weight_histograms and trainer.is_global_zero:
            for name, weight in pl_module.named_parameters():
                layer = name.removeprefix("detector.").replace(".", "/")
                values = weight.detach().float().cpu()
                self.logger.experiment.add_histogram(f"weights/{layer}", values, trainer.global_step - 1)

    def _image(self, tag: str, image: Image.Image) -> None:
        image.thumbnail((SIDE, SIDE))
        self.logger.experiment.add_image(tag, np.asarray(image), self._step, dataformats="HWC")

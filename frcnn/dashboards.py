"""What dashboards get of a run besides scalars, as far as its loggers can show it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from frcnn import results
from frcnn.callbacks import FirstSamples, TensorBoardMedia, ValidationMap, WandbMedia
from frcnn.report.training import pixels, training_grid, validation_grid
from frcnn.spec.run import App
from frcnn.spec.training import VisualizerConfig

EVALUATION = ("best", "calibration", "confusion", "PR_curve", "worst")
IMAGES = 12  # augmented images where no visualizer says how many


def media(app: App, folder: Path, loggers: Sequence[Logger], validation: ValidationMap) -> list[Callback]:
    """Callbacks that send spec, images and histograms to TensorBoard and W&B.

    Args:
        app: settings.
        folder: of the run, which holds its spec.txt.
        loggers: of the run.
        validation: whose samples are shown.
    """
    visualizer = app.training_config.visualizer or VisualizerConfig()
    count = visualizer.num_images if visualizer.enabled else IMAGES
    look = results.look(app)
    callbacks: list[pl.Callback] = []
    for logger in loggers:
        board: TensorBoardMedia | WandbMedia
        if isinstance(logger, TensorBoardLogger):
            board = TensorBoardMedia(
                logger,
                spec=results.stored_texts(app)["spec"],
                validation=validation,
                draw_validation=partial(validation_grid, look=look),
                draw_training=partial(training_grid, look=look),
                weight_histograms=visualizer.weight_histograms,
            )
        elif isinstance(logger, WandbLogger):
            board = WandbMedia(
                logger,
                settings={path: _plain(value) for path, value in results.settings(app)},
                spec=folder / "spec.txt",
                validation=validation,
                class_names=look.class_names,
                pixels=partial(pixels, look=look),
                min_score=look.min_score,
            )
        else:
            continue
        callbacks += [board, *([FirstSamples(board.show_training, count=count)] if count else [])]
    return callbacks


def send_evaluation(loggers: Sequence[Logger], report: Path, *, step: int, epoch: int | None) -> None:
    """Send the pictures of an evaluation that lie in a report folder, as `evaluation/<name of the file>`.

    Args:
        loggers: of the run, in its first process.
        report: folder of the pictures.
        step: where they are put.
        epoch: of the evaluation.
    """
    files = sorted(file for name in EVALUATION for file in report.glob(f"{name}*.png"))
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            for file in files:
                with Image.open(file) as image:
                    array = np.asarray(image.convert("RGB"))
                logger.experiment.add_image(f"evaluation/{file.stem}", array, step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            import wandb

            pictures = {f"evaluation/{file.stem}": wandb.Image(str(file)) for file in files}
            logger.experiment.log({**pictures, "epoch": epoch, "trainer/global_step": step})


def _plain(value: object) -> object:
    """A value as JSON has it: an IntEnum by its name."""
    return getattr(value, "name", value)

"""Lightning as a run uses it: the trainer, how it ends, and what it need not say."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from frcnn.callbacks import TrainingProgress
from frcnn.checkpoint_io import AtomicCheckpointIO
from frcnn.errors import RunError
from frcnn.spec.run import App, Trainer


def make_trainer(app: App, folder: Path, callbacks: list[pl.Callback], *, logger: Any) -> pl.Trainer:
    """Lightning's trainer as the settings want it.

    Args:
        app: settings.
        folder: of the run.
        callbacks: in the order in which they are called.
        logger: Lightning loggers, or False for none.
    """
    options = app.trainer
    return pl.Trainer(
        accelerator=options.accelerator,
        devices=int(options.devices) if options.devices.isdigit() else options.devices,
        num_nodes=options.num_nodes,
        strategy=options.strategy,
        precision=options.precision,  # type: ignore[arg-type]
        gradient_clip_val=options.gradient_clip_val or None,
        accumulate_grad_batches=options.accumulate_grad_batches,
        limit_train_batches=_share_or_number(options.limit_train_batches),
        limit_val_batches=_share_or_number(options.limit_val_batches),
        max_epochs=app.training_config.num_epochs,
        check_val_every_n_epoch=app.evaluation_config.validation_period_during_training,
        num_sanity_val_steps=0,
        log_every_n_steps=50 if torch.cuda.is_available() else 1,  # reading a loss waits for a GPU
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, TrainingProgress) for callback in callbacks),
        callbacks=callbacks,
        logger=logger,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
    )


def starts_processes(options: Trainer) -> bool:
    """Whether Lightning would start further processes for further devices."""
    if options.devices == "auto" and options.strategy == "auto":
        return options.accelerator in ("auto", "gpu") and torch.cuda.device_count() > 1
    return options.strategy != "auto" or options.devices != "1"


def finish_wandb(kind: type[BaseException] | None, *_: object) -> None:
    """Close the run of W&B, which Lightning leaves open, so that the next job of a sweep has its own."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=0 if kind is None else 1)


def _share_or_number(text: str) -> int | float:
    return int(text) if text.isdigit() else float(text)


@contextmanager
def lightning_ends(folder: Path) -> Iterator[None]:
    """Lightning's ways to end, in ours."""
    try:
        yield
    except SystemExit:
        # Lightning closes an interrupted run and exits; the entry point wants the interruption itself.
        raise KeyboardInterrupt from None
    except OSError as error:
        raise RunError("the run could not go on", where=folder, found=error) from error


def leave_processes() -> None:
    """Forget the other processes of a run, so that the next job of a sweep starts its own."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's advice that does not apply here, such as on its own log folder."""
    with warnings.catch_warnings():
        for module in ("pytorch_lightning", "lightning_fabric"):
            warnings.filterwarnings("ignore", module=rf"{module}\..*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        yield

"""Checkpoints every few epochs or steps, besides the last and the best one."""

import logging
from pathlib import Path
from typing import Any, TypedDict

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.exceptions import SIGTERMException

from frcnn.checkpoint_io import AtomicCheckpointIO, link_checkpoint
from frcnn.folder import is_first_process

log = logging.getLogger(__name__)


class Best(TypedDict):
    """The epoch (from 1) with the highest mAP so far, and the file name that holds it."""

    epoch: int
    mAP: float
    checkpoint: str


class CheckpointInterval(Checkpoint):
    """Saves `<stem>.epoch_<n>.ckpt` every `interval` epochs, `last.ckpt` always, `best.ckpt` by `val/mAP`.

    Every epoch is serialised once: the other names of a checkpoint are links to the same bytes. A run that
    is interrupted keeps the files of its last whole epoch, or those of a later step with `every_n_steps`. One
    that is told to end (SIGTERM) leaves last.ckpt as it is then.

    Args:
        folder: where the files go.
        stem: how numbered files begin, such as `frcnn_resnet_18`.
        interval: epochs between two numbered files.
        total_epochs: epochs of the whole run, to say when no numbered file can come of it.
        keep: numbered files that stay, the newest ones; 0: all.
        every_n_steps: optimizer steps between two updates of last.ckpt within an epoch; 0: none.
        suffix: of the files; `.ckpt.enc` seals them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        stem: str = "frcnn_resnet_18",
        interval: int = 1,
        total_epochs: int,
        keep: int = 0,
        every_n_steps: int = 0,
        suffix: str = ".ckpt",
    ) -> None:
        self.folder, self.stem, self.interval, self.total_epochs = Path(folder), stem, interval, total_epochs
        self.keep, self.every_n_steps, self.suffix = keep, every_n_steps, suffix
        self.best: Best | None = None
        self._saved_step = 0
        self._told = False  # to end, at the next place where that can be

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warn of an interval that is never reached. TAO: then it saved nothing."""
        if self.interval > self.total_epochs:
            log.warning(
                "checkpoint_interval %d is more than the %d epochs: only last.ckpt and best.ckpt are saved",
                self.interval,
                self.total_epochs,
            )

        self._saved_step = trainer.global_step

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the logs of whole epochs reach the disk: a resumed run does not write them again."""
        for logger in trainer.loggers:
            logger.save()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch; at its end there is a checkpoint anyway."""
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            self._hold(trainer)
        else:
            self._release(trainer)
        due = self.every_n_steps and trainer.global_step - self._saved_step >= self.every_n_steps
        if due and not trainer.is_last_batch:
            self._save_last(trainer)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Half a validation is nothing that a run could go on with, so it is finished."""
        self._hold(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save what a run has that is told to end; Lightning tells it between two steps."""
        if not isinstance(exception, SIGTERMException) or trainer.state.fn != TrainerFn.FITTING:
            return
        if trainer.global_step > self._saved_step:
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save; this epoch's validation, if it had one, is over."""
        epoch = trainer.current_epoch + 1
        # Without validation in this epoch the metric is an old one, which cannot beat itself.
        mean = float(trainer.callback_metrics.get("val/mAP", -1.0))
        improved = self._improves(mean, epoch)
        last, numbered = self._file("last"), self._file(f"{self.stem}.epoch_{epoch}")
        saved = numbered if epoch % self.interval == 0 else last
        trainer.save_checkpoint(saved, weights_only=False)
        if trainer.is_global_zero:
            if improved:
                link_checkpoint(saved, self._file("best"))
            if saved != last:
                link_checkpoint(saved, last)
                self._thin_out(epoch)
        self._saved_step = trainer.global_step
        if epoch < (trainer.max_epochs or 0):  # the last epoch ends the run anyway
            self._release(trainer)

    def judge_last(self, mean: float, *, epoch: int) -> None:
        """Make last.ckpt the best if a validation after the end says so."""
        if self._improves(mean, epoch) and is_first_process():
            link_checkpoint(self._file("last"), self._file("best"))

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}{self.suffix}"

    def _save_last(self, trainer: pl.Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self._file("last"), weights_only=False)
        self._saved_step = trainer.global_step

    def _thin_out(self, epoch: int) -> None:
        """Remove the oldest numbered files; best.ckpt and last.ckpt keep their bytes."""
        found = self.folder.glob(f"*.epoch_*{self.suffix}")
        files = {int(file.name.removesuffix(self.suffix).rpartition("_")[2]): file for file in found}
        numbers = sorted(number for number in files if number <= epoch)
        for old in numbers[: -self.keep] if self.keep else ():
            files[old].unlink()

    def _hold(self, trainer: pl.Trainer) -> None:
        """Put SIGTERM off, at which Lightning would stop where a run cannot go on exactly."""
        if trainer.received_sigterm:
            self._told, trainer._signal_connector.received_sigterm = True, False

    def _release(self, trainer: pl.Trainer) -> None:
        if self._told:
            self._told, trainer._signal_connector.received_sigterm = False, True

    def _improves(self, mean: float, epoch: int) -> bool:
        improves = mean > (self.best["mAP"] if self.best else -1.0)
        if improves:
            self.best = Best(epoch=epoch, mAP=mean, checkpoint=self._file("best").name)
        return improves

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to beat."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from an earlier best, unless its file is not there: then the next validation is the best."""
        best = state_dict["best"]
        there = best and self._epoch_of(self.folder / best["checkpoint"]) == best["epoch"]
        self.best = best if there else None

    def _epoch_of(self, file: Path) -> int | None:
        """How many epochs a checkpoint has behind it; None without one."""
        if not file.exists():
            return None
        return int(AtomicCheckpointIO().load_checkpoint(file)["epoch"]) + 1

"""The command `train`."""

import copy
import logging
import time
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from frcnn import build, results
from frcnn.auto_batch import free_memory, largest_batch, step_memory
from frcnn.callbacks import (
    CheckpointInterval,
    FirstSamples,
    LastWords,
    LossEarlyStopping,
    LrMonitor,
    OptimizedMetric,
    QuantizationAware,
    Throughput,
    TrainingProgress,
    ValidationMap,
    WeightEMA,
)
from frcnn.dashboards import media, send_evaluation
from frcnn.describe import network_summary, split_summary
from frcnn.export import check_settings, export_model, refuse_parted
from frcnn.folder import checkpoint_named, is_first_process, run_of
from frcnn.lit_module import LitFasterRCNN
from frcnn.loggers import open_loggers
from frcnn.model.detector import FasterRCNN
from frcnn.model.parallel import place
from frcnn.quantize.ranges import METHODS
from frcnn.record import RunRecord
from frcnn.resume import check_step_size, checkpoint_to_resume
from frcnn.session import checkpoint_suffix, prepare, session, validation_map
from frcnn.spec.run import App
from frcnn.start import start
from frcnn.trainer import device_groups, lightning_ends, make_trainer, mixed_precision, training_device
from frcnn.weights.checkpoint import Checkpoint

log = logging.getLogger(__name__)


def train(app: App, folder: Path) -> float | None:
    """Train and validate a detector.

    Args:
        app: checked settings.
        folder: folder of the run; it must not hold one already (interface 19).

    Returns:
        The metric that `run.optimize` names, as it was logged last; None if it is undefined, as mAP is
        without validation.

    Raises:
        FrcnnError: wrong input, or a run that could not go on.
        KeyboardInterrupt: Ctrl-C, after the run was closed.
    """
    suffix = checkpoint_suffix(app)
    if app.export.at_end:
        check_settings(app)
    with session(app, folder, "train") as status:
        pl.seed_everything(app.random_seed, workers=True, verbose=False)
        resumed = checkpoint_to_resume(app, folder)
        begin = start(app, resumed)
        groups = device_groups(app)
        model = network_summary(app, begin.detector)
        if groups:
            log.info("%s", split_summary(app, begin.detector, groups))
        if begin.report is not None:
            log.info("%s", begin.report.table())
        if app.run.dry_run:
            status.write("SUCCESS", "The network was described; nothing was trained.")
            return None
        data = prepare(app)
        if app.run.auto_batch and data.module.train is not None:
            data.module.batch_size = _choose_batch(app, begin.detector, images=len(data.module.train))
        if app.run.compile:
            begin.detector.compile_stages()
        module = LitFasterRCNN(
            detector=begin.detector,
            evaluation=build.detection_settings(app.evaluation_config, tao_quirks=app.run.tao_quirks),
            make_optimizer=build.optimizer(app),
            rate=build.schedule(app, tao_quirks=app.run.tao_quirks),
            l1=build.penalty(app, "L1"),
            l2=build.penalty(app, "L2"),
            seed=app.random_seed,
            place=partial(place, fractions=app.training_config.model_parallelism, groups=groups)
            if groups
            else None,
            stored=results.stored_texts(app) | begin.traits,
        )
        validation, progress = validation_map(app), TrainingProgress()
        record = RunRecord(
            app, folder, "train", model, data, validation, progress, resumed=resumed is not None
        )
        checkpoints = CheckpointInterval(
            folder / "checkpoints",
            stem=f"frcnn_{app.model_config.arch.replace(':', '_')}",
            interval=app.training_config.checkpoint_interval,
            total_epochs=app.training_config.num_epochs,
            keep=app.run.keep_checkpoints,
            every_n_steps=app.run.save_every_n_steps,
            suffix=suffix,
        )
        callbacks: list[pl.Callback] = [checkpoints, LrMonitor(), Throughput(), status, progress]
        callbacks += [FirstSamples(record.show_training, count=12)]
        callbacks += [validation, _ValidateLast()] if data.validation else []
        if app.training_config.enable_qat:
            callbacks.append(_quantization(app))
        if app.run.ema_decay:
            callbacks.append(WeightEMA(decay=app.run.ema_decay))
        callbacks.append(OptimizedMetric(app.run.optimize, sometimes=validation.names))
        if stopping := app.training_config.early_stopping:
            callbacks.append(LossEarlyStopping(patience=stopping.patience, min_delta=stopping.min_delta))
        callbacks += [record.history, LastWords(record.write_end)]
        trainer = make_trainer(app, folder, callbacks, groups=groups)
        from_step = 0
        if resumed is not None:
            stored = Checkpoint(resumed)
            check_step_size(stored, images=app.training_config.batch_size_per_gpu * trainer.world_size)
            from_step = stored.steps if run_of(resumed) == folder.resolve() else 0
        # From here on the folder is this run's.
        results.store_settings(app, folder)
        if begin.report is not None:
            results.store_report(begin.report, folder)
        since = time.perf_counter()
        with open_loggers(app, folder, from_step=from_step) as loggers, lightning_ends(trainer, folder):
            trainer.loggers = loggers
            trainer.callbacks[:0] = media(app, folder, loggers, validation)  # type: ignore[attr-defined]
            trainer.fit(module, datamodule=data.module, ckpt_path=resumed, weights_only=True)
            epochs, metrics = trainer.current_epoch, dict(trainer.callback_metrics)
            if data.validation and validation.epoch != epochs:  # stopped early, between two validations
                trainer.validate(module, datamodule=data.module, verbose=False)
                checkpoints.judge_last(_mean(validation), epoch=epochs)
                metrics |= trainer.callback_metrics
            if trainer.is_global_zero:
                record.draw_evaluation()
                step = max(trainer.global_step - 1, 0)  # where Lightning puts the figures: it counts from 0
                send_evaluation(loggers, folder / "report", step=step, epoch=validation.epoch)
        score = _finite(metrics.get(app.run.optimize))
        found = results.collect(app, validation, "train", seconds=time.perf_counter() - since)
        found |= {
            "model": f"checkpoints/last{checkpoints.suffix}",
            "images_per_second": progress.images_per_second,
            "epoch": epochs,
            "best": checkpoints.best,
            "optimized": {"metric": app.run.optimize, "value": score},
            "data": {
                "training": data.training.to_dict() if data.training else None,
                "validation": data.validation.to_dict() if data.validation else None,
            },
        }
        results.write(folder, found)
        record.write()
        if app.export.at_end and is_first_process():
            best = checkpoint_named("best" if checkpoints.best else "last", folder)
            _export_best(app, best, folder / "export")
        status.write("SUCCESS", "Training finished successfully.")
        return score


class _ValidateLast(pl.Callback):
    """The last epoch is validated whatever the period, so that results.json speaks of last.ckpt."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.on_train_epoch_start(trainer, pl_module)  # a run may go on within its last epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1


def _choose_batch(app: App, detector: FasterRCNN, *, images: int) -> int:
    """Find the batch size and make it the settings' own."""
    device = training_device(app)
    memory = step_memory(
        detector,
        size=build.largest_size(app),
        channels=build.channels(app),
        max_objects=app.model_config.input_image_config.max_objects_num_per_image,
        make_optimizer=build.optimizer(app),
        device=device,
        precision=partial(mixed_precision, app, device),
    )
    # An epoch of less than ten steps would leave the schedule nothing to do.
    batch = largest_batch(memory, available=free_memory(device), most=max(images // 10, 1))
    gibibytes = (memory.fixed + batch * memory.per_image) / 2**30
    log.info("batch_size_per_gpu is %d: %.2f GiB for a step; the learning rate stays", batch, gibibytes)
    app.training_config.batch_size_per_gpu = batch
    app.run.auto_batch = False  # a run that goes on, and its other processes, keep this size
    return batch


def _quantization(app: App) -> QuantizationAware:
    settings = app.quantize
    return QuantizationAware(
        rule=METHODS[settings.method](settings.percentile),
        batches=settings.batches,
        fixed=settings.ranges == "fixed",
        freeze_at=settings.freeze_at,
    )


def _export_best(app: App, checkpoint: Path, folder: Path) -> None:
    """TAO has a callback for it; only behind the last validation is it clear which checkpoint is the best."""
    folder.mkdir(exist_ok=True)
    app = copy.deepcopy(app)
    app.run.model_path = str(checkpoint)
    found = export_model(app, folder)
    results.write(folder, found)
    refuse_parted(found, folder)


def _finite(value: Tensor | None) -> float | None:
    return float(value) if value is not None and torch.isfinite(value) else None


def _mean(validation: ValidationMap) -> float:
    mean = validation.result.mAP if validation.result else None
    return -1.0 if mean is None else mean

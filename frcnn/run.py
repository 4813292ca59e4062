"""Commands as functions: settings and a folder in, a finished run out."""

import copy
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from frcnn import build, preview, results
from frcnn.auto_batch import free_memory, largest_batch, step_memory
from frcnn.backend import LitBackend, TorchBackend, open_backend
from frcnn.callbacks import (
    CheckpointInterval,
    FirstSamples,
    LastWords,
    LossEarlyStopping,
    LrMonitor,
    OptimizedMetric,
    QuantizationAware,
    StageTimes,
    StatusWriter,
    Throughput,
    TrainingProgress,
    ValidationMap,
    WeightEMA,
)
from frcnn.dashboards import media
from frcnn.data.index import overlap
from frcnn.encryption import model_suffix, needed_key
from frcnn.errors import RunError, SpecError
from frcnn.export import check_settings, export_model
from frcnn.folder import checkpoint_named, claimed, is_first_process, logged, run_of
from frcnn.infer import infer_pictures
from frcnn.lit_module import LitFasterRCNN
from frcnn.loggers import open_loggers
from frcnn.model.detector import FasterRCNN, channel_plan
from frcnn.model.parallel import place
from frcnn.parity import compare_models, refuse_parting, validation_batches, write_parity
from frcnn.processes import agreed, own_group
from frcnn.pruning import Pruner, sensitivity
from frcnn.quantization import pictures, quantize_trained, training_images
from frcnn.quantize import activation_scales, trait
from frcnn.quantize.ranges import METHODS
from frcnn.record import RunRecord
from frcnn.report.pruning import filters_figure, sensitivity_figure
from frcnn.report.quantization import SHARES, errors_figure
from frcnn.report.summary import split_rows, summary_rows
from frcnn.report.tables import data_table, render, rows_table
from frcnn.resume import check_resume, check_step_size, checkpoint_to_resume
from frcnn.spec.run import App
from frcnn.spec.values import class_names, dead_fields, iou_thresholds, replace_zeros
from frcnn.start import locate_weights, start
from frcnn.trainer import (
    device_groups,
    lightning_ends,
    make_trainer,
    mixed_precision,
    quiet,
    reproducible,
    stopped_by_sigterm,
    training_device,
)
from frcnn.weights.checkpoint import Checkpoint, save_detector

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
    suffix = _checkpoint_suffix(app)
    if app.export.at_end:
        check_settings(app)
    with _run(app, folder, "train") as status:
        pl.seed_everything(app.random_seed, workers=True, verbose=False)
        resumed = checkpoint_to_resume(app, folder)
        begin = start(app, resumed)
        groups = device_groups(app)
        model = _summary(app, begin.detector)
        if groups:
            log.info("%s", _split(app, begin.detector, groups))
        if begin.report is not None:
            log.info("%s", begin.report.table())
        if app.run.dry_run:
            status.write("SUCCESS", "The network was described; nothing was trained.")
            return None
        data = _prepare(app)
        if app.run.auto_batch and data.module.train is not None:
            data.module.batch_size = _choose_batch(app, begin.detector, images=len(data.module.train))
        if app.run.compile:
            begin.detector.compile_stages()
        module = LitFasterRCNN(
            detector=begin.detector,
            evaluation=build.detection_settings(app.evaluation_config),
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
        validation, progress = _validation(app), TrainingProgress()
        record = RunRecord(app, folder, "train", model, data, validation, progress)
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


def evaluate(app: App, folder: Path) -> float | None:
    """Evaluate a checkpoint on its validation data; arguments, result and errors as in `train`."""
    with _run(app, folder, "evaluate") as status:
        data = _prepare(app, train=False)
        if data.validation is None:
            hint = "set validation_fold or validation_data_source, or give spec=FILE with one of them"
            raise SpecError("there is no validation data", where="dataset_config", hint=hint)
        backend = open_backend(app, app.evaluation_config)
        ours = backend if isinstance(backend, TorchBackend) else None
        results.store_settings(app, folder)
        validation = _validation(app)
        model, progress = _summary(app, ours.detector) if ours else [], TrainingProgress()
        times = StageTimes()
        record = RunRecord(app, folder, "evaluate", model, data, validation, progress, times=times)
        callbacks = [times, validation, progress, LastWords(record.write_end)]
        trainer = make_trainer(app, folder, callbacks)
        if app.trainer.limit_val_batches != "1.0":
            limit = app.trainer.limit_val_batches
            log.warning("trainer.limit_val_batches is %s: not all images count; 1.0 takes all", limit)
        status.write("STARTED", "Starting evaluation.")
        start = time.perf_counter()
        with lightning_ends(trainer, folder):
            trainer.validate(LitBackend(backend), datamodule=data.module, verbose=False)
        seconds = time.perf_counter() - start
        found = results.collect(app, validation, "evaluate", seconds=seconds)
        found |= {
            "model": app.run.model_path,
            "images_per_second": found["images"] / seconds,
            "epoch": getattr(backend, "epochs", None),
            "milliseconds_per_image": times.medians(),
            "best": None,
            "data": {"training": None, "validation": data.validation.to_dict()},
        }
        stages = (f"{name} {value:.1f} ms" for name, value in times.medians().items())
        log.info("an image takes: %s (medians)", ", ".join(stages))
        results.write(folder, found)
        record.write()
        status.write("SUCCESS", "Evaluation finished successfully.", kpi={"mAP": found["mAP"]})
        return found["mAP"]  # type: ignore[no-any-return]


def prune(app: App, folder: Path) -> None:
    """Cut the weak channels out of a checkpoint's network; arguments and errors as in `train`."""
    settings = app.prune
    target = _place_of_checkpoint(
        app, settings.output_file or folder / f"pruned{_checkpoint_suffix(app)}", "prune.output_file"
    )
    with _run(app, folder, "prune") as status:
        data = _prepare(app, train=False) if settings.sensitivity else None
        if data is not None and data.validation is None:
            raise SpecError("needs validation data", where="prune.sensitivity", hint="set validation_fold")
        stored = Checkpoint(app.run.model_path)
        detector = build.build_detector(app, plan=stored.channels)
        stored.load_into(detector)
        pruner = Pruner(app, detector)
        threshold = settings.threshold
        if settings.target_ratio:
            threshold = pruner.threshold_for(settings.target_ratio, settings.target)
            log.info("prune.threshold %s leaves that share of the %s", threshold, settings.target)
        results.store_settings(app, folder)
        status.write("STARTED", "Starting pruning.")
        pruned = pruner.prune(threshold)
        save_detector(pruned.detector, target, stored=results.stored_texts(app) | stored.traits)
        shares = pruner.shares(pruned.size)
        log.info(
            "%s", render(rows_table(pruned.rows, title=f"{app.model_config.arch}, filters of each layer"))
        )
        log.info("parameters: %s of %s", f"{pruned.size.parameters:,}", f"{pruner.size.parameters:,}")
        log.info(
            "GFLOPs: %.4g of %.4g, %.4f of them", *(pruned.size.gflops, pruner.size.gflops, shares["flops"])
        )
        log.info("Pruning ratio (pruned model / original model): %.4f", shares["parameters"])
        filters_figure(pruned.rows, shares=shares, threshold=threshold).savefig(
            folder / "pruning.png", dpi=120
        )
        found: dict[str, Any] = {
            "schema": 1,
            "command": "prune",
            "mAP": None,
            "per_class": {},
            "model": app.run.model_path,
            "checkpoint": str(target),
            "threshold": threshold,
            "before": pruner.size._asdict(),
            "after": pruned.size._asdict(),
            "ratio": shares,
            "layers": pruned.rows,
            "versions": results.versions(),
        }
        if data is not None:
            rows = list(sensitivity(pruner, partial(_score, app, folder, data)))
            log.info("%s", render(rows_table(rows, title="before any retraining")))
            sensitivity_figure(rows).savefig(folder / "sensitivity.png", dpi=120)
            found["sensitivity"] = rows
        results.write(folder, found)
        # TAO: millions and MiB.
        kpi = {
            "pruning_ratio": shares["parameters"],
            "param_count": pruned.size.parameters / 1e6,
            "size": target.stat().st_size / 2**20,
        }
        status.write("SUCCESS", "Pruning finished successfully.", kpi=kpi)


def quantize(app: App, folder: Path) -> None:
    """Calibrate a checkpoint's network for int8; arguments and errors as in `train`."""
    settings = app.quantize
    target = _place_of_checkpoint(
        app, settings.output_file or folder / f"quantized{_checkpoint_suffix(app)}", "quantize.output_file"
    )
    with _run(app, folder, "quantize") as status:
        app.training_config.enable_augmentation = False
        validated = bool(
            app.dataset_config.validation_data_source or app.dataset_config.validation_fold is not None
        )
        data = _prepare(app, train=not settings.image_dir) if validated or not settings.image_dir else None
        stored = Checkpoint(app.run.model_path)
        if "quantized" in stored.traits:
            hint = "evaluate.py evaluates it; quantise the checkpoint that it was made of"
            raise SpecError("is quantised already", where=app.run.model_path, hint=hint)
        detector = build.build_detector(app, plan=stored.channels)
        stored.load_into(detector)
        results.store_settings(app, folder)
        status.write("STARTED", "Starting quantisation.")
        scored = data if data and data.validation else None
        before = _score(app, folder, scored, detector) if scored else None
        batches = partial(pictures, app, detector)
        if data is not None and not settings.image_dir:
            batches = partial(training_images, app, data)
        traits = dict(stored.traits)
        rows = quantize_trained(app, detector, batches, ranges=traits.pop("activation_scales", {}))
        traits["quantized"] = trait(detector)
        save_detector(detector, target, stored=results.stored_texts(app) | traits)
        after = _score(app, folder, scored, detector) if scored else None
        title = "rounding's share of each layer's output, %"
        shown = [{key: 100 * value if key in SHARES else value for key, value in row.items()} for row in rows]
        log.info("%s", render(rows_table(shown, title=title)))
        worst = ", ".join(row["layer"] for row in rows[:3])
        log.info("most in %s; quantize.skip=[%s] leaves the first in float", worst, rows[0]["layer"])
        if scored:
            log.info("mAP in float: %s, quantised: %s", *(_shown(value) for value in (before, after)))
        errors_figure(rows).savefig(folder / "quantization.png", dpi=120)
        found = {
            "schema": 1,
            "command": "quantize",
            "mAP": after,
            "mAP_float": before,
            "per_class": {},
            "model": app.run.model_path,
            "checkpoint": str(target),
            "method": settings.method,
            "skipped": traits["quantized"]["skip"],
            "activation_scales": activation_scales(detector),
            "layers": rows,
            "versions": results.versions(),
        }
        results.write(folder, found)
        kpi = {} if after is None else {"mAP": after}
        status.write("SUCCESS", "Quantisation finished successfully.", kpi=kpi)


def preview_augmentation(app: App, folder: Path) -> None:
    """Draw what each augmentation does to training images; arguments and errors as in `train`."""
    with _run(app, folder, "preview_augmentation") as status:
        data = _prepare(app)
        if data.module.train is None:
            raise SpecError("there is no training data", where="dataset_config.data_sources")
        results.store_settings(app, folder)
        status.write("STARTED", "Starting preview of the augmentation.")
        sheets = preview.write_sheets(app, data.module.train, folder)
        status.write("SUCCESS", f"{len(sheets)} contact sheets in {folder}")


def infer(app: App, folder: Path) -> None:
    """Find objects in pictures without labels; arguments and errors as in `train`."""
    with _run(app, folder, "infer") as status:
        for notice in (*replace_zeros(app), *dead_fields(app)):
            log.info("%s", notice)
        status.write("STARTED", "Starting inference.")
        try:
            found = infer_pictures(app, folder)
        except OSError as error:
            raise RunError("the run could not go on", where=folder, found=error) from error
        results.write(folder, found)
        kpi = {key: found[key] for key in ("images", "objects")}
        status.write("SUCCESS", "Inference finished successfully.", kpi=kpi)


def export(app: App, folder: Path) -> None:
    """Export a checkpoint as ONNX, with what runs it; arguments and errors as in `train`."""
    with _run(app, folder, "export") as status:
        for notice in (*replace_zeros(app), *dead_fields(app)):
            log.info("%s", notice)
        status.write("STARTED", "Starting export.")
        found = export_model(app, folder)
        results.write(folder, found)
        _refuse_parting(found, folder)
        # TAO: millions and MiB.
        status.write("SUCCESS", "Export finished successfully.", kpi=found["kpi"])


def parity(app: App, folder: Path) -> None:
    """Compare two model files on the same images; arguments and errors as in `train`.

    Raises:
        RunError: they part where they may not.
    """
    with _run(app, folder, "parity") as status:
        for notice in (*replace_zeros(app), *dead_fields(app)):
            log.info("%s", notice)
        results.store_settings(app, folder)
        status.write("STARTED", "Starting comparison.")
        found = compare_models(app, app.run.compare, loader=validation_batches(app))
        write_parity(found, folder)
        results.write(folder, found | {"versions": results.versions()})
        refuse_parting(found, folder)
        status.write("SUCCESS", "The two models agree.")


def _refuse_parting(found: dict[str, Any], folder: Path) -> None:
    for name in ("parity", "parity_int8"):
        if found[name] is not None:
            refuse_parting(found[name], folder, stem=name)


def _export_best(app: App, checkpoint: Path, folder: Path) -> None:
    """TAO has a callback for it; only behind the last validation is it clear which checkpoint is the best."""
    folder.mkdir(exist_ok=True)
    app = copy.deepcopy(app)
    app.run.model_path = str(checkpoint)
    found = export_model(app, folder)
    results.write(folder, found)
    _refuse_parting(found, folder)


class _ValidateLast(pl.Callback):
    """The last epoch is validated whatever the period, so that results.json speaks of last.ckpt."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.on_train_epoch_start(trainer, pl_module)  # a run may go on within its last epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1


@contextmanager
def _run(app: App, folder: Path, command: str) -> Iterator[StatusWriter]:
    """A run folder that is claimed, logged to, and told how the run ended."""
    if app.run.resume and command != "train":
        raise SpecError("only training resumes", where="run.resume", hint="hydra.run.dir=ANOTHER_FOLDER")
    notices: list[str] = []
    resumed = None
    if command == "train":
        locate_weights(app)
        resumed = checkpoint_to_resume(app, folder)
    if resumed is not None and resumed.exists():
        notices = check_resume(app, resumed)
    here = resumed is not None and (app.run.resume or run_of(resumed) == folder.resolve())
    options = app.run
    read = Path(options.model_path) if options.model_path else resumed
    status = StatusWriter(folder / "status.json")
    with ExitStack() as stack:
        stack.enter_context(
            claimed(folder, resume=resumed if here else None, overwrite=options.overwrite, keep=read)
        )
        stack.enter_context(logged(folder, debug=app.verbose))
        stack.enter_context(quiet())
        stack.enter_context(reproducible(options.deterministic))
        for notice in notices:
            log.info("%s", notice)
        stack.enter_context(own_group(folder))
        stack.enter_context(stopped_by_sigterm(folder))
        try:
            yield status
        except KeyboardInterrupt:
            status.write("FAILURE", "The run was interrupted.")
            if checkpoint_named("last", folder).exists():
                log.warning("interrupted; go on with: run.resume=last hydra.run.dir=%s", folder)
            else:
                log.warning("interrupted before the first checkpoint")
            raise
        except Exception as error:
            cause = agreed(folder, error)
            log.error("%s", cause, extra={"file_only": True})  # the entry point prints it
            status.write("FAILURE", str(cause) or type(cause).__name__, verbosity="ERROR")
            if cause is error:
                raise
            raise cause from error


def _checkpoint_suffix(app: App) -> str:
    """What the names of checkpoints end with.

    Raises:
        SpecError: they are to be encrypted, and there is no key.
    """
    if not app.run.encrypt_checkpoints:
        return ".ckpt"
    needed_key(where="run.encrypt_checkpoints")
    return ".ckpt.enc"


def _prepare(app: App, *, train: bool = True) -> build.Data:
    """Find and read the data, and say what will happen to it."""
    pl.seed_everything(app.random_seed, workers=True, verbose=False)
    for notice in (*replace_zeros(app), *dead_fields(app), *(_defaults_taken(app) if train else ())):
        log.info("%s", notice)
    build.locate_data(app, app.run, train=train)
    workers = app.run.num_workers
    if workers < 0:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = min(8, cores // 2 // max(torch.cuda.device_count(), 1))
    data = build.build_data(app, app.run, num_workers=workers, train=train)
    for name, table in (("training", data.training), ("validation", data.validation)):
        for source in table.sources if table else ():
            log.info("%s\n", render(data_table(source, split=name)))
    if data.module.train is not None and data.module.validation is not None:
        share = overlap(data.module.validation.index, data.module.train.index)
        if share > 0:
            log.warning("%.1f %% of the validation images are training images too", 100 * share)
    elif data.module.validation is None:
        log.warning("no validation: neither validation_fold nor validation_data_source is set")
    return data


def _defaults_taken(app: App) -> Iterator[str]:
    if adam := app.training_config.optimizer.adam:
        yield f"adam: beta_1 {adam.beta_1:g}, beta_2 {adam.beta_2:g}, epsilon {adam.epsilon:g}"
    if sgd := app.training_config.optimizer.sgd:
        yield f"sgd: momentum {sgd.momentum:g}"
    training = app.training_config
    schedule = training.learning_rate.soft_start or training.learning_rate.step
    optimizer = training.optimizer.adam or training.optimizer.sgd or training.optimizer.rmsprop
    if schedule and optimizer and optimizer.lr not in (0, schedule.base_lr):
        yield f"the schedule's base_lr {schedule.base_lr:g} counts, not the optimizer's lr {optimizer.lr:g}"
    for block in (app.evaluation_config, app.inference_config):
        name = "evaluation_config" if block is app.evaluation_config else "inference_config"
        yield (
            f"{name}: proposals {block.rpn_pre_nms_top_N}/{block.rpn_nms_max_boxes} at IoU "
            f"{block.rpn_nms_overlap_threshold:g}, detections {block.classifier_nms_max_boxes} at IoU "
            f"{block.classifier_nms_overlap_threshold:g}, score from {block.object_confidence_thres:g}"
        )


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


def _validation(app: App) -> ValidationMap:
    evaluation = app.evaluation_config
    return ValidationMap(
        class_names(app.dataset_config),
        iou_thresholds=iou_thresholds(evaluation, tao_quirks=app.run.tao_quirks),
        voc07=evaluation.use_voc07_11point_metric,
        score_threshold=evaluation.object_confidence_thres,
        ignore_difficult=app.run.difficult == "ignore",
        tao_quirks=app.run.tao_quirks,
        batch=evaluation.batch_size,
        keep_samples=12,
    )


def _place_of_checkpoint(app: App, named: str | Path, field: str) -> Path:
    """Where a command writes its checkpoint."""
    target = Path(named)
    if model_suffix(target) != ".ckpt" or target.resolve() == Path(app.run.model_path).resolve():
        allowed = "NAME.ckpt or NAME.ckpt.enc, and not the file that is read"
        raise SpecError("is no place for the checkpoint", where=field, found=target, allowed=allowed)
    return target


def _shown(score: float | None) -> str:
    return "undefined" if score is None else f"{score:.4f}"


def _score(app: App, folder: Path, data: build.Data, detector: FasterRCNN) -> float | None:
    """The mAP of a detector on the validation data."""
    validation = _validation(app)
    trainer = make_trainer(app, folder, [validation])
    module = LitFasterRCNN(detector=detector, evaluation=build.detection_settings(app.evaluation_config))
    with lightning_ends(trainer, folder):
        trainer.validate(module, datamodule=data.module, verbose=False)
    return validation.result.mAP if validation.result else None


def _finite(value: Tensor | None) -> float | None:
    return float(value) if value is not None and torch.isfinite(value) else None


def _mean(validation: ValidationMap) -> float:
    mean = validation.result.mAP if validation.result else None
    return -1.0 if mean is None else mean


def _summary(app: App, detector: FasterRCNN) -> list[dict[str, Any]]:
    """The network block by block, for an input of the usual size; logged too."""
    (height, width), regions = build.usual_size(app), app.evaluation_config.rpn_nms_max_boxes
    rows = summary_rows(
        _twin(app, detector), size=(height, width), channels=build.channels(app), regions=regions
    )
    title = f"{app.model_config.arch}, input {width}x{height}, {regions} regions"
    log.info("%s", render(rows_table(rows, title=title)))
    return rows


def _split(app: App, detector: FasterRCNN, groups: Sequence[Sequence[torch.device]]) -> str:
    """The network part by part, as `model_parallelism` puts it on the devices of each process."""
    images = app.training_config.batch_size_per_gpu
    rows = split_rows(
        _twin(app, detector),
        fractions=app.training_config.model_parallelism,
        devices=groups[0],
        size=build.usual_size(app),
        channels=build.channels(app),
        regions=app.model_config.roi_mini_batch,
        images=images,
        value_bytes=4 if app.trainer.precision == "32-true" else 2,
    )
    title = (
        f"model parallelism, processes: {len(groups)}; memory of weights and of a step with {images} images"
    )
    return render(rows_table(rows, title=title))


def _twin(app: App, detector: FasterRCNN) -> FasterRCNN:
    """The same network without values."""
    with torch.device("meta"):
        return build.build_detector(app, plan=channel_plan(detector))

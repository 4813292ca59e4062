"""Commands as functions: settings and a folder in, a finished run out."""

import hashlib
import json
import logging
import os
import platform
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from frcnn import build
from frcnn.bridge import prototxt, yaml
from frcnn.bridge.files import write_text
from frcnn.callbacks import (
    CheckpointInterval,
    LossEarlyStopping,
    StatusWriter,
    TrainingProgress,
    ValidationMap,
)
from frcnn.checkpoint_io import AtomicCheckpointIO
from frcnn.data.index import overlap
from frcnn.errors import RunError, SpecError
from frcnn.lit_module import LitFasterRCNN
from frcnn.loggers import build_loggers
from frcnn.report import training as report
from frcnn.report.tables import data_table, render
from frcnn.spec.run import App
from frcnn.spec.values import class_names, dead_fields, iou_thresholds, replace_zeros
from frcnn.weights.checkpoint import load_weights

log = logging.getLogger(__name__)

RUN_FILES = ("config.yaml", "spec.txt", "status.json", "metrics.csv", "results.json", "log.txt")
RUN_FOLDERS = ("checkpoints", "report", "tensorboard", "wandb")


def train(app: App, folder: Path) -> float | None:
    """Train and validate a detector.

    Args:
        app: checked settings.
        folder: folder of the run; it must not hold one already (interface 19).

    Returns:
        mAP of the last validation, or None without validation.

    Raises:
        FrcnnError: wrong input, or a run that could not go on.
        KeyboardInterrupt: Ctrl-C, after the run was closed.
    """
    with _run(app, folder, "train") as status:
        data = _prepare(app, folder)
        detector = build.build_detector(app)
        module = LitFasterRCNN(
            detector=detector,
            evaluation=build.detection_settings(app.evaluation_config),
            make_optimizer=build.optimizer(app),
            rate=build.schedule(app, tao_quirks=app.run.tao_quirks),
            l1=build.l1_weight(app),
            seed=app.random_seed,
            stored=_texts(app),
        )
        validation = _validation(app)
        checkpoints = CheckpointInterval(
            folder / "checkpoints",
            stem=f"frcnn_{app.model_config.arch.replace(':', '_')}",
            interval=app.training_config.checkpoint_interval,
            total_epochs=app.training_config.num_epochs,
        )
        callbacks: list[pl.Callback] = [checkpoints, status, TrainingProgress()]
        callbacks += [validation] if data.validation else []
        if stopping := app.training_config.early_stopping:
            callbacks.append(LossEarlyStopping(patience=stopping.patience, min_delta=stopping.min_delta))
        trainer = _trainer(app, folder, callbacks, logger=build_loggers(app, folder))
        log.info("%s", _summary(module))
        start, resumed = time.perf_counter(), app.run.resume == "last"
        _fit(trainer, module, data, folder / "checkpoints" / "last.ckpt" if resumed else None)
        seconds = time.perf_counter() - start
        if trainer.is_global_zero:
            results = _results(app, validation, "train", seconds=seconds)
            results |= {
                "images_per_second": _rate(trainer, data, seconds),
                "epoch": trainer.current_epoch,
                "best": checkpoints.best,
                "model": "checkpoints/last.ckpt",
                "data": {
                    "training": data.training.to_dict() if data.training else None,
                    "validation": data.validation.to_dict() if data.validation else None,
                },
            }
            _write_results(results, folder)
            _write_report(app, folder, validation)
            status.write("SUCCESS", "Training finished successfully.")
            log.info("%s", f"results in {folder}")
        return validation.result.mAP if validation.result else None


def evaluate(app: App, folder: Path) -> float | None:
    """Evaluate a checkpoint on its validation data; arguments, result and errors as in `train`."""
    with _run(app, folder, "evaluate") as status:
        data = _prepare(app, folder, train=False)
        if data.validation is None:
            hint = "set validation_fold or validation_data_source, or give spec=FILE with one of them"
            raise SpecError("there is no validation data", where="dataset_config", hint=hint)
        detector = build.build_detector(app)
        load_weights(detector, app.run.model_path)
        module = LitFasterRCNN(detector=detector, evaluation=build.detection_settings(app.evaluation_config))
        validation = _validation(app)
        trainer = _trainer(app, folder, [validation], logger=False)
        status.write("STARTED", "Starting evaluation.")
        start = time.perf_counter()
        trainer.validate(module, datamodule=data.module, verbose=False)
        seconds = time.perf_counter() - start
        if trainer.is_global_zero:
            results = _results(app, validation, "evaluate", seconds=seconds)
            images = results["images"]
            results |= {"images_per_second": images / seconds, "epoch": None, "best": None}
            _write_results(results | {"model": app.run.model_path}, folder)
            _write_report(app, folder, validation)
            status.write("SUCCESS", "Evaluation finished successfully.", kpi={"mAP": results["mAP"]})
            log.info("%s", f"results in {folder}")
        return validation.result.mAP if validation.result else None


@contextmanager
def _run(app: App, folder: Path, command: str) -> Iterator[StatusWriter]:
    """A run folder that is claimed, logged to, and told how the run ended."""
    build.refuse_unavailable(app)
    _claim(folder, app)
    status = StatusWriter(folder / "status.json")
    with _quiet(), _logging(folder, debug=app.verbose):
        try:
            yield status
        except KeyboardInterrupt:
            log.warning("interrupted; go on with: run.resume=last hydra.run.dir=%s", folder)
            raise
        except Exception as error:
            log.error("%s", error, extra={"file_only": True})  # the entry point prints it
            if not (folder / "config.yaml").exists():  # it never began
                status.path.unlink(missing_ok=True)
            else:
                status.write("FAILURE", f"{command} failed: {error}", verbosity="ERROR")
            raise


def _claim(folder: Path, app: App) -> None:
    if not (folder / "config.yaml").exists():
        if app.run.resume:
            raise SpecError("there is no run to resume", where=folder, hint="hydra.run.dir=FOLDER names one")
        folder.mkdir(parents=True, exist_ok=True)
        return
    if app.run.resume:
        if not (folder / "checkpoints" / "last.ckpt").exists():
            raise SpecError("the run has no checkpoint to resume from", where=folder / "checkpoints")
    elif app.run.overwrite:
        for name in RUN_FILES:
            (folder / name).unlink(missing_ok=True)
        for name in RUN_FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)
    elif "LOCAL_RANK" not in os.environ:
        hint = "another folder, run.resume=last to go on with it, or run.overwrite=true to replace it"
        raise SpecError("the folder holds a run", where=folder, hint=hint)


def _prepare(app: App, folder: Path, *, train: bool = True) -> build.Data:
    """Find and read the data, say what will happen to it, and store the settings."""
    pl.seed_everything(app.random_seed, workers=True, verbose=False)
    for notice in (*replace_zeros(app), *dead_fields(app), *_defaults_taken(app)):
        log.info("%s", notice)
    build.locate_data(app, app.run, train=train)
    workers = app.run.num_workers
    workers = min(8, (os.cpu_count() or 1) // 2) if workers < 0 else workers
    data = build.build_data(app, num_workers=workers, train=train)
    for name, table in (("training", data.training), ("validation", data.validation)):
        for source in table.sources if table else ():
            log.info("%s\n", render(data_table(source, split=name)))
    if data.module.train is not None and data.module.validation is not None:
        share = overlap(data.module.validation.index, data.module.train.index)
        if share > 0:
            log.warning("%.1f %% of the validation images are training images too", 100 * share)
    if data.module.train is not None and data.module.validation is None:
        log.warning("no validation: neither validation_fold nor validation_data_source is set")
    for name, text in (("config.yaml", "config"), ("spec.txt", "spec")):
        write_text(folder / name, _texts(app)[text])
    return data


def _texts(app: App) -> dict[str, str]:
    spec = app.experiment()
    stored = App(**{**vars(spec), "run": app.run, "trainer": app.trainer, "logger": app.logger})
    return {"spec": prototxt.dumps(spec), "config": yaml.dumps(stored, full=True)}


def _defaults_taken(app: App) -> Iterator[str]:
    if adam := app.training_config.optimizer.adam:
        yield f"adam: beta_1 {adam.beta_1:g}, beta_2 {adam.beta_2:g}, epsilon {adam.epsilon:g}"
    if sgd := app.training_config.optimizer.sgd:
        yield f"sgd: momentum {sgd.momentum:g}"


def _validation(app: App) -> ValidationMap:
    evaluation = app.evaluation_config
    return ValidationMap(
        class_names(app.dataset_config),
        iou_thresholds=iou_thresholds(evaluation),
        voc07=evaluation.use_voc07_11point_metric,
        score_threshold=evaluation.object_confidence_thres,
        ignore_difficult=app.run.difficult == "ignore",
        keep_samples=12,
    )


def _trainer(app: App, folder: Path, callbacks: list[pl.Callback], *, logger: Any) -> pl.Trainer:
    options = app.trainer
    limits = {name: getattr(options, name) for name in ("limit_train_batches", "limit_val_batches")}
    return pl.Trainer(
        accelerator=options.accelerator,
        devices=int(options.devices) if options.devices.isdigit() else options.devices,
        num_nodes=options.num_nodes,
        strategy=options.strategy,
        precision=options.precision,  # type: ignore[arg-type]
        gradient_clip_val=options.gradient_clip_val or None,
        accumulate_grad_batches=options.accumulate_grad_batches,
        max_epochs=app.training_config.num_epochs,
        check_val_every_n_epoch=app.evaluation_config.validation_period_during_training,
        **{name: value if value <= 1 else int(value) for name, value in limits.items()},  # type: ignore[arg-type]
        num_sanity_val_steps=0,
        log_every_n_steps=5,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, TrainingProgress) for callback in callbacks),
        callbacks=callbacks,
        logger=logger,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
    )


def _fit(trainer: pl.Trainer, module: LitFasterRCNN, data: build.Data, checkpoint: Path | None) -> None:
    try:
        trainer.fit(module, datamodule=data.module, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:
        # Lightning closes an interrupted run and exits; the entry point wants the interruption itself.
        raise KeyboardInterrupt from None
    except OSError as error:
        raise RunError("the run could not go on", where=trainer.default_root_dir, found=error) from error


def _summary(module: LitFasterRCNN) -> str:
    total = sum(p.numel() for p in module.detector.parameters())
    trained = sum(p.numel() for p in module.detector.parameters() if p.requires_grad)
    return f"{total:,} parameters, {trained:,} of them trained"


def _rate(trainer: pl.Trainer, data: build.Data, seconds: float) -> float:
    return trainer.global_step * data.module.batch_size * trainer.world_size / seconds


def _results(app: App, validation: ValidationMap, command: str, *, seconds: float) -> dict[str, Any]:
    result = validation.result
    figures = result.to_dict() if result else {"mAP": None, "images": 0, "per_class": {}}
    packages = ("frcnn", "torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "protobuf")
    return {
        "schema": 1,
        "command": command,
        **figures,
        "seconds": seconds,
        "spec_sha256": hashlib.sha256(_texts(app)["spec"].encode()).hexdigest(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def _write_results(results: dict[str, Any], folder: Path) -> None:
    write_text(folder / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n")


def _write_report(app: App, folder: Path, validation: ValidationMap) -> None:
    target, image = folder / "report", app.model_config.input_image_config
    target.mkdir(exist_ok=True)
    if (folder / "metrics.csv").exists():
        report.write_curves(folder / "metrics.csv", target)
    if validation.samples:
        report.write_samples(
            validation.samples,
            target / "validation.png",
            class_names=class_names(app.dataset_config),
            mean=build.means(app),
            scale=image.image_scaling_factor,
            bgr=image.image_channel_order == "bgr" and build.channels(app) == 3,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice that does not apply here, such as on its own log folder."""
    with warnings.catch_warnings():
        for module in ("pytorch_lightning", "lightning_fabric"):
            warnings.filterwarnings("ignore", module=rf"{module}\..*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        yield


@contextmanager
def _logging(folder: Path, *, debug: bool) -> Iterator[None]:
    """Messages of a run on the console (INFO) and in log.txt."""
    package = logging.getLogger("frcnn")
    console, file = logging.StreamHandler(), logging.FileHandler(folder / "log.txt", encoding="utf-8")
    console.setLevel(logging.INFO)
    console.addFilter(lambda record: not getattr(record, "file_only", False))
    console.setFormatter(logging.Formatter("%(message)s"))
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    package.setLevel(logging.DEBUG if debug else logging.INFO)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for handler in (console, file):
        package.addHandler(handler)
    try:
        yield
    finally:
        for handler in (console, file):
            package.removeHandler(handler)
            handler.close()

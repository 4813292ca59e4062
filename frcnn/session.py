"""A command at work: the folder it claims, the data it reads, how it ends."""

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
import torch

from frcnn import build
from frcnn.callbacks import StatusWriter, ValidationMap
from frcnn.data.index import overlap
from frcnn.encryption import model_suffix, needed_key
from frcnn.errors import SpecError
from frcnn.folder import checkpoint_named, claimed, logged, run_of
from frcnn.lit_module import LitFasterRCNN
from frcnn.model.detector import FasterRCNN
from frcnn.processes import agreed, own_group
from frcnn.report.tables import data_table, render
from frcnn.resume import check_resume, checkpoint_to_resume
from frcnn.spec.run import App
from frcnn.spec.values import class_names, dead_fields, iou_thresholds, replace_zeros
from frcnn.start import locate_weights
from frcnn.trainer import lightning_ends, make_trainer, quiet, reproducible, stopped_by_sigterm

log = logging.getLogger(__name__)


@contextmanager
def session(app: App, folder: Path, command: str) -> Iterator[StatusWriter]:
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
    training = app.training_config
    named = options.model_path or training.retrain_pruned_model or training.pretrained_weights
    read = resumed or (Path(named) if named else None)
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
                log.warning("interrupted%s", " before the first checkpoint" if command == "train" else "")
            raise
        except Exception as error:
            cause = agreed(folder, error)
            log.error("%s", cause, extra={"file_only": True})  # the entry point prints it
            status.write("FAILURE", str(cause) or type(cause).__name__, verbosity="ERROR")
            if cause is error:
                raise
            raise cause from error


def prepare(app: App, *, train: bool = True) -> build.Data:
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


def checkpoint_suffix(app: App) -> str:
    """What the names of checkpoints end with.

    Raises:
        SpecError: they are to be encrypted, and there is no key.
    """
    if not app.run.encrypt_checkpoints:
        return ".ckpt"
    needed_key(where="run.encrypt_checkpoints")
    return ".ckpt.enc"


def place_of_checkpoint(app: App, named: str | Path, field: str) -> Path:
    """Where a command writes its checkpoint; a path is completed, a name in the settings is not."""
    target = Path(named) if isinstance(named, str) else named.with_name(named.name + checkpoint_suffix(app))
    if model_suffix(target) != ".ckpt" or target.resolve() == Path(app.run.model_path).resolve():
        allowed = "NAME.ckpt or NAME.ckpt.enc, and not the file that is read"
        raise SpecError("is no place for the checkpoint", where=field, found=target, allowed=allowed)
    if isinstance(named, str) and target.exists() and not app.run.overwrite:
        hint = "another name, or run.overwrite=true to replace it"
        raise SpecError("is there already", where=field, found=target, hint=hint)
    return target


def validation_map(app: App, *, tables: bool = True) -> ValidationMap:
    """What evaluates detections as the settings say, with or without its tables on the console."""
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
        tables=tables,
    )


def score_of(app: App, folder: Path, data: build.Data, detector: FasterRCNN) -> float | None:
    """The mAP of a detector on the validation data.

    On one device: further processes would start this command, and prune, once more for each detector.
    """
    options, validation = app.trainer, validation_map(app, tables=False)
    listed = "," in options.devices or "[" in options.devices
    devices = f"{options.devices.strip('[], ').split(',')[0]}," if listed else "1"
    alone = replace(app, trainer=replace(options, devices=devices, num_nodes=1, strategy="auto"))
    trainer = make_trainer(alone, folder, [validation])
    module = LitFasterRCNN(
        detector=detector,
        evaluation=build.detection_settings(app.evaluation_config, tao_quirks=app.run.tao_quirks),
    )
    with lightning_ends(trainer, folder):
        trainer.validate(module, datamodule=data.module, verbose=False)
    return validation.result.mAP if validation.result else None


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

"""Commands as functions: settings and a folder in, a finished run out."""

import logging
import time
from functools import partial
from pathlib import Path

from frcnn import preview, results
from frcnn.backend import LitBackend, TorchBackend, open_backend
from frcnn.callbacks import LastWords, StageTimes, TrainingProgress
from frcnn.describe import network_summary
from frcnn.errors import RunError, SpecError
from frcnn.export import export_model, refuse_parted
from frcnn.infer import infer_pictures
from frcnn.parity import compare_models, refuse_parting, validation_batches, write_parity
from frcnn.pruning import prune_checkpoint
from frcnn.quantization import quantize_checkpoint
from frcnn.record import RunRecord
from frcnn.session import place_of_checkpoint, prepare, score_of, session, validation_map
from frcnn.spec.run import App
from frcnn.spec.values import dead_fields, replace_zeros
from frcnn.trainer import lightning_ends, make_trainer
from frcnn.training import train

__all__ = ["evaluate", "export", "infer", "parity", "preview_augmentation", "prune", "quantize", "train"]

log = logging.getLogger(__name__)


def evaluate(app: App, folder: Path) -> float | None:
    """Evaluate a checkpoint on its validation data; arguments, result and errors as in `train`."""
    with session(app, folder, "evaluate") as status:
        data = prepare(app, train=False)
        if data.validation is None:
            hint = "set validation_fold or validation_data_source, or give spec=FILE with one of them"
            raise SpecError("there is no validation data", where="dataset_config", hint=hint)
        backend = open_backend(app, app.evaluation_config)
        ours = backend if isinstance(backend, TorchBackend) else None
        results.store_settings(app, folder)
        validation = validation_map(app)
        model, progress = network_summary(app, ours.detector) if ours else [], TrainingProgress()
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
    target = place_of_checkpoint(app, app.prune.output_file or folder / "pruned", "prune.output_file")
    with session(app, folder, "prune") as status:
        data = prepare(app, train=False) if app.prune.sensitivity else None
        if data is not None and data.validation is None:
            hint = "set validation_fold or validation_data_source, or give spec=FILE with one of them"
            raise SpecError("needs validation data", where="prune.sensitivity", hint=hint)
        status.write("STARTED", "Starting pruning.")
        score = partial(score_of, app, folder, data) if data else None
        found = prune_checkpoint(app, folder, target, score=score)
        # TAO: millions and MiB.
        kpi = {
            "pruning_ratio": found["ratio"]["parameters"],
            "param_count": found["after"]["parameters"] / 1e6,
            "size": target.stat().st_size / 2**20,
        }
        status.write("SUCCESS", "Pruning finished successfully.", kpi=kpi)


def quantize(app: App, folder: Path) -> None:
    """Calibrate a checkpoint's network for int8; arguments and errors as in `train`."""
    settings, spec = app.quantize, app.dataset_config
    target = place_of_checkpoint(app, settings.output_file or folder / "quantized", "quantize.output_file")
    with session(app, folder, "quantize") as status:
        augmented, app.training_config.enable_augmentation = app.training_config.enable_augmentation, False
        validated = bool(spec.validation_data_source or spec.validation_fold is not None)
        data = prepare(app, train=not settings.image_dir) if validated or not settings.image_dir else None
        app.training_config.enable_augmentation = augmented  # stored with the checkpoint
        status.write("STARTED", "Starting quantisation.")
        score = partial(score_of, app, folder, data) if data and data.validation else None
        found = quantize_checkpoint(app, folder, target, data=data, score=score)
        kpi = {} if found["mAP"] is None else {"mAP": found["mAP"]}
        status.write("SUCCESS", "Quantisation finished successfully.", kpi=kpi)


def preview_augmentation(app: App, folder: Path) -> None:
    """Draw what each augmentation does to training images; arguments and errors as in `train`."""
    with session(app, folder, "preview_augmentation") as status:
        data = prepare(app)
        if data.module.train is None:
            raise SpecError("there is no training data", where="dataset_config.data_sources")
        results.store_settings(app, folder)
        status.write("STARTED", "Starting preview of the augmentation.")
        sheets = preview.write_sheets(app, data.module.train, folder)
        status.write("SUCCESS", f"{len(sheets)} contact sheets in {folder}")


def infer(app: App, folder: Path) -> None:
    """Find objects in pictures without labels; arguments and errors as in `train`."""
    with session(app, folder, "infer") as status:
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
    with session(app, folder, "export") as status:
        for notice in (*replace_zeros(app), *dead_fields(app)):
            log.info("%s", notice)
        status.write("STARTED", "Starting export.")
        found = export_model(app, folder)
        results.write(folder, found)
        refuse_parted(found, folder)
        # TAO: millions and MiB.
        status.write("SUCCESS", "Export finished successfully.", kpi=found["kpi"])


def parity(app: App, folder: Path) -> None:
    """Compare two model files on the same images; arguments and errors as in `train`.

    Raises:
        RunError: they part where they may not.
    """
    with session(app, folder, "parity") as status:
        for notice in (*replace_zeros(app), *dead_fields(app)):
            log.info("%s", notice)
        results.store_settings(app, folder)
        status.write("STARTED", "Starting comparison.")
        found = compare_models(app, app.run.compare, loader=validation_batches(app))
        write_parity(found, folder)
        results.write(folder, found | {"versions": results.versions()})
        refuse_parting(found, folder)
        status.write("SUCCESS", "The two models agree.")

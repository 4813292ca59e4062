"""Going on with a run: from which checkpoint, whether that can be, and what is different now."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from frcnn.errors import SpecError
from frcnn.folder import checkpoint_named, run_of
from frcnn.spec.experiment import Experiment
from frcnn.spec.fields import Message, walk
from frcnn.spec.run import App
from frcnn.weights.checkpoint import Checkpoint
from frcnn.weights.hdf5 import refuse_other_formats
from frcnn.weights.keras_hdf5 import SUFFIXES

OF_THE_START = ("resume_from_model", "retrain_pruned_model", "pretrained_weights")
BESIDE = {
    "run": ("difficult", "ignore_classes", "tao_quirks", "relu6", "ema_decay", "channels_last"),
    "quantize": ("method", "batches", "ranges", "freeze_at"),
    "trainer": (
        *("devices", "num_nodes", "strategy", "precision", "gradient_clip_val"),
        *("accumulate_grad_batches", "limit_train_batches", "limit_val_batches"),
    ),
}
OF_THE_SCHEDULE = ("training_config.num_epochs", "training_config.learning_rate")


def checkpoint_to_resume(app: App, folder: Path) -> Path | None:
    """Where a training goes on from: the run's own last checkpoint, or that of `resume_from_model`."""
    if app.run.resume:
        return checkpoint_named("last", folder)
    named = app.training_config.resume_from_model
    return Path(named) if named else None


def check_resume(app: App, path: Path) -> list[str]:
    """Whether a run can go on; returns what it will do, and which settings are not those of its checkpoint.

    Raises:
        SpecError: the run is complete, or its network, classes or optimizer are others; or a Keras model.
        WeightsError: the checkpoint cannot be read.
    """
    if path.suffix == ".tlt":
        refuse_other_formats(path)  # encrypted as a rule, which no other setting would read either
    if path.suffix in SUFFIXES:
        raise SpecError(
            "a Keras model holds no state to go on with, nor did the original restore any",
            where="training_config.resume_from_model",
            found=path,
            hint=f"training_config.retrain_pruned_model={path} starts with its network and weights",
        )
    stored = Checkpoint(path)
    if "optimizer_states" not in stored.content:
        raise SpecError(
            "holds a network and no state of a training to go on with",
            where=path,
            hint=f"training_config.pretrained_weights={path} starts with its weights, "
            f"training_config.retrain_pruned_model={path} with its network, too",
        )
    done, epochs = stored.epochs, app.training_config.num_epochs
    run = run_of(path)
    if done >= epochs and not (run and not (run / "results.json").exists()):
        hint = f"training_config.num_epochs={done + epochs} trains on"
        raise SpecError("the run is complete", where=path, found=f"{done} of {epochs} epochs", hint=hint)
    stored.refuse_other_network(app)
    place = f", step {stored.batches} of the next one" if stored.batches else ""
    notices = [f"going on after epoch {done} of {epochs}{place}"]
    changes = [
        *_changes(_values(stored.settings), _values(app.experiment())),
        *(change for name in BESIDE for change in _changes(*_beside(stored, app, name))),
    ]
    notices += [f"changed: {change}" for change in changes]
    if any(change.startswith(OF_THE_SCHEDULE) for change in changes):
        notices.append(f"the learning rate follows the schedule as it is now, over {epochs} epochs")
    return notices


def check_step_size(stored: Checkpoint, *, images: int) -> None:
    """Within an epoch a run goes on behind the batches that it took, so they must be of the same size.

    Args:
        stored: the checkpoint.
        images: of a step, on all devices.

    Raises:
        SpecError: a step was of another size.
    """
    if stored.batches and stored.images_per_step != images:
        raise SpecError(
            "the run stopped within an epoch, which goes on with steps of the same size only",
            where=stored.path,
            found=f"batch_size_per_gpu times devices is {images}",
            allowed=stored.images_per_step,
            hint="or go on from the checkpoint of a whole epoch: training_config.resume_from_model=PATH",
        )


def _beside(stored: Checkpoint, app: App, section: str) -> tuple[dict[str, object], dict[str, object]]:
    """What stands beside TAO's settings, then and now, as far as it says what a training does."""
    names = BESIDE[section]
    before, now = stored.beside.get(section, {}), vars(getattr(app, section))
    told = [name for name in names if name in before]
    return {f"{section}.{n}": before[n] for n in told}, {f"{section}.{n}": now[n] for n in told}


def _changes(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    for path in dict.fromkeys([*old, *new]):
        if old.get(path) != new.get(path) and not path.endswith(OF_THE_START):
            yield f"{path} {_shown(old.get(path))} -> {_shown(new.get(path))}"


def _values(spec: Experiment) -> dict[str, object]:
    return {
        path: value
        for path, _, value in walk(spec)
        if not isinstance(value, Message)
        and not (isinstance(value, list) and any(isinstance(item, Message) for item in value))
    }


def _shown(value: object) -> str:
    return "unset" if value is None else f"{value}"

"""The folder of a run: who may use it, what is set aside, and the log in it."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frcnn.encryption import SUFFIX
from frcnn.errors import RunError, SpecError

FILES = ("config.yaml", "spec.txt", "status.json", "metrics.csv", "results.json", "log.txt")
FOLDERS = ("checkpoints", "report", "tensorboard", "wandb", "detections")


def is_first_process() -> bool:
    """Whether this is the process that writes, and not one that was started for another device."""
    for rank in ("RANK", "SLURM_PROCID"):  # torchrun, Slurm
        if rank in os.environ:
            return int(os.environ[rank]) == 0
    return int(os.environ.get("LOCAL_RANK", 0)) == int(os.environ.get("NODE_RANK", 0)) == 0


def holds_run(folder: Path) -> bool:
    """Whether a run was started in a folder, or a conversion left its results there."""
    return (folder / "config.yaml").exists() or (folder / "results.json").exists()


def checkpoint_named(name: str, folder: Path) -> Path:
    """A checkpoint of a run, such as `last`: `checkpoints/last.ckpt`, or `.ckpt.enc` where that is newer."""
    plain = folder / "checkpoints" / f"{name}.ckpt"
    found = [path for path in (plain, plain.with_name(f"{plain.name}{SUFFIX}")) if path.exists()]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=plain)


def run_of(checkpoint: Path) -> Path | None:
    """The folder of the run that a checkpoint lies in, if it lies in one."""
    folder = checkpoint.resolve().parent.parent
    inside = checkpoint.parent.name == "checkpoints" and (folder / "config.yaml").exists()
    return folder if inside else None


@contextmanager
def claimed(
    folder: Path, *, resume: Path | None, overwrite: bool, keep: Path | None = None
) -> Iterator[None]:
    """Use a folder for a run; what `overwrite` replaces comes back if the new run does not begin.

    The new run has begun once it wrote its config.yaml.

    Args:
        folder: made if need be.
        resume: a checkpoint of the run in it, to go on from.
        overwrite: replace the run in it.
        keep: a file that must not be replaced.

    Raises:
        SpecError: the folder holds a run and neither is asked for, or there is none to resume.
    """
    if not is_first_process():
        yield
        return
    last = checkpoint_named("last", folder)
    if resume and not resume.exists():
        hint = "run.overwrite=true starts again" if holds_run(folder) else "hydra.run.dir=FOLDER names a run"
        raise SpecError("there is no checkpoint to go on from", where=resume, hint=hint)
    if holds_run(folder) and not resume:
        if not overwrite:
            resumes = "run.resume=last to go on with it, " if last.exists() else ""
            hint = f"another folder, {resumes}or run.overwrite=true to replace it"
            raise SpecError("the folder holds a run", where=folder, hint=hint)
        if keep is not None and keep.resolve().is_relative_to(folder.resolve()):
            raise SpecError("would delete the model that it is to read", where=folder, found=keep)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError("the output folder cannot be made", where=folder, found=error.strerror) from None
    aside = folder / ".replaced"
    if holds_run(folder) and not resume:
        aside.mkdir(exist_ok=True)
        _move(folder, aside)
    try:
        yield
    finally:
        if aside.is_dir():
            if not holds_run(folder):
                _move(aside, folder)
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def logged(folder: Path, *, debug: bool) -> Iterator[None]:
    """Messages of a run on the console (INFO) and in log.txt."""
    package = logging.getLogger("frcnn")
    for lightning in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(lightning).setLevel(logging.WARNING)
    if not is_first_process():
        package.setLevel(logging.CRITICAL)
        yield
        return
    console, file = logging.StreamHandler(), logging.FileHandler(folder / "log.txt", encoding="utf-8")
    console.setLevel(logging.INFO)
    console.addFilter(lambda record: not getattr(record, "file_only", False))
    console.setFormatter(logging.Formatter("%(message)s"))
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    package.setLevel(logging.DEBUG if debug else logging.INFO)
    for handler in (console, file):
        package.addHandler(handler)
    try:
        yield
    finally:
        for handler in (console, file):
            package.removeHandler(handler)
            handler.close()


def _move(source: Path, target: Path) -> None:
    for name in (*FILES, *FOLDERS):
        if (source / name).exists():
            if (target / name).is_dir():
                shutil.rmtree(target / name)
            (source / name).replace(target / name)

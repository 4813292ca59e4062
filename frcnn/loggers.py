"""Lightning's loggers for a run, as the settings ask for them."""

import csv
import json
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from frcnn.bridge.files import write_text
from frcnn.folder import is_first_process
from frcnn.spec.run import App
from frcnn.spec.training import VisualizerConfig, WandBConfig
from frcnn.sweep import in_sweep

log = logging.getLogger(__name__)


class _FromOne:
    """A logger that counts epochs from 1, as everything else here does; Lightning counts from 0."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        counted = {**metrics, "epoch": int(metrics["epoch"]) + 1} if "epoch" in metrics else metrics
        super().log_metrics(counted, step)  # type: ignore[misc]


class _Csv(_FromOne, CSVLogger):  # type: ignore[misc]
    pass


class _TensorBoard(_FromOne, TensorBoardLogger):
    pass


class _Wandb(_FromOne, WandbLogger):
    pass


@contextmanager
def open_loggers(app: App, folder: Path, *, from_step: int = 0) -> Iterator[list[Logger]]:
    """CSV, TensorBoard and W&B, as far as `logger` and the spec's visualizer ask for them.

    W&B is closed at the end, as failed if the block raises; a sweep's next job then opens a run of its own.

    Args:
        app: settings.
        folder: of the run.
        from_step: the first optimizer step of a resumed run; what its logs say of later ones is dropped.
    """
    visualizer = app.training_config.visualizer or VisualizerConfig()
    if visualizer.enabled and not app.logger.tensorboard:
        log.warning("visualizer.enabled is overruled by the choice of logger")
    loggers: list[Logger] = []
    if app.logger.csv:
        loggers.append(_csv(folder, before_step=from_step))
    if app.logger.tensorboard:
        options: dict[str, Any] = {"purge_step": from_step} if from_step else {}
        loggers.append(
            _TensorBoard(folder, name="tensorboard", version="", default_hp_metric=False, **options)
        )
    if app.logger.wandb:
        loggers.append(_wandb(visualizer.wandb_config or WandBConfig(), app, folder, resumed=from_step > 0))
    failed = True
    try:
        yield loggers
        failed = False
    finally:
        if app.logger.wandb:
            _close_wandb(folder / "checkpoints" if app.run.log_checkpoints else None, failed=failed)


def _close_wandb(checkpoints: Path | None, *, failed: bool) -> None:
    """Finish this process's W&B run, if it has one, with best.ckpt and last.ckpt as far as it got."""
    import wandb

    run = wandb.run
    if run is None:
        return
    files = sorted(checkpoints.glob("[bl]*t.ckpt*")) if checkpoints else []
    if files:
        artifact = wandb.Artifact(f"checkpoints-{run.id}", type="model")
        for file in files:
            artifact.add_file(str(file), policy="immutable", skip_cache=True)  # no copy: they are large
        run.log_artifact(artifact)
    run.finish(exit_code=int(failed))


def _csv(folder: Path, *, before_step: int) -> CSVLogger:
    """metrics.csv; the rows of a resumed run before its checkpoint stay, which Lightning would delete."""
    path, rows = folder / "metrics.csv", []
    if path.exists() and before_step:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [_numbers(row) for row in csv.DictReader(file)]
        # A row that a power cut left unfinished has no step.
        rows = [row for row in rows if row.get("step", before_step) < before_step]
    logger = _Csv(folder, name="", version="")
    if rows:
        logger.experiment.metrics = rows
        logger.save()
    return logger


def _numbers(row: Mapping[str, str | None]) -> dict[str, float]:
    try:
        return {name: int(value) if value.isdigit() else float(value) for name, value in row.items() if value}
    except (ValueError, AttributeError):
        return {}


def _wandb(config: WandBConfig, app: App, folder: Path, *, resumed: bool) -> WandbLogger:
    """W&B's logger; wandb/run.json keeps id, name and project, by which a resumed run finds its own."""
    mode = os.environ.get("WANDB_MODE") or config.mode.name.lower()
    if mode == "online" and not _has_key():
        log.warning("W&B has no key: the run is kept offline in %s; `wandb sync` sends it", folder / "wandb")
        mode = "offline"
    known = folder / "wandb" / "run.json"
    if resumed and known.exists():
        identity = json.loads(known.read_text(encoding="utf-8"))
    else:
        stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
        name = f"{config.name}_{stamp}" if config.name else app.run.name
        identity = {"id": secrets.token_hex(4), "name": name, "project": config.project or "frcnn"}
        if is_first_process():
            known.parent.mkdir(exist_ok=True)
            write_text(known, json.dumps(identity) + "\n")
    return _Wandb(
        **identity,
        entity=config.entity or None,
        tags=list(config.tags) or None,
        notes=config.notes or None,
        group="/".join(folder.parent.parts[-2:]) if in_sweep(folder) else None,
        save_dir=folder,
        mode=mode,
    )


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return netrc.is_file() and "api.wandb" in netrc.read_text(encoding="utf-8", errors="replace")

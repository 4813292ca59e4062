"""Lightning's loggers for a run, as the settings ask for them."""

import csv
import logging
import os
from datetime import datetime
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from frcnn.spec.run import App
from frcnn.spec.training import VisualizerConfig, WandBConfig
from frcnn.sweep import in_sweep

log = logging.getLogger(__name__)


def build_loggers(app: App, folder: Path, *, from_step: int = 0) -> list[Logger]:
    """CSV, TensorBoard and W&B, as far as `logger` and the spec's visualizer ask for them.

    Args:
        app: settings.
        folder: of the run.
        from_step: the first optimizer step of a resumed run; what its logs say of later ones is dropped.
    """
    visualizer = app.training_config.visualizer or VisualizerConfig()
    loggers: list[Logger] = []
    if app.logger.csv:
        loggers.append(_csv(folder, before_step=from_step))
    if visualizer.enabled and not app.logger.tensorboard:
        log.warning("visualizer.enabled is overruled by the choice of logger")
    if app.logger.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False))
    if app.logger.wandb:
        loggers.append(_wandb(visualizer.wandb_config or WandBConfig(), app, folder))
    return loggers


def _csv(folder: Path, *, before_step: int) -> CSVLogger:
    """metrics.csv; the rows of a resumed run before its checkpoint stay, which Lightning would delete."""
    path, rows = folder / "metrics.csv", []
    if path.exists() and before_step:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [
                {
                    name: int(value) if value.isdigit() else float(value)
                    for name, value in row.items()
                    if value
                }
                for row in csv.DictReader(file)
            ]
        rows = [row for row in rows if row["step"] < before_step]
    logger = CSVLogger(folder, name="", version="")
    if rows:
        logger.experiment.metrics = rows
        logger.save()
    return logger


def _wandb(config: WandBConfig, app: App, folder: Path) -> WandbLogger:
    mode = os.environ.get("WANDB_MODE") or config.mode.name.lower()
    if mode == "online" and not _has_key():
        log.warning("W&B has no key: the run is kept offline in %s; `wandb sync` sends it", folder / "wandb")
        mode = "offline"
    stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    return WandbLogger(
        project=config.project or "frcnn",
        name=f"{config.name}_{stamp}" if config.name else app.run.name,
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

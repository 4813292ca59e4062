"""Lightning as a run uses it: the trainer, how it ends, and what it need not say."""

import os
import signal
import subprocess
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.utilities.exceptions import SIGTERMException

from frcnn.callbacks import TrainingProgress
from frcnn.checkpoint_io import AtomicCheckpointIO
from frcnn.errors import RunError, SpecError, StoppedError
from frcnn.folder import checkpoint_named
from frcnn.processes import ending_together, start_children
from frcnn.spec.run import App, Trainer
from frcnn.strategy import DataParallel


def make_trainer(
    app: App,
    folder: Path,
    callbacks: list[pl.Callback],
    *,
    groups: Sequence[Sequence[torch.device]] = (),
) -> pl.Trainer:
    """Lightning's trainer as the settings want it.

    Args:
        app: settings.
        folder: of the run.
        callbacks: in the order in which they are called.
        groups: the devices of each process of this machine, where the network is split over several.

    Raises:
        SpecError: this machine has no such devices, or nothing says where several machines meet.
    """
    options = app.trainer
    _check_meeting_place(options.num_nodes)
    devices: int | str | list[int] = int(options.devices) if options.devices.isdigit() else options.devices
    accelerator, count = options.accelerator, device_count(options)
    if groups:
        on_gpu, count = groups[0][0].type == "cuda", len(groups)
        accelerator = "gpu" if on_gpu else "cpu"
        devices = [group[0].index for group in groups] if on_gpu else count
    several = options.strategy == "ddp" or count * options.num_nodes > 1
    trainer = partial(
        pl.Trainer,
        accelerator=accelerator,
        devices=devices,
        num_nodes=options.num_nodes,
        strategy=DataParallel(split=bool(groups)) if several else "auto",
        precision=options.precision,  # type: ignore[arg-type]
        gradient_clip_val=options.gradient_clip_val or None,
        accumulate_grad_batches=options.accumulate_grad_batches,
        limit_train_batches=_share_or_number(options.limit_train_batches),
        limit_val_batches=_share_or_number(options.limit_val_batches),
        max_epochs=app.training_config.num_epochs,
        check_val_every_n_epoch=app.evaluation_config.validation_period_during_training,
        num_sanity_val_steps=0,
        log_every_n_steps=50 if torch.cuda.is_available() else 1,  # reading a loss waits for a GPU
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, TrainingProgress) for callback in callbacks),
        callbacks=callbacks,
        logger=False,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
    )
    try:
        return trainer()
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        found = f"{options.accelerator}, devices {options.devices}"
        raise SpecError(f"cannot be had here: {error}", where="trainer", found=found) from error


def device_count(options: Trainer) -> int:
    """How many devices of this machine the settings mean."""
    if options.devices.isdigit():
        return int(options.devices)
    if options.devices not in ("auto", "-1"):
        return len(options.devices.strip("[], ").split(","))
    return max(torch.cuda.device_count(), 1) if options.accelerator in ("auto", "gpu") else 1


def device_groups(app: App) -> list[list[torch.device]]:
    """The devices of each process of this machine, where `model_parallelism` splits the network; else none.

    `trainer.devices` counts devices, so there is a process for every so many of them. On a machine without a
    GPU all parts are on the CPU.

    Raises:
        SpecError: the number of fractions does not fit the devices, or `trainer.processes`.
    """
    parts, options = len(app.training_config.model_parallelism), app.trainer
    _check_processes(options, parts)
    if not parts:
        return []
    there = torch.cuda.device_count() if options.accelerator in ("auto", "gpu") else 0
    if not there and options.accelerator != "gpu":
        count = parts if options.devices in ("auto", "-1") else device_count(options)
        devices = [torch.device("cpu")] * count
    else:
        listed = not options.devices.isdigit() and options.devices not in ("auto", "-1")
        wanted = options.devices.strip("[], ").split(",") if listed else range(device_count(options))
        devices = [torch.device("cuda", int(number)) for number in wanted]
    missing = [str(device) for device in devices if device.type == "cuda" and device.index >= there]
    if missing or not devices or len(devices) % parts:
        raise SpecError(
            "every process needs a device for each fraction",
            where="training_config.model_parallelism",
            found=f"{parts} fractions and {len(devices)} devices (trainer.devices={options.devices})"
            + (f", of which {', '.join(missing)} are not there" if missing else ""),
            allowed=f"a multiple of {parts} devices",
            hint=f"trainer.devices={parts}, or as many fractions as a process may have devices",
        )
    return [devices[start : start + parts] for start in range(0, len(devices), parts)]


def _check_processes(options: Trainer, parts: int) -> None:
    devices = device_count(options)
    if options.processes and options.processes * max(parts, 1) != devices:
        fractions = f"{devices // options.processes} fractions"
        raise SpecError(
            "so many processes cannot share the devices",
            where="trainer.processes",
            found=f"{options.processes}, with {devices} devices and "
            + (f"{parts} fractions in model_parallelism" if parts else "no model_parallelism"),
            allowed=f"{devices // max(parts, 1)}",
            hint=f"training_config.model_parallelism with {fractions} splits the network over the devices of "
            "a process"
            if devices > options.processes
            else None,
        )


def _check_meeting_place(nodes: int) -> None:
    launchers = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS")
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in os.environ]
    if nodes > 1 and missing and not any(name in os.environ for name in launchers):
        raise SpecError(
            f"{nodes} machines, and nothing says where they meet",
            where="trainer.num_nodes",
            found=f"{', '.join(missing)} not set",
            hint="torchrun, srun, or these variables on each machine; trainer.num_nodes=1 for this one alone",
        )


def training_device(app: App) -> torch.device:
    """The first device that a training will use."""
    wanted = app.trainer.accelerator
    return torch.device("cuda" if wanted in ("auto", "gpu") and torch.cuda.is_available() else "cpu")


def mixed_precision(app: App, device: torch.device) -> torch.autocast:
    """The context in which a training computes on a device."""
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(app.trainer.precision)
    return torch.autocast(device.type, dtype=kind or torch.bfloat16, enabled=kind is not None)


def starts_processes(options: Trainer) -> bool:
    """Whether a run has, or may have, several processes."""
    return options.strategy == "ddp" or device_count(options) * options.num_nodes > 1


def _share_or_number(text: str) -> int | float:
    return int(text) if text.isdigit() else float(text)


@contextmanager
def lightning_ends(trainer: pl.Trainer, folder: Path) -> Iterator[None]:
    """A stretch of a run that Lightning leads, in all processes, with its ways to end in ours."""
    children = _children(trainer)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # from here on Lightning's, which waits for a step to end
    with ending_together(folder, children), _ends(folder):
        yield


def _children(trainer: pl.Trainer) -> list[subprocess.Popen[bytes]]:
    """Start what further processes this machine needs, where nobody else did."""
    if not isinstance(trainer.strategy, DataParallel):
        return []
    environment = trainer.strategy.cluster_environment
    if environment is None or environment.creates_processes_externally:
        return []
    children = start_children(
        trainer.strategy.num_processes,
        nodes=trainer.num_nodes,
        node=environment.node_rank(),
        address=environment.main_address,
        port=environment.main_port,
    )
    if isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher):
        trainer.strategy.launcher.procs = children  # to whom Lightning hands SIGTERM on
    return children


@contextmanager
def _ends(folder: Path) -> Iterator[None]:
    try:
        yield
    except SIGTERMException:
        last = checkpoint_named("last", folder)
        hint = f"go on with: run.resume=last hydra.run.dir={folder}" if last.exists() else None
        raise StoppedError("stopped by SIGTERM", where=folder, hint=hint) from None
    except torch.OutOfMemoryError as error:
        raise RunError(
            "the device has too little memory",
            where=folder,
            found=str(error).split(". ")[0],
            hint="lower training_config.batch_size_per_gpu, model_config.roi_mini_batch, "
            "training_config.rpn_nms_max_boxes or the input size, choose a smaller backbone, "
            "freeze blocks, or set trainer.precision=bf16-mixed; run.auto_batch=true finds a batch size",
        ) from error
    except SystemExit:
        # Lightning closes an interrupted run and exits; the entry point wants the interruption itself.
        raise KeyboardInterrupt from None
    except OSError as error:
        raise RunError("the run could not go on", where=folder, found=error) from error


@contextmanager
def reproducible(wanted: bool) -> Iterator[None]:
    """A stretch in which the same work gives the same bits, and what cannot do so raises, if that is wanted.

    What Lightning's `deterministic=True` sets, from the beginning and for no more than this run: the next
    job of a sweep may not want it.
    """
    if not wanted:
        yield
        return
    name, benchmark = "CUBLAS_WORKSPACE_CONFIG", torch.backends.cudnn.benchmark
    before, were = os.environ.get(name), torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault(name, ":4096:8")  # cuBLAS: one of two sizes with which its sums have an order
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(were)
        torch.backends.cudnn.benchmark = benchmark
        if before is None:
            os.environ.pop(name, None)


@contextmanager
def stopped_by_sigterm(folder: Path) -> Iterator[None]:
    """While a run prepares, SIGTERM ends it at once; there is nothing to save yet."""

    def stop(*_: object) -> None:
        raise StoppedError("stopped by SIGTERM before the first step", where=folder)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's advice that does not apply here, such as on its own log folder."""
    with warnings.catch_warnings():
        for module in ("pytorch_lightning", "lightning_fabric"):
            warnings.filterwarnings("ignore", module=rf"{module}\..*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", message="Image size .* exceeds limit")  # Pillow's, of large images
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        yield

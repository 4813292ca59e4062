"""What we add around a training step (callbacks, logging, progress, loader) as a share of the step.

A real training by the train command on drawn scenes, with the clock inside: the step itself is forward,
backward and the optimizer; everything else between two steps is what we and Lightning add. Calls that wait
for nothing are timed as they are, so on a GPU the network's time is that of a synchronised step.
"""

import argparse
import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch

from frcnn import run
from frcnn.data.toy import ensure_toy
from frcnn.datamodule import DetectionLoader
from frcnn.entry.main import main as command
from frcnn.lit_module import LitFasterRCNN

HOOKS = ("on_train_batch_start", "on_train_batch_end")
WARM_UP = 5  # steps: the first ones are slower and show pictures


class Clock:
    """Seconds by part, for each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.now: dict[str, float] = defaultdict(float)
        self._inside: list[float] = []  # time that inner parts took, which the outer ones leave out

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its own time added to `part`."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                if part == "network" and torch.cuda.is_available():
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - start
                self.now[part] += seconds - self._inside.pop()
                if self._inside:
                    self._inside[-1] += seconds

        return call

    def tick(self) -> None:
        """A step is over."""
        self.steps.append(dict(self.now))
        self.now.clear()


class Steps(pl.Callback):
    """Ticks between two steps of an epoch; validation and checkpoints are no part of a step."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self._start = clock, 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Close the step before, with the wait for this batch."""
        now = time.perf_counter()
        if self._start:
            self.clock.now["wall"] = now - self._start
            self.clock.tick()
        self.clock.now.clear()
        self._start = now

    def on_train_epoch_end(self, *_: Any) -> None:
        """What follows is no step."""
        self._start = 0.0


@contextmanager
def instrumented(clock: Clock) -> Iterator[None]:
    """Time the network, loggers, callbacks and the wait for batches of every training in the block."""

    def make_trainer(app: Any, folder: Path, callbacks: list[pl.Callback]) -> pl.Trainer:
        for callback in callbacks:
            for hook in HOOKS:
                if hook in type(callback).__dict__:
                    part = f"callback {type(callback).__name__}"
                    setattr(callback, hook, clock.timed(part, getattr(callback, hook)))
        return plain_trainer(app, folder, [Steps(clock), *callbacks])

    @contextmanager
    def open_loggers(*args: Any, **kwargs: Any) -> Iterator[list[Any]]:
        with plain_loggers(*args, **kwargs) as loggers:
            for one in loggers:
                one.log_metrics = clock.timed("loggers", one.log_metrics)  # type: ignore[method-assign]
                one.save = clock.timed("loggers", one.save)  # type: ignore[method-assign]
            yield loggers

    def next_batches(loader: DetectionLoader) -> Iterator[Any]:
        batches = plain_iter(loader)
        fetch = clock.timed("loader", lambda: next(batches, None))
        while (batch := fetch()) is not None:
            yield batch

    plain_trainer, plain_loggers = run.make_trainer, run.open_loggers
    plain_iter, step = DetectionLoader.__iter__, LitFasterRCNN.optimizer_step
    with (
        patch.object(run, "make_trainer", make_trainer),
        patch.object(run, "open_loggers", open_loggers),
        patch.object(DetectionLoader, "__iter__", next_batches),
        patch.object(LitFasterRCNN, "optimizer_step", clock.timed("network", step)),
        patch.object(LitFasterRCNN, "_log_losses", clock.timed("losses logged", LitFasterRCNN._log_losses)),
    ):
        yield


def train(folder: Path, arguments: argparse.Namespace, *more: str) -> None:
    """A training of one epoch."""
    height, width, batch = arguments.height, arguments.width, arguments.batch
    scenes = ensure_toy(folder / "scenes", train=batch * arguments.steps, val=1)
    settings = [
        *("dataset=kitti", f"run.data_root={scenes}", "training=toy", f"backbone={arguments.backbone}"),
        *(f"run.natural.height={height}", f"run.natural.width={width}", "run.natural.scale=[16,32,64]"),
        "dataset_config.target_class_mapping={car: car, pedestrian: pedestrian, cyclist: cyclist}",
        *(f"training_config.batch_size_per_gpu={batch}", "training_config.num_epochs=1"),
        *(f"run.num_workers={arguments.workers}", f"hydra.run.dir={folder / 'run'}", "run.overwrite=true"),
    ]
    logging.getLogger("frcnn").setLevel(logging.ERROR)
    if code := command("train", [*settings, *more]):
        raise SystemExit(code)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table and the share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--workers", type=int, default=2)
    arguments, more = parser.parse_known_args(argv)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, instrumented(clock):
        train(Path(folder), arguments, *more)
    steps = clock.steps[WARM_UP:]
    wall = median(step["wall"] for step in steps)
    parts = sorted({part for step in steps for part in step} - {"wall"})
    medians = {part: median(step.get(part, 0.0) for step in steps) for part in parts}
    rest = median(step["wall"] - sum(step.get(part, 0.0) for part in parts) for step in steps)
    for part, seconds in {**medians, "Lightning and the rest": rest}.items():
        print(f"{part:<28} {1e3 * seconds:9.3f} ms")
    print(f"{'step':<28} {1e3 * wall:9.3f} ms, median of {len(steps)}")
    share = median(1 - step["network"] / step["wall"] for step in steps)
    print(f"around the network: {100 * share:.2f} % of a step")


if __name__ == "__main__":
    main()

"""What an epoch takes in memory and time, measured by a few real steps."""

import copy
import math
import time
from functools import partial
from typing import Any

import numpy as np
import torch

from frcnn import build
from frcnn.auto_batch import free_memory, step_memory
from frcnn.check.findings import Findings
from frcnn.data.dataset import DetectionDataset
from frcnn.data.sample import Batch, collate
from frcnn.errors import DataError
from frcnn.model.detector import FasterRCNN
from frcnn.spec.run import App
from frcnn.trainer import device_count, mixed_precision, training_device

CPU_IMAGES = 2
"""Images of a timed step on a CPU, where twice as many take twice as long."""


def measure(
    app: App, detector: FasterRCNN, dataset: DetectionDataset, findings: Findings, content: dict[str, Any]
) -> None:
    """Do steps with a copy of the network and images of the data set; an epoch follows from them."""
    device, training = training_device(app), app.training_config
    limit = app.model_config.input_image_config.max_objects_num_per_image
    memory = step_memory(
        detector,
        size=build.largest_size(app),
        channels=build.channels(app),
        max_objects=limit,
        make_optimizer=build.optimizer(app),
        device=device,
        precision=partial(mixed_precision, app, device),
    )
    batch, available = training.batch_size_per_gpu, free_memory(device)
    needed = memory.fixed + batch * memory.per_image
    content["facts"] |= {"device": device.type, "step_bytes": needed, "free_bytes": available}
    step_size, free = f"{needed / 2**30:.2f} GiB", f"{available / 2**30:.2f} GiB"
    content["summary"] = f"{step_size} a step of {batch} images; {free} free"
    fits = memory.images(available)
    if needed > available and not app.run.auto_batch:
        findings.warn(
            "a step takes more memory than this machine has free",
            where="training_config.batch_size_per_gpu",
            found=f"{step_size} for {batch} images",
            allowed=f"{free}, which {fits} images fit into",
            hint="run.auto_batch=true finds a batch size; bf16-mixed or smaller inputs take less",
        )
    images = min(batch, max(fits, 1), len(dataset), batch if device.type == "cuda" else CPU_IMAGES)
    began = time.perf_counter()
    loaded = _batch(dataset, images, limit)
    loading = (time.perf_counter() - began) / images
    step = _step_seconds(app, detector, loaded, device) / images
    devices = device_count(app.trainer) * app.trainer.num_nodes
    steps = math.ceil(len(dataset) / (batch * devices))
    workers = app.run.num_workers if app.run.num_workers >= 0 else 4
    computing = steps * batch * step
    reading = len(dataset) / devices * loading / max(workers, 1)
    seconds = max(computing, reading) if workers else computing + reading
    content["facts"] |= {
        "images_per_second": 1 / step,
        "loader_images_per_second": max(workers, 1) / loading,
        "steps_per_epoch": steps,
        "epoch_seconds": seconds,
        "epochs": training.num_epochs,
    }
    content["summary"] += (
        f"; an epoch about {_duration(seconds)}, {training.num_epochs} of them "
        f"{_duration(seconds * training.num_epochs)}, without validation, on this {device.type.upper()}"
    )
    if reading > 1.5 * computing and workers:
        findings.warn(
            "reading images takes longer than training on them",
            found=f"{max(workers, 1) / loading:.1f} images/s from {workers} workers, {1 / step:.1f} trained",
            hint="more run.num_workers, or smaller image files",
        )


def _batch(dataset: DetectionDataset, images: int, max_objects: int) -> Batch:
    numbers = np.linspace(0, len(dataset) - 1, images).astype(int)
    samples = [dataset.sample(int(number)) for number in numbers]
    batch = collate(samples, max_objects=max_objects, max_ignored=dataset.index.max_ignored)
    if isinstance(batch, DataError):
        raise batch
    return batch


def _step_seconds(app: App, detector: FasterRCNN, batch: Batch, device: torch.device) -> float:
    """The shortest of the timed steps; one before them makes what only the first step makes."""
    network = copy.deepcopy(detector).to(device).train()
    optimizer = build.optimizer(app)(network)
    given = (batch.images, batch.boxes, batch.labels, batch.image_sizes, batch.ignored)
    images, boxes, labels, sizes, ignored = (x.to(device) for x in given)
    seconds = []
    for _ in range(1 + app.run.check_steps):
        began = time.perf_counter()
        with mixed_precision(app, device):
            losses = network.losses(images, boxes, labels, image_sizes=sizes, ignored=ignored)
            loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

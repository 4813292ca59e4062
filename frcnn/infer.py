"""The work of `infer`: pictures in; annotated images, labels, results and a count of everything out."""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from frcnn import results
from frcnn.data.images import eight_bit
from frcnn.data.pictures import Picture, Pictures, find_pictures
from frcnn.data.readers.headers import UNREADABLE, unreadable
from frcnn.detection_files import DetectionFiles
from frcnn.errors import DataError, RunError, SpecError
from frcnn.paths import PathFinder, load_mounts
from frcnn.predictor import Prediction, Predictor, Prepared, predictor
from frcnn.report.draw import draw_boxes
from frcnn.report.tables import render, rows_table
from frcnn.spec.run import App

log = logging.getLogger(__name__)

AHEAD = 8
"""Pictures that are read at once, at least, if they are small; a batch may have more."""
PIXELS = 64_000_000
"""Pixels of pictures that are read at once, at most, unless a single one has more."""
NAMED = 5
"""Unreadable pictures that the console names; the log names all."""
LOG_SECONDS = 30.0
JPEG = {"quality": 92, "subsampling": 0}  # with half of the colours lines would bleed
SAVING: dict[str, dict[str, Any]] = {".jpg": JPEG, ".jpeg": JPEG, ".png": {"compress_level": 1}}
"""How annotated images are saved: PNG files soon rather than small."""


class _Loaded(NamedTuple):
    name: str
    pixels: NDArray[np.uint8]  # (H, W, 3) or (H, W)
    prepared: Prepared


def infer_pictures(app: App, folder: Path) -> dict[str, Any]:
    """Find objects in the pictures of `inference_config.images_dir`, and write them.

    Args:
        app: settings.
        folder: of the run; coco.json and detections.csv go into its `detections`, and so do images and
            labels that have no folder of their own.

    Returns:
        The content of results.json.

    Raises:
        DataError: there are no images.
        SpecError: a folder that holds files already, or settings that do not fit.
        WeightsError: the model cannot be used.
        RunError: no image could be read, or a file cannot be written.
    """
    finder = PathFinder(spec_folder=app.run.spec_folder, mounts=load_mounts(app.run.mounts))
    named, field = app.inference_config.images_dir, "inference_config.images_dir"
    if not named:
        raise SpecError("there is nothing to look at", where=field, hint="images=PATH")
    source = finder.find(named, field=field)
    app.inference_config.images_dir = str(source)
    pictures = find_pictures(source)
    images, labels = _targets(app, folder, finder, pictures)
    model = predictor(app)
    results.store_settings(app, folder)
    count = Counter(dict.fromkeys(model.class_names, 0))
    begun, seen, unread = time.perf_counter(), 0, 0
    draw = partial(
        _draw, folder=images, class_names=model.class_names, captions=app.inference_config.bbox_caption_on
    )
    files = DetectionFiles(folder / "detections", labels, pictures.names)
    threads = app.run.num_workers if app.run.num_workers >= 0 else min(4, os.cpu_count() or 1)
    with files, ThreadPoolExecutor(max(threads, 1)) as pool, _progress(pictures.count) as advance:
        drawn: list[Future[None]] = []
        for chunk in _read_ahead(pictures, model, pool):
            loaded = [item for item in chunk if isinstance(item, _Loaded)]
            found = model.predict([item.prepared for item in loaded])
            for item, prediction in zip(loaded, found, strict=True):
                files.add(item.name, prediction)
                count.update(prediction.names)
            seen += len(loaded)
            for error in (item for item in chunk if isinstance(item, DataError)):
                unread += 1
                log.warning("%s", error, extra={"file_only": unread > NAMED})
            _finish(drawn)  # before more pictures are held
            drawn = [pool.submit(draw, *pair) for pair in zip(loaded, found, strict=True) if app.run.draw]
            advance(len(chunk))
        _finish(drawn)
    seconds = time.perf_counter() - begun
    for number, what in ((pictures.skipped, "skipped: no images"), (unread, "skipped: could not be read")):
        if number:
            log.warning("%d %s", number, what)
    if not seen:
        hint = "log.txt names them all"
        raise RunError("no image could be read", where=source, found=f"{unread} that cannot be", hint=hint)
    rows = [{"class": name, "objects": number} for name, number in count.items()]
    log.info("%d objects in %d images\n%s", count.total(), seen, render(rows_table(rows)))
    return {
        "schema": 1,
        "command": "infer",
        "model": app.run.model_path,
        "source": str(source),
        "images": seen,
        "unreadable": unread,
        "skipped": pictures.skipped,
        "objects": count.total(),
        "per_class": {name: {"objects": number} for name, number in count.items()},
        "categories": dict(enumerate(model.class_names, start=1)),
        "score_threshold": model.threshold,
        "seconds": seconds,
        "images_per_second": seen / seconds,
        "folders": {"images": str(images) if app.run.draw else None, "labels": str(labels)},
        "versions": results.versions(),
    }


def _targets(app: App, folder: Path, finder: PathFinder, pictures: Pictures) -> tuple[Path, Path]:
    """Where annotated images and label files go. A folder that settings name must not hold any file yet."""
    block, found = app.inference_config, []
    for field, name in (("detection_image_output_dir", "images"), ("labels_dump_dir", "labels")):
        text, where = getattr(block, field), f"inference_config.{field}"
        target = finder.target(text) if text else folder / "detections" / name
        found.append(target)
        if not text or not target.is_dir() or (name == "images" and not app.run.draw):
            continue
        if name == "images" and _would_replace(target, pictures):
            raise SpecError("would replace the images to look at", where=where, found=target)
        if not app.run.overwrite and any(path.is_file() for path in target.iterdir()):
            hint = "another folder, or run.overwrite=true, which replaces files of the same name"
            raise SpecError("the folder holds files already", where=where, found=target, hint=hint)
    return found[0], found[1]


def _would_replace(target: Path, pictures: Pictures) -> bool:
    """Whether an annotated image would take the place of its original; frames of a video have none."""
    pairs = ((target / item.name, item.path) for item in (pictures.items if pictures.names else ()))
    return any(copy.exists() and copy.samefile(original) for copy, original in pairs)


def _read_ahead(
    pictures: Pictures, model: Predictor, pool: ThreadPoolExecutor
) -> Iterator[list[_Loaded | DataError]]:
    """Pictures as they are read, some at a time, while those before them are worked on."""
    waiting: list[Future[_Loaded | DataError]] = []
    for chunk in _chunks(pictures.items, most=model.batch_size * -(-AHEAD // model.batch_size)):
        coming = [pool.submit(_load, picture, model) for picture in chunk]
        if waiting:
            yield [future.result() for future in waiting]
        waiting = coming
    yield [future.result() for future in waiting]


def _chunks(pictures: Iterable[Picture], *, most: int) -> Iterator[list[Picture]]:
    chunk: list[Picture] = []
    pixels = 0
    for picture in pictures:
        area = picture.area()
        if chunk and (len(chunk) == most or pixels + area > PIXELS):
            yield chunk
            chunk, pixels = [], 0
        chunk.append(picture)
        pixels += area
    if chunk:
        yield chunk


def _load(picture: Picture, model: Predictor) -> _Loaded | DataError:
    try:
        pixels = eight_bit(picture.read(), channels=model.channels)
    except UNREADABLE as error:
        return unreadable(picture.path, error)
    return _Loaded(picture.name, pixels, model.prepare(pixels))


def _draw(
    item: _Loaded, prediction: Prediction, *, folder: Path, class_names: Sequence[str], captions: bool
) -> None:
    pixels = item.pixels if item.pixels.ndim == 3 else np.stack([item.pixels] * 3, axis=-1)
    image = draw_boxes(
        pixels,
        class_names=class_names,
        boxes=prediction.boxes,
        scores=prediction.scores,
        labels=prediction.labels,
        min_score=0.0,
        captions=captions,
    )
    target = folder / item.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        image.save(target, **SAVING.get(target.suffix.lower(), {}))
    except OSError as error:
        raise RunError("cannot be written", where=target, found=error.strerror or error) from error


def _finish(work: Iterable[Future[None]]) -> None:
    for future in work:
        future.result()


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line now and then in a log; yields what counts images."""
    console, begun, done, said = Console(stderr=True), time.monotonic(), 0, time.monotonic()

    def rate() -> str:
        return f"{done / max(time.monotonic() - begun, 1e-9):.1f} img/s"

    columns = (TextColumn("infer"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeRemainingColumn())
    rates = TextColumn("{task.fields[rate]}", style="cyan")
    with Progress(*columns, rates, console=console, expand=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("infer", total=total or None, rate="")

        def advance(images: int) -> None:
            nonlocal done, said
            done += images
            bar.update(task, completed=done, rate=rate())
            if not console.is_terminal and time.monotonic() - said > LOG_SECONDS:
                said = time.monotonic()
                log.info("%d of %s images: %s", done, total or "?", rate())

        yield advance
    log.info("%d images, %s", done, rate())

"""From planned images to a set of record files: read in parallel, written in order, counted."""

import json
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

from frcnn.data.convert.partition import split_shards
from frcnn.data.convert.record_set import replaced_set, sync, without_interrupts
from frcnn.data.convert.sample_modifier import SampleModifier
from frcnn.data.readers.shards import WARNING_SUFFIX, record_name
from frcnn.errors import RunError

_CHUNK = 32  # images that a process gets at a time
_AHEAD = 4  # chunks per process that are read or wait to be written
_MANY = 4000  # images; starting processes takes longer than reading fewer


class Skipped(NamedTuple):
    """An object without area, which the TAO converter leaves out."""

    key: str  # where its label is
    name: str
    box: tuple[int, int, int, int]  # x1, y1, x2, y2 truncated toward 0


class Converted(NamedTuple):
    """An image that is ready to be written."""

    record: bytes
    classes: tuple[str, ...]  # of its objects
    skipped: tuple[Skipped, ...]


@dataclass
class Plan:
    """What is to be converted.

    Attributes:
        partitions: items of each partition, in the order of writing; an empty partition has no number.
        folds: the number of partitions that file names speak of; 0 leaves it out.
        shards: files of each partition; 0 leaves their number out.
        read: turns an item into its record; goes to other processes if `parallel`.
        parallel: whether `read` waits for files or computes.
        warnings: what the user should know before training on the records.
        missing_labels: images that were taken for ones without objects.
    """

    partitions: list[list[Any]]
    folds: int
    shards: list[int]
    read: Callable[[Any], Converted]
    parallel: bool = True
    warnings: list[str] = field(default_factory=list)
    missing_labels: list[str] = field(default_factory=list)


@dataclass
class Fold:
    """What became of the images of a fold."""

    images: int = 0
    empty: int = 0  # images without objects
    filtered: int = 0  # images left out by the sample modifier
    copies: int = 0  # records that it added
    cut: int = 0  # records beyond its limit
    records: int = 0
    objects: Counter[str] = field(default_factory=Counter)  # in the records, by class


@dataclass
class Summary:
    """What was written."""

    folds: list[Fold]
    files: int
    empty_files: int
    skipped: Counter[str]  # objects without area, by class

    @property
    def classes(self) -> list[str]:
        """All class names, sorted."""
        return sorted({name for fold in self.folds for name in fold.objects} | set(self.skipped))


def write_set(
    plan: Plan,
    output: Path,
    *,
    modifier: SampleModifier,
    processes: int,
    advance: Callable[[], None] = lambda: None,
) -> Summary:
    """Write the files of a plan in the place of whatever an earlier conversion wrote there.

    Args:
        plan: what to write.
        output: folder and stem of the files' names.
        modifier: how often each sample is written.
        processes: how many read images and labels.
        advance: called for every image.

    Raises:
        DataError: a label or image cannot be used.
        RunError: the records cannot be written.
    """
    summary = Summary([], 0, 0, Counter())
    warnings: dict[str, tuple[int, int, int, int]] = {}
    items = list(chain.from_iterable(plan.partitions))
    many = plan.parallel and len(items) >= _MANY
    with (
        replaced_set(output) as staging,
        closing(_in_order(plan.read, items, processes if many else 1)) as images,
    ):
        for partition, shards in zip(plan.partitions, plan.shards, strict=True):
            if not partition:
                continue
            number, fold = len(summary.folds), Fold()
            summary.folds.append(fold)
            for shard, part in enumerate(split_shards(partition, shards)):
                name = record_name(output.name, fold=number, folds=plan.folds, shard=shard, shards=shards)
                summary.files += 1
                with open(staging / name, "wb") as file:
                    for image in islice(images, len(part)):
                        warnings.update((item.key, item.box) for item in image.skipped)
                        summary.skipped.update(item.name for item in image.skipped)
                        for _ in range(_count(image, fold, modifier, number)):
                            file.write(image.record)
                        advance()
                    summary.empty_files += not file.tell()
                    sync(file)
        if warnings:
            with open(staging / f"{output.name}{WARNING_SUFFIX}", "wb") as file:
                file.write(json.dumps(warnings, indent=2).encode())
                sync(file)
    return summary


def _count(image: Converted, fold: Fold, modifier: SampleModifier, number: int) -> int:
    """Enter an image into the account of its fold; returns how many records it becomes."""
    wanted, written = modifier.copies(image.classes, fold=number)
    fold.images += 1
    fold.empty += not image.classes
    fold.filtered += not wanted
    fold.copies += max(wanted - 1, 0)
    fold.cut += wanted - written
    fold.records += written
    for name, count in Counter(image.classes).items():
        fold.objects[name] += count * written
    return written


def _in_order(
    read: Callable[[Any], Converted], items: Sequence[Any], processes: int
) -> Generator[Converted, None, None]:
    """`map(read, items)` in several processes, a bounded number of chunks ahead."""
    if processes <= 1:
        yield from map(read, items)
        return
    chunks = (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
    pool = ProcessPoolExecutor(processes, initializer=_obey_parent)
    pending: deque[Future[list[Converted]]] = deque()
    try:
        with without_interrupts():  # the first chunk starts the processes, and a fork swallows exceptions
            pending.extend(pool.submit(_read_chunk, read, chunk) for chunk in islice(chunks, 1))
        for chunk in chunks:
            pending.append(pool.submit(_read_chunk, read, chunk))
            if len(pending) >= _AHEAD * processes:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool as error:
        raise RunError("a process that read images was killed", hint="is the memory used up?") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _read_chunk(read: Callable[[Any], Converted], items: Iterable[Any]) -> list[Converted]:
    return [read(item) for item in items]


def _obey_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it ends, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)

"""A set of record files that is replaced as a whole: whatever kills the writer, no reader takes a mixture."""

import fcntl
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from frcnn.data.readers.shards import is_of_set, unfinished_mark
from frcnn.data.readers.tfrecord import masked_crc
from frcnn.errors import DataError, RunError

_LOCK = ".lock"


@contextmanager
def replaced_set(output: Path) -> Iterator[Path]:
    """A hidden folder for the files of a set; leaving the block puts them in the place of the former set.

    The folder lies beside the files, so that renaming is enough. A mark is there from before the first
    change that readers can see until after the last (`shards.find_records` refuses a set that has one).
    An error or Ctrl-C in the block leaves everything as it was; what a kill leaves is cleared by the next
    conversion.

    Args:
        output: folder and stem of the files' names.

    Raises:
        DataError: a file of that very name is there and holds no records.
        RunError: another conversion writes the set, the disk is full, the folder is read-only.
    """
    staging = output.with_name(f".{output.name}.converting")
    made = [parent for parent in output.parents if not parent.exists()]
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        _refuse_other_file(output)
        lock = _claim(staging)
        try:
            for leftover in _files(staging):
                leftover.unlink()
            yield staging
            _replace(staging, output)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            lock.close()
    except OSError as error:
        where = error.filename or output.parent
        raise RunError("the records cannot be written", where=where, found=error.strerror) from error
    finally:
        with suppress(OSError):  # only if nothing was written
            for folder in made:
                folder.rmdir()


def sync(file: BinaryIO) -> None:
    """Wait until what was written to a file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def _files(staging: Path) -> list[Path]:
    return sorted(path for path in staging.iterdir() if path.name != _LOCK)


def _claim(staging: Path) -> BinaryIO:
    """Make the folder ours until the returned file is closed or this process ends, however it ends."""
    while True:
        staging.mkdir(exist_ok=True)
        try:
            lock = open(staging / _LOCK, "ab")  # noqa: SIM115 -- held until the set is replaced
        except FileNotFoundError:
            continue  # the former owner was just removing its folder
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            lock.close()
            raise RunError(
                "another conversion is writing the same records", where=staging, hint="wait for its end"
            ) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), (staging / _LOCK).stat()):
                return lock
        lock.close()


def _replace(staging: Path, output: Path) -> None:
    folder, files = output.parent, _files(staging)
    new = {path.name for path in files}
    former = [path for path in folder.iterdir() if is_of_set(path.name, output.name) and path.is_file()]
    if blocked := [name for name in new if (folder / name).is_dir()]:
        raise RunError("a folder is in the way", where=folder / blocked[0])
    mark = unfinished_mark(folder, output.name)
    with without_interrupts():
        mark.touch()
        _sync_folder(folder)
        for path in files:
            path.replace(folder / path.name)
        for path in former:
            if path.name not in new:
                path.unlink()
        _sync_folder(folder)
        mark.unlink()
        _sync_folder(folder)


def _refuse_other_file(output: Path) -> None:
    """Raise `DataError` rather than replace a stranger that happens to have the set's name."""
    if not output.is_file():
        return
    with open(output, "rb") as file:
        head = file.read(12)
    if head and int.from_bytes(head[8:], "little") != masked_crc(head[:8]):
        raise DataError(
            "a file that holds no records has the name of the output",
            where=output,
            hint="choose another name for -o, or move that file",
        )


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Ctrl-C waits until the block is done."""
    if threading.current_thread() is not threading.main_thread():
        yield  # interrupts go to the main thread
        return
    caught: list[tuple[int, FrameType | None]] = []
    # Not a signal mask: the thread of a progress bar would take the signal, and the main thread raise.
    before = signal.signal(signal.SIGINT, lambda *signal_and_frame: caught.append(signal_and_frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught and callable(before):
        before(*caught[-1])


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

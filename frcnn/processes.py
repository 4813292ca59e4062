"""The processes of one run: started together, ended together, and the first speaks for all."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from frcnn.errors import ElsewhereError, FrcnnError, RunError
from frcnn.folder import is_first_process
from frcnn.status import StatusFile

RECORD = ".failed"
"""File of a run's folder in which the first process that fails says why."""

POLL_SECONDS = 0.25
ECHO_SECONDS = 3.0  # between a lost connection and the reason of whoever closed it
GRACE_SECONDS = 10.0  # for a process to end by itself once another one failed

_PLACES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PARENT = "FRCNN_PARENT"

Child = subprocess.Popen[bytes]


@contextmanager
def own_group(folder: Path) -> Iterator[None]:
    """Leave no group of processes and no trace of one behind, so that the next job of a sweep has its own."""
    before = {name: os.environ.get(name) for name in _PLACES}
    if is_first_process():
        (folder / RECORD).unlink(missing_ok=True)
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def start_children(count: int, *, nodes: int, node: int, address: str, port: int) -> list[Child]:
    """Start the command line of this run for each further device of this machine.

    They do not hear Ctrl-C: this process ends them, and they end with it.

    Args:
        count: processes of this machine, this one included.
        nodes: machines.
        node: which one this is, from 0.
        address: of the first machine, where all processes meet.
        port: likewise.
    """
    os.environ |= {
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "NODE_RANK": str(node),
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(count * nodes),
    }
    command = [sys.executable, "-m", "frcnn.entry", *sys.argv[1:]]
    return [
        subprocess.Popen(
            command,
            env=os.environ | {"LOCAL_RANK": str(rank), _PARENT: str(os.getpid())},
            start_new_session=True,
        )
        for rank in range(1, count)
    ]


@contextmanager
def ending_together(folder: Path, children: Sequence[Child] = ()) -> Iterator[None]:
    """A stretch of a run in which processes wait for each other: where one fails, all do, for its reason.

    Args:
        folder: of the run, the same for all processes.
        children: processes that this one started.

    Raises:
        BaseException: the first failure of any process, see `agreed`.
    """
    if not _several():
        yield
        return
    over = threading.Event()
    guard = threading.Thread(target=_guard, args=(folder, children, over), daemon=True)
    guard.start()
    try:
        yield
    except BaseException as error:
        cause = agreed(folder, error, children)
        for child in children:
            child.kill()
            child.wait()
        if cause is error:
            raise
        raise cause from error
    finally:
        over.set()
        guard.join()


def agreed(folder: Path, error: BaseException, children: Sequence[Child] = ()) -> BaseException:
    """What this process has to end with: the failure that was the first of all processes'.

    Others learn of `error` if it is that one. Only the first process speaks: elsewhere the result has no
    words, unless the first one cannot be told.

    Args:
        folder: of the run.
        error: what stopped this process.
        children: processes that this one started.
    """
    if not _several() or isinstance(error, ElsewhereError):
        return error
    record = folder / RECORD
    if _is_echo(error):
        _wait_for(record, children)
        error = _lost(children, error)
    code = 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)
    text = str(error) if isinstance(error, FrcnnError) else f"{type(error).__name__}: {error}"
    try:
        with record.open("x", encoding="utf-8") as file:
            file.write(json.dumps({"code": code, "text": text}))
    except FileExistsError:
        code, text = _read(record)
        error = KeyboardInterrupt() if code == 130 else ElsewhereError(text, exit_code=code)
    except OSError:
        return error
    return error if is_first_process() else ElsewhereError("", exit_code=code)


def _several() -> bool:
    size = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or "1"
    return int(size) > 1 or "NODE_RANK" in os.environ


def _is_echo(error: BaseException) -> bool:
    """Whether an error is what a process hears of the end of another one."""
    words = re.search(r"gloo|nccl|process group", str(error), re.IGNORECASE)
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and words is not None)


def _wait_for(record: Path, children: Sequence[Child]) -> None:
    deadline = time.monotonic() + ECHO_SECONDS
    while not record.exists() and time.monotonic() < deadline:
        if any((child.poll() or 0) < 0 for child in children):  # killed: it has not said why
            return
        time.sleep(0.05)


def _read(record: Path) -> tuple[int, str]:
    for _ in range(20):
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
            return int(found["code"]), str(found["text"])
        except (OSError, ValueError):  # being written
            time.sleep(0.05)
    return 1, "another process of the run failed"


def _lost(children: Sequence[Child], error: BaseException | None = None) -> RunError:
    ends = {rank: child.poll() for rank, child in enumerate(children, start=1)}
    found = [
        f"process {rank} ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"
        for rank, code in ends.items()
        if code
    ]
    return RunError(
        "another process of the run was lost",
        found=", ".join(found) or error,
        hint="fewer trainer.devices or a smaller training_config.batch_size_per_gpu if memory ran out",
    )


def _guard(folder: Path, children: Sequence[Child], over: threading.Event) -> None:
    """End this process if another one failed and it does not end by itself: it may wait for that one."""
    parent = int(os.environ.get(_PARENT, 0))
    while not ((folder / RECORD).exists() or any(child.poll() for child in children)):
        if over.wait(POLL_SECONDS):
            return
        if parent and os.getppid() != parent:
            os._exit(1)
    joined = dist.is_initialized()
    if joined and dist.get_backend() == "nccl":
        dist.distributed_c10d._get_default_group().abort()  # its kernels would wait for the others forever
    if over.wait(GRACE_SECONDS if joined else 1.0):
        return
    cause = agreed(folder, _lost(children), children)
    if text := str(cause):
        StatusFile(folder / "status.json").write("FAILURE", text, verbosity="ERROR")
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    for child in children:
        child.kill()
    os._exit(getattr(cause, "exit_code", 130))

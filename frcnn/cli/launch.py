"""What the original's wrapper does around a task: devices, processes, precision, the log file, the key."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frcnn.cli.flags import Typed
from frcnn.cli.verbs import Verb
from frcnn.errors import RunError, SpecError

SEVERAL_GPUS = ("train", "evaluate")


def launched(verb: Verb, typed: Typed) -> list[str]:
    """Settings that the launcher's flags stand for; the key and the choice of GPUs go into the environment.

    Raises:
        SpecError: flags that do not go together, or not with this verb.
    """
    if key := typed.value("--enc_key"):
        os.environ["FRCNN_ENC_KEY"] = key
    if typed.values("--launch_cuda_blocking") is not None:
        os.environ["CUDA_LAUNCH_BLOCKING"] = "1"
    for flag, _ in typed.flags:
        if flag.inert:
            sys.stderr.write(f"{flag.names[0]} has no effect: {flag.inert}\n")
    settings = _devices(verb, typed)
    if typed.values("--use_amp") is not None:
        if verb.name != "train":
            raise SpecError("is for train", where="--use_amp", found=verb.name)
        settings.append("trainer.precision=16-mixed")
    return settings if verb.command else []


def _devices(verb: Verb, typed: Typed) -> list[str]:
    gpus, processes, indices = typed.value("--gpus"), typed.value("-np"), typed.values("--gpu_index")
    count = _number(gpus, "--gpus", low=1) if gpus else 1
    if count > 1 and verb.name not in SEVERAL_GPUS:
        raise SpecError(f"{verb.name} uses one GPU", where="--gpus", found=count, allowed="1")
    if indices is not None:
        _choose_gpus([_number(index, "--gpu_index", low=0) for index in indices], count)
    settings = ["trainer.accelerator=gpu", f"trainer.devices={count}"] if gpus or indices else []
    number = _number(processes, "--num_processes", low=-1) if processes else -1
    if number == -1:
        return settings
    if not 1 <= number <= count or count % number:
        allowed = f"-1, or a divisor of --gpus {count}"
        raise SpecError("cannot share the GPUs", where="--num_processes", found=number, allowed=allowed)
    if verb.name == "train":
        return [*settings, f"trainer.processes={number}"]
    if number != count:
        raise SpecError(f"{verb.name} has a process per GPU", where="--num_processes", found=number)
    return settings


def _choose_gpus(indices: list[int], count: int) -> None:
    if len(set(indices)) != len(indices) or len(indices) != count:
        raise SpecError(
            "needs as many different numbers as there are GPUs",
            where="--gpu_index",
            found=" ".join(map(str, indices)),
            allowed=f"{count} of them",
            hint=f"--gpus {len(set(indices))}",
        )
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if seen and max(indices) >= len(seen):
        raise SpecError(
            "there is no such GPU",
            where="--gpu_index",
            found=max(indices),
            allowed=f"0 to {len(seen) - 1}, the places in CUDA_VISIBLE_DEVICES={','.join(seen)}",
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(seen[i] if seen else str(i) for i in indices)


def _number(text: str, name: str, *, low: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = low - 1
    if number < low:
        raise SpecError("is no number for it", where=name, found=text, allowed=f"a whole number from {low}")
    return number


@contextmanager
def output_to(path: str | None) -> Iterator[None]:
    """Append what this process and its children say to a file; None: leave it where it goes.

    Raises:
        RunError: the file cannot be written.
    """
    if path is None:
        yield
        return
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise RunError("cannot be written", where=path, found=error.strerror) from error
    streams = (sys.stdout, sys.stderr)
    kept = [(number, os.dup(number)) for number in (1, 2)]
    try:
        _flush(streams)
        for number, _ in kept:
            os.dup2(file, number)
        yield
    finally:
        _flush(streams)
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)
        os.close(file)


def _flush(streams: tuple[object, ...]) -> None:
    for stream in streams:
        stream.flush()  # type: ignore[attr-defined]

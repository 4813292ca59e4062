"""What a sweep leaves behind: a record of each job, and the table and the plot of them all."""

import csv
import io
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frcnn.bridge.files import write_text
from frcnn.errors import FrcnnError, RunError, SpecError
from frcnn.folder import is_first_process

log = logging.getLogger(__name__)

RECORD, TABLE, PLOT = "job.json", "sweep.csv", "sweep.png"


@dataclass
class Job:
    """A job of a sweep, as its folder tells.

    Attributes:
        number: from 0.
        folder: of the run.
        status: done, failed, interrupted, running, or killed: it neither ended nor runs.
        settings: the overrides that not all jobs of the sweep share.
        direction: maximize or minimize `score`.
        metric: name of what the sweep optimises.
        score: its value.
        mAP: of the last validation.
        per_class: AP of each class.
        seconds: wall time.
        exit_code: as a command on its own would have ended; None if it did not.
        message: why it failed.
    """

    number: int
    folder: Path
    status: str
    direction: str = "maximize"
    settings: dict[str, str] = field(default_factory=dict)
    metric: str = "val/mAP"
    score: float | None = None
    mAP: float | None = None
    per_class: dict[str, float | None] = field(default_factory=dict)
    seconds: float | None = None
    exit_code: int | None = None
    message: str = ""


@contextmanager
def recorded(
    folder: Path, sweep: Path, *, number: int, overrides: Sequence[str], direction: str
) -> Iterator[None]:
    """Keep the record of a job while it runs, and bring the sweep's table up to date when it ends.

    Args:
        folder: of the job.
        sweep: folder of all jobs.
        number: of the job, from 0.
        overrides: settings of the job as they were typed.
        direction: maximize or minimize.
    """
    if not is_first_process():
        yield
        return
    record = {
        "job": number,
        "overrides": list(overrides),
        "direction": direction,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "seconds": None,
        "exit_code": None,
        "message": "",
    }
    since = time.perf_counter()

    def write(exit_code: int | None, message: str = "") -> None:
        record.update(seconds=time.perf_counter() - since, exit_code=exit_code, message=message)
        write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
        if exit_code is not None:
            write_table(sweep)

    write(None)
    try:
        yield
    except KeyboardInterrupt:
        write(130, "interrupted")
        raise
    except Exception as error:
        code = error.exit_code if isinstance(error, FrcnnError) else 1
        write(code, str(error) or type(error).__name__)
        raise
    write(0)


@contextmanager
def recorded_again(folder: Path) -> Iterator[None]:
    """As `recorded`, for a job that goes on by hand after its sweep is over; nothing for other runs.

    Args:
        folder: of the run.
    """
    sweep = next((parent for parent in folder.absolute().parents if (parent / TABLE).exists()), None)
    if sweep is None or not in_sweep(folder):
        yield
        return
    before = (folder / RECORD).read_text(encoding="utf-8")
    record = json.loads(before)
    if record["exit_code"] is None and _runs(record):  # its sweep runs it, and keeps the record
        yield
        return
    overrides, direction = record["overrides"], record["direction"]
    try:
        with recorded(folder, sweep, number=record["job"], overrides=overrides, direction=direction):
            yield
    except SpecError:  # it was refused, which says nothing about the job
        write_text(folder / RECORD, before)
        write_table(sweep)
        raise


def stored_score(folder: Path) -> tuple[str, float | None]:
    """Name and value of what a sweep optimises, as a run's results.json says; mAP for an evaluation."""
    if not (folder / "results.json").exists():
        return "val/mAP", None
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    optimized = found.get("optimized", {"metric": "val/mAP", "value": found["mAP"]})
    return optimized["metric"], optimized["value"]


def in_sweep(folder: Path) -> bool:
    """Whether a run folder belongs to a job of a sweep."""
    return (folder / RECORD).exists()


def forget(sweep: Path) -> None:
    """Remove the records of an earlier sweep in the same folder."""
    for path in (*sweep.rglob(RECORD), sweep / TABLE, sweep / PLOT):
        path.unlink(missing_ok=True)


def read_jobs(sweep: Path) -> list[Job]:
    """The jobs of a sweep that have begun, in order."""
    jobs, overrides = [], []
    for path in sweep.rglob(RECORD):
        record = json.loads(path.read_text(encoding="utf-8"))
        jobs.append(_job(path.parent, record))
        overrides.append(dict(item.partition("=")[::2] for item in record["overrides"]))
    keys = dict.fromkeys(key for items in overrides for key in items)
    varying = [key for key in keys if len({items.get(key) for items in overrides}) > 1]
    metric = next((job.metric for job in jobs if job.score is not None), "val/mAP")
    for job, items in zip(jobs, overrides, strict=True):
        job.metric = metric
        job.settings = {key: items.get(key, "") for key in varying}
    return sorted(jobs, key=lambda job: job.number)


def best_job(jobs: Sequence[Job]) -> Job | None:
    """The finished job with the best score; of equals the first."""
    scored = [job for job in jobs if job.score is not None and job.status == "done"]
    sign = -1 if any(job.direction == "minimize" for job in scored) else 1
    return max(scored, key=lambda job: sign * (job.score or 0.0), default=None)


def write_table(sweep: Path) -> list[Job]:
    """Write sweep.csv and, where there is something to draw, sweep.png; each at once.

    Raises:
        RunError: the folder cannot be written to.
    """
    jobs = read_jobs(sweep)
    best = best_job(jobs)
    classes = list(dict.fromkeys(name for job in jobs for name in job.per_class))
    rows = [_row(job, best, sweep, classes) for job in jobs]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(sweep / TABLE, text.getvalue())
    if any(job.score is not None for job in jobs):
        from frcnn.report.sweep import sweep_figure  # matplotlib takes its time

        figure = sweep_figure(
            numbers=[job.number for job in jobs],
            metric=jobs[0].metric,
            scores=[job.score for job in jobs],
            classes={name: [job.per_class.get(name) for job in jobs] for name in classes}
            if jobs[0].metric == "val/mAP"
            else {},
            settings=short_settings(jobs),
            statuses=[job.status for job in jobs],
            best=jobs.index(best) if best else None,
        )
        half = sweep / f".{PLOT}.{socket.gethostname()}.{os.getpid()}"
        try:
            figure.savefig(half, dpi=120, format="png")
            half.replace(sweep / PLOT)
        except OSError as error:
            raise RunError("the plot of the sweep cannot be written", where=sweep, found=error) from None
    return jobs


def console_rows(jobs: Sequence[Job]) -> list[dict[str, object]]:
    """What the console shows of sweep.csv."""
    best, settings = best_job(jobs), short_settings(jobs)
    return [
        {
            "job": f"{job.number} best" if job is best and len(jobs) > 1 else str(job.number),
            "status": job.status,
            **{name: _number(values[i]) for name, values in settings.items()},
            job.metric: job.score,
            **({} if job.metric == "val/mAP" else {"mAP": job.mAP}),
            "seconds": None if job.seconds is None else round(job.seconds),
        }
        for i, job in enumerate(jobs)
    ]


def short_settings(jobs: Sequence[Job]) -> dict[str, list[str]]:
    """Values of each varying setting, job by job, under the shortest name that is still its own."""
    keys = list(jobs[0].settings) if jobs else []
    names: dict[str, list[str]] = {}
    for key in keys:
        parts = key.lstrip("+~").split(".")
        for length in range(1, len(parts) + 1):
            name = ".".join(parts[-length:])
            if sum(other.lstrip("+~") == name or other.endswith(f".{name}") for other in keys) == 1:
                break
        names[name] = [job.settings[key] for job in jobs]
    return names


def _job(folder: Path, record: Mapping[str, Any]) -> Job:
    code = record["exit_code"]
    ends = {0: "done", 130: "interrupted", 143: "interrupted", None: "running" if _runs(record) else "killed"}
    job = Job(
        number=record["job"],
        folder=folder,
        status=ends.get(code, "failed"),
        direction=record["direction"],
        seconds=record["seconds"] if code is not None else None,
        exit_code=code,
        message=record["message"],
    )
    if code == 0 and (folder / "results.json").exists():
        found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        job.metric, job.score = stored_score(folder)
        job.mAP = found["mAP"]
        job.per_class = {name: figures["AP"] for name, figures in found["per_class"].items()}
    return job


def _runs(record: Mapping[str, Any]) -> bool:
    if record["host"] != socket.gethostname():
        return True  # as far as can be told from here
    try:
        os.kill(record["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _row(job: Job, best: Job | None, sweep: Path, classes: Sequence[str]) -> dict[str, object]:
    return {
        "job": job.number,
        "status": job.status,
        "best": "best" if job is best else "",
        **job.settings,
        **({} if job.metric == "val/mAP" else {job.metric: job.score}),
        "mAP": job.mAP,
        **{f"AP/{name}": job.per_class.get(name) for name in classes},
        "seconds": None if job.seconds is None else round(job.seconds, 1),
        "folder": job.folder.relative_to(sweep).as_posix(),
        "message": job.message.partition("\n")[0],
    }


def _number(text: str) -> object:
    """A number as one, so that it is shown with four digits."""
    try:
        return float(text)
    except ValueError:
        return text

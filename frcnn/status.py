"""status.json, the file by which TAO's tools follow a job: one JSON object per line."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

from frcnn.folder import is_first_process

log = logging.getLogger(__name__)

Status = Literal["STARTED", "RUNNING", "SUCCESS", "FAILURE", "SKIPPED"]
Verbosity = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class StatusFile:
    """The status.json of a job."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def write(
        self,
        status: Status,
        message: str,
        *,
        verbosity: Verbosity = "INFO",
        data: Mapping[str, object] | None = None,
        graphical: Mapping[str, object] | None = None,
        kpi: Mapping[str, object] | None = None,
    ) -> None:
        """Append a line, in the first process only; one that cannot be written is no reason to end a job.

        Args:
            status: one of TAO's five states.
            message: what happened.
            verbosity: how grave it is.
            data: keys beside these, such as `epoch`.
            graphical: figures to plot.
            kpi: figures that judge the model.
        """
        if not is_first_process():
            return
        now = datetime.now()
        record: dict[str, object] = {
            "date": f"{now.month}/{now.day}/{now.year}",  # TAO: nothing is padded
            "time": f"{now.hour}:{now.minute}:{now.second}",
            "status": status,
            "verbosity": verbosity,
            "message": message,
            **(data or {}),
        }
        record |= {key: dict(part) for key, part in (("graphical", graphical), ("kpi", kpi)) if part}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            log.warning("%s could not be written: %s", self.path, error.strerror)


@contextmanager
def reported(folder: Path | None, *, start: str, end: str) -> Iterator[dict[str, object]]:
    """The status.json of a command in its results folder: STARTED, then SUCCESS, or FAILURE if it raises.

    Args:
        folder: where the file goes; None: there is none. TAO: so it is without `--results_dir`.
        start: the first message.
        end: the last one.

    Yields:
        The figures (`kpi`) of the last line, to be filled in.
    """
    kpi: dict[str, object] = {}
    if folder is None:
        yield kpi
        return
    status = StatusFile(folder / "status.json")
    status.write("STARTED", start)
    try:
        yield kpi
    except BaseException as error:
        status.write("FAILURE", str(error) or type(error).__name__, verbosity="ERROR")
        raise
    status.write("SUCCESS", end, kpi=kpi)

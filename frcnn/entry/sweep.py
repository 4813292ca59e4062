"""A sweep as the command line sees it: its folder, its jobs one by one, and how it ends."""

import contextlib
import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from frcnn import sweep
from frcnn.bridge import yaml
from frcnn.bridge.files import write_text
from frcnn.entry import overrides
from frcnn.errors import FrcnnError, RunError, SpecError, StoppedError
from frcnn.folder import checkpoint_named, holds_run, is_first_process
from frcnn.paths import conf_dir
from frcnn.report.tables import render, rows_table
from frcnn.spec.run import App, Run

if TYPE_CHECKING:
    from hydra.conf import HydraConf

EXTRAS = {"hydra_ray_launcher": "ray"}
"""Plugins that do not come with frcnn[sweep]."""

PATIENCE = 30
"""Seconds that an interrupted job has to close its run."""


def check(line: overrides.CommandLine) -> None:
    """Refuse a launcher or sweeper without its plugin, and one without a sweep.

    Raises:
        SpecError: with the pip extra that is missing.
    """
    for _, key, value in map(overrides.split, line.overrides):
        file = conf_dir() / key / f"{value}.yaml"
        if key not in ("hydra/launcher", "hydra/sweeper", "hparams") or not file.is_file():
            continue
        text = file.read_text(encoding="utf-8")
        groups = dict(re.findall(r"override /(\w+): (\w+)", text))
        for group, _, choice in (item.partition("=") for item in line.overrides):
            if choice != groups.get(group, choice):
                message, hint = "is for another choice", "hydra/sweeper=optuna with a space of your own"
                found = f"{group}={choice}"
                raise SpecError(
                    message, where=f"{key}={value}", found=found, allowed=groups[group], hint=hint
                )
        if sweeper := re.search(r"override /hydra/sweeper: (\w+)", text):
            text = (conf_dir() / "hydra" / "sweeper" / f"{sweeper[1]}.yaml").read_text(encoding="utf-8")
        for plugin in re.findall(r"hydra_plugins\.(\w+)", text):
            if not _installed(plugin):
                raise SpecError(
                    "needs a plugin that is not installed",
                    where=f"{key}={value}",
                    found=f"no {plugin.replace('_', '-')}",
                    hint=f"pip install 'frcnn[{EXTRAS.get(plugin, 'sweep')}]'",
                )
            if not is_sweep(line):
                raise SpecError("is for a sweep", where=f"{key}={value}", hint="add -m")


def is_sweep(line: overrides.CommandLine) -> bool:
    """Whether the command line asks for a sweep."""
    return bool({"-m", "--multirun"} & set(line.flags))


def claim(primary: str, items: Sequence[str]) -> Path:
    """The folder of a sweep, settled before it starts: its jobs may run at other times and places.

    Args:
        primary: name of the primary config.
        items: overrides, several values of a setting included.

    Raises:
        SpecError: the folder holds a sweep or a run, and `run.overwrite` is not set.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        config = hydra.compose_config(primary, list(items), run_mode=RunMode.MULTIRUN)  # type: ignore[union-attr]
    folder = Path(config.hydra.sweep.dir).absolute()
    if folder.is_dir() and not config.run.overwrite:
        held = holds_run(folder) or any(holds_run(path.parent) for path in folder.glob(f"*/{sweep.RECORD}"))
        if held:
            hint = "another folder (-r DIR), or run.overwrite=true to replace it"
            raise SpecError("the folder holds a sweep or a run", where=folder, hint=hint)
    if folder.is_dir():
        sweep.forget(folder)
    return folder


@contextmanager
def reported(folder: Path, *, debug: bool) -> Iterator[None]:
    """Tell on the way out what became of all jobs.

    Args:
        folder: of the sweep.
        debug: whether an error of the launcher is passed on as it is.

    Raises:
        RunError: a job failed, or the launcher did.
        SpecError: jobs failed, all of them for wrong input.
        KeyboardInterrupt: Ctrl-C, after the table was written.
    """
    sys.stderr.write(f"sweep in {folder}\n")
    stopped: BaseException | None = None
    try:
        yield
    except BaseException as error:  # noqa: BLE001  (raised again below, after the table)
        stopped = error
    jobs = sweep.write_table(folder) if any(folder.rglob(sweep.RECORD)) else []
    if stopped is not None and (not jobs or debug or isinstance(stopped, KeyboardInterrupt | FrcnnError)):
        _show(folder, jobs)
        raise stopped
    _show(folder, jobs)
    unfinished = [job for job in jobs if job.status != "done"]
    if unfinished:
        lines = [f"job {job.number} {job.status}: {_first_line(job.message)}" for job in unfinished]
        kind = SpecError if all(job.exit_code == 2 for job in unfinished) else RunError
        message = f"{len(unfinished)} of {len(jobs)} jobs did not finish"
        raise kind(message, where=folder, found="\n         ".join(lines)) from stopped
    if stopped is not None:
        found = f"{type(stopped).__name__}: {_first_line(str(stopped))}"
        raise RunError("the sweep could not go on", where=folder, found=found) from stopped


def job(
    work: Callable[[], float | None], config: "HydraConf", *, folder: Path, main_process: int, debug: bool
) -> float | None:
    """Run a job; a failure is put on record and said, so that the jobs after it go on.

    Args:
        work: the command; returns what the sweep optimises.
        config: of the job, Hydra's own part.
        folder: of the job.
        main_process: id of the process that the sweep was started in; in another one the job writes
            what would go to the console to console.txt.
        debug: whether a failure is shown with its stack trace.

    Returns:
        What the work returned; None if it failed or that is no number.
    """
    number, items = config.job.num, list(config.overrides.task)
    name = f"job {number}"
    away = os.getpid() != main_process
    if not away:
        sys.stderr.write(f"\n{name}\n")
    console = sys.stderr
    with contextlib.ExitStack() as stack:
        if away and is_first_process():
            file = stack.enter_context((folder / "console.txt").open("w", encoding="utf-8", buffering=1))
            stack.enter_context(contextlib.redirect_stdout(file))
            stack.enter_context(contextlib.redirect_stderr(file))
        try:
            kept = sweep.recorded(
                folder,
                Path(config.sweep.dir),
                number=number,
                overrides=items,
                direction=str(config.sweeper.get("direction", "maximize")),
            )
            with kept:
                score = work()
        except StoppedError as error:  # the machine is wanted back: no other job is begun
            raise KeyboardInterrupt from error
        except Exception as error:  # noqa: BLE001  (the other jobs go on; the record says what happened)
            if debug:
                sys.stderr.write(traceback.format_exc())
            console.write(f"{name} failed: {error}\n")
            return None
    if away:
        console.write(f"{name} done\n")
    return score if score is not None and math.isfinite(score) else None


def go_on_if_requeued(run: Run, folder: Path) -> None:
    """A job that Slurm starts a second time goes on where it was, or begins anew if it had not come far."""
    if int(os.environ.get("SLURM_RESTART_COUNT", 0)) and holds_run(folder):
        if checkpoint_named("last", folder).exists():
            run.resume = "last"
        else:
            run.overwrite = True


def store_settings(app: App, folder: Path) -> Path:
    """job.yaml: the settings of a job that is started as a command of its own."""
    write_text(folder / "job.yaml", yaml.dumps(replace(app, enc_key=""), full=True))
    return folder / "job.yaml"


def in_own_process(arguments: Sequence[str], folder: Path) -> float | None:
    """Run a job as a command of its own and wait for it.

    A launcher whose process dies, as one without memory does, takes all its jobs with it. And Lightning
    starts the further processes of a job and, if one of them fails, kills the one that it runs in.

    Args:
        arguments: command and overrides.
        folder: of the job.

    Returns:
        What the sweep optimises.

    Raises:
        FrcnnError: the command failed.
        KeyboardInterrupt: Ctrl-C, after the command ended.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "frcnn.entry", *arguments],
        stdout=_descriptor(sys.stdout),
        stderr=_descriptor(sys.stderr),
    )
    try:
        code = process.wait()
    except KeyboardInterrupt:
        _end(process)
        raise
    if code in (130, StoppedError.exit_code):
        raise KeyboardInterrupt
    if code:
        end = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        kind = SpecError if code == 2 else RunError
        raise kind((code > 0 and _last_failure(folder / "status.json")) or f"the process {end}")
    return sweep.stored_score(folder)[1]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for an interrupted process; the interruption may have reached it already."""
    for number, seconds in ((None, 5), (signal.SIGINT, PATIENCE), (signal.SIGKILL, PATIENCE)):
        if number is not None:
            process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return


def _last_failure(status: Path) -> str:
    if not status.exists():
        return ""
    last = json.loads(status.read_text(encoding="utf-8").splitlines()[-1])
    return str(last["message"]) if last["status"] == "FAILURE" else ""


def _descriptor(stream: object) -> int | None:
    try:
        return stream.fileno()  # type: ignore[attr-defined, no-any-return]
    except (OSError, AttributeError, ValueError):
        return None


def _show(folder: Path, jobs: Sequence[sweep.Job]) -> None:
    if jobs:
        sys.stderr.write("\n" + render(rows_table(sweep.console_rows(jobs))) + f"\nsweep in {folder}\n")


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _installed(plugin: str) -> bool:
    try:
        return importlib.util.find_spec(f"hydra_plugins.{plugin}") is not None
    except ModuleNotFoundError:
        return False

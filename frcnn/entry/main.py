"""The entry point of the scripts: from arguments to a finished command and its exit code."""

import contextlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from frcnn import encryption
from frcnn.bridge.convert import read_spec
from frcnn.bridge.document import Document
from frcnn.entry import help as help_page
from frcnn.entry import overrides, sweep
from frcnn.errors import DataError, FrcnnError, RunError, SpecError
from frcnn.exits import exit_code
from frcnn.folder import checkpoint_named, holds_run, run_of
from frcnn.paths import PathFinder, conf_dir, load_mounts
from frcnn.spec.run import App
from frcnn.spec.values import model_file
from frcnn.sweep import recorded_again

if TYPE_CHECKING:
    from omegaconf import DictConfig


INFERENCE = frozenset({"inference_config", "random_seed", "verbose"})
"""What a spec says about inference; classes and preprocessing are the model's, whatever the spec is for."""


class Done(NamedTuple):
    """A job that went well."""

    folder: Path
    score: float | None


def main(command: str, argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        command: train, evaluate, export, infer, parity, prune, quantize or preview_augmentation.
        argv: arguments; those of the process if None.

    Returns:
        Exit code: 0 done, 1 failed while running, 2 wrong input, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = overrides.CommandLine(overrides=arguments).debug
    hint = "run.debug=true shows where this came from"
    return exit_code(lambda: run(command, arguments), debug=debug, hint=hint)


def run(command: str, argv: Sequence[str]) -> list[Done]:
    """Run a command; a single run that went well has its folder and score in the list.

    Args:
        command: as in `main`.
        argv: arguments.

    Raises:
        FrcnnError: wrong input, or a command that could not go on.
        KeyboardInterrupt: Ctrl-C, after the run was closed.
    """
    line = overrides.parse(_compared(argv) if command == "parity" else argv)
    if line.help:
        sys.stdout.write(help_page.page(command, conf_dir()))
        return []
    for images in line.values.get("images", []):
        if command != "infer":
            raise SpecError("unknown setting", where="command line", found="images", allowed="by infer.py")
        line.overrides.append(f"inference_config.images_dir={overrides.quoted(Path(images))}")
    overrides.check(line.overrides, conf_dir(), command)
    sweep.check(line)
    return _compose(command, line, _documents(command, line))


def _compared(argv: Sequence[str]) -> list[str]:
    """The command line of `parity FIRST SECOND` with its two files as settings.

    The settings are those of an exported one: it has one size and one number of everything.
    """
    behind = {i + 1 for i, word in enumerate(argv) if word in ("-r", *overrides.FLAGS_WITH_VALUE)}
    places = [
        i for i, word in enumerate(argv) if "=" not in word and word[:1] not in "-~" and i not in behind
    ]
    files = [argv[i] for i in places]
    rest = [word for i, word in enumerate(argv) if i not in places]
    if not files and {"-h", "--help"} & set(rest):
        return rest
    if len(files) != 2:
        found, hint = " ".join(files) or "none", "parity.py RUN/checkpoints/best.ckpt EXPORT/model.onnx"
        raise SpecError("two model files to compare", where="command line", found=found, hint=hint)
    exported = [name for name in reversed(files) if Path(name).suffix != ".ckpt"]
    names = ",".join(overrides.quoted(Path(name).resolve()) for name in files)
    return [f"model_path={(exported or files)[0]}", f"run.compare=[{names}]", *rest]


def settings_of(command: str, argv: Sequence[str], problems: list[FrcnnError]) -> tuple[App, Path]:
    """The settings that a training with these arguments would have, and the folder that they name.

    Args:
        command: name of the primary config.
        argv: arguments.
        problems: takes what is wrong with single settings.

    Raises:
        SpecError: the arguments or a spec cannot be read.
    """
    line = overrides.parse(argv)
    if line.flags:
        raise SpecError("is no flag of this command", where="command line", found=" ".join(line.flags))
    overrides.check(line.overrides, conf_dir(), command)
    documents = _documents("train", line)
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from frcnn import config

    config.register()
    try:
        primary, items = _for_hydra(command, line, documents)
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            job = compose(primary, overrides=items)
    except (HydraException, OmegaConfBaseException) as error:
        raise config.readable(error) from error
    named = [value or "" for _, key, value in map(overrides.split, line.overrides) if key == "hydra.run.dir"]
    locate = _locator(documents, line.overrides)
    return config.resolve(job, locate=locate, problems=problems), Path(named[-1].strip("'") if named else ".")


def _documents(command: str, line: overrides.CommandLine) -> list[Document]:
    specs = [read_spec(path) for path in line.values.get("spec", [])]
    for key in (*(spec.spec.enc_key for spec in specs), *line.values.get("enc_key", [])):
        # The key stays out of Hydra's tree, which is written to disk in clear (interface 12).
        if key:
            os.environ[encryption.VARIABLE] = key
    if command == "train":
        return _settings_of_training(line, specs)
    if command not in ("evaluate", "export", "infer", "parity", "prune", "quantize"):
        return specs
    paths = line.values.get("model_path") or [_model_of(spec, command) for spec in specs]
    if not all(paths) or not paths:
        hint = "model_path=RUN/checkpoints/best.ckpt"
        raise SpecError(f"needs a model to {command}", where="command line", hint=hint)
    fixed = [item for item in line.overrides if item.lstrip("+~").startswith(("model_config", "model="))]
    if fixed:
        message = "the network's settings come with the checkpoint"
        raise SpecError(message, where="command line", found=", ".join(fixed))
    if len(specs) > 1:
        raise SpecError("one spec at a time", where="command line", found=len(specs))
    from frcnn.backend import model_settings

    over, blocks = specs[0] if specs else None, INFERENCE if command == "infer" else None
    found = [model_settings(path, over=over, blocks=blocks) for path in paths]
    if command == "infer" and over is None:
        for document in found:  # the folders that the training's spec named are somewhere else
            block = document.spec.inference_config
            block.detection_image_output_dir = block.labels_dump_dir = ""
    return found


def _model_of(document: Document, command: str) -> str:
    """The model that a spec names; a relative path may be beside the spec."""
    spec, field = document.spec, "inference_config" if command == "infer" else "evaluation_config"
    model = model_file(spec.inference_config if command == "infer" else spec.evaluation_config)
    finder = PathFinder(spec_folder=str(Path(document.source).resolve().parent), mounts=load_mounts({}))
    return str(finder.find(model, field=f"{field}.model")) if model else ""


def _settings_of_training(line: overrides.CommandLine, specs: list[Document]) -> list[Document]:
    """A run that goes on does so in its own folder and, unless told otherwise, with its own settings."""
    values = {key: value for _, key, value in map(overrides.split, line.overrides)}
    folder = values.get("hydra.run.dir")
    if values.get("run.resume") == "auto":
        _last_or_nothing(line, folder)
        values = {key: value for _, key, value in map(overrides.split, line.overrides)}
    if values.get("run.resume") == "last":
        if specs:
            return specs
        if not folder:
            raise SpecError("which run?", where="run.resume", hint="hydra.run.dir=FOLDER of the run")
        if not (Path(folder) / "config.yaml").exists():
            raise SpecError("there is no run to resume", where=folder)
        return [read_spec(Path(folder) / "config.yaml")]
    path = _checkpoint_to_resume(values.get("training_config.resume_from_model"), specs)
    run = run_of(path) if path else None
    if run and not folder and not sweep.is_sweep(line):
        line.overrides.append(f"hydra.run.dir={overrides.quoted(run)}")
    if specs or line.groups or path is None:
        return specs
    if run:
        return [read_spec(run / "config.yaml")]
    from frcnn.weights.checkpoint import Checkpoint

    return [Checkpoint(path).training] if path.suffix == ".ckpt" else []


def _last_or_nothing(line: overrides.CommandLine, folder: str | None) -> None:
    """What a scheduler starts again goes on if it had come to a checkpoint, and begins if not."""
    line.overrides[:] = [item for item in line.overrides if overrides.split(item)[1] != "run.resume"]
    if not folder:
        raise SpecError("which run?", where="run.resume", hint="hydra.run.dir=FOLDER of the run")
    if checkpoint_named("last", Path(folder)).exists():
        line.overrides.append("run.resume=last")
    elif holds_run(Path(folder)):
        line.overrides.append("run.overwrite=true")


def _checkpoint_to_resume(named: str | None, specs: list[Document]) -> Path | None:
    """The file that `resume_from_model` names, if there is one."""
    spec = specs[0] if specs else None
    named = named or (spec.spec.training_config.resume_from_model if spec else "")
    if not named:
        return None
    beside = str(Path(spec.source).resolve().parent) if spec else ""
    with contextlib.suppress(DataError):  # it is found, or missed, with all its settings later
        return Path(PathFinder(spec_folder=beside, mounts=load_mounts({})).find(named, field=""))
    return None


def _compose(command: str, line: overrides.CommandLine, documents: list[Document]) -> list[Done]:
    """Let Hydra compose the settings of each job and run the command with them."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from frcnn import config

    config.register()
    done: list[Done] = []
    failures: list[BaseException] = []
    task = _task(command, _locator(documents, line.overrides), _origins(line, documents), done, failures)
    shows = any(flag.partition("=")[0] in ("--cfg", "-c") for flag in line.flags)
    flags = [*line.flags, *(["--resolve"] if shows else [])]
    typed, conf = sys.argv, str(conf_dir())
    try:
        primary, items = _for_hydra(command, line, documents)
        items = [f"hydra.job.name={command}", *items]
        with contextlib.ExitStack() as stack:
            if sweep.is_sweep(line) and not shows:
                folder = sweep.claim(primary, items)
                items.append(f"hydra.sweep.dir={overrides.quoted(folder)}")
                stack.enter_context(sweep.reported(folder, debug=line.debug))
            sys.argv = [typed[0], *flags, *items]
            hydra.main(version_base="1.3", config_path=conf, config_name=primary)(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise config.readable(error) from error
    except OSError as error:
        message, path = "the output folder cannot be made", error.filename
        raise RunError(message, where=path, found=error.strerror, hint="hydra.run.dir=FOLDER") from error
    finally:
        sys.argv = typed
    for failure in failures:  # here, where an error of the run is not taken for one of its folder
        raise failure
    return done


def _task(
    command: str,
    locate: Callable[[str], str],
    origins: Callable[[App], dict[str, str]],
    done: list[Done],
    failures: list[BaseException],
) -> Callable[["DictConfig"], float | None]:
    """What Hydra runs for each job. A single run's failure is kept, since Hydra would print it as well."""
    main_process = os.getpid()

    def task(cfg: "DictConfig") -> float | None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from frcnn import config

        config.register()  # a launcher may have brought the job to another process
        hydra_config = HydraConfig.get()
        folder = Path(hydra_config.runtime.output_dir)
        several = hydra_config.mode == RunMode.MULTIRUN

        def work() -> float | None:
            app = config.resolve(cfg, locate=locate)
            app.origins().update(origins(app))
            if several:
                sweep.go_on_if_requeued(app.run, folder)
                if os.getpid() != main_process or _starts_processes(app):
                    arguments = _again(command, sweep.store_settings(app, folder), folder, app)
                    return sweep.in_own_process(arguments, folder)
            from frcnn import run as commands

            own = _again(command, folder / "config.yaml", folder, app)
            again = contextlib.nullcontext() if several else recorded_again(folder)
            with _own_command_line(own), again:
                score: float | None = getattr(commands, command)(app, folder)
            return score

        if several:
            debug = bool(cfg.run.debug)
            return sweep.job(work, hydra_config, folder=folder, main_process=main_process, debug=debug)
        try:
            done.append(Done(folder, work()))
            return done[-1].score
        except BaseException as error:  # noqa: BLE001  (kept in failures)
            with contextlib.suppress(OSError):  # only if nothing was written
                folder.rmdir()
                folder.parent.rmdir()
            failures.append(error)
            return None

    return task


def _for_hydra(command: str, line: overrides.CommandLine, documents: list[Document]) -> tuple[str, list[str]]:
    """The primary config and the overrides that say what the command line means."""
    from omegaconf import OmegaConf

    from frcnn.config import derive, spec_tree

    pairs = [(key, value or "") for _, key, value in map(overrides.split, line.overrides)]
    groups = {key: [v.strip() for v in value.split(",")] for key, value in pairs if key in line.groups}
    stems = [re.sub(r"\W", "_", Path(document.source).stem, flags=re.ASCII) for document in documents]
    names = [f"{stem}_{i}" for i, stem in enumerate(stems)]
    if len(names) > 1 and not {"-m", "--multirun"} & set(line.flags):
        raise SpecError("several specs are a sweep", where="command line", hint="add -m")
    trees = {name: spec_tree(item, groups) for name, item in zip(names, documents, strict=True)}
    chosen = [f"spec={','.join(names)}"] if names else []
    marked = [overrides.split(item) for item in line.overrides]
    maps = [key for mark, key, value in marked if overrides.is_map_value(mark, key, value)]
    sections = overrides.sections(line.overrides)
    existing: dict[str, list[str]] = {}
    if sections or maps:
        jobs = _composed_before(derive(command, trees), chosen, line.overrides)
        found = [
            (
                [path for path in sections if OmegaConf.select(job, path) is None],
                {key: sorted(map(str, OmegaConf.select(job, key) or {})) for key in maps},
            )
            for job in jobs
        ]
        if any(other != found[0] for other in found):
            keys = ", ".join(dict.fromkeys([*sections, *maps]))
            hint = "set it in each spec or group, or run the jobs one by one"
            raise SpecError("means something else in each job of this sweep", where=keys, hint=hint)
        sections, existing = found[0]
    items = [*chosen, *overrides.expand(line.overrides, existing), *overrides.implied_loggers(line.overrides)]
    return derive(command, trees, sections), items


def _again(command: str, settings: Path, folder: Path, app: App) -> list[str]:
    """The arguments of `python -m frcnn.entry` for this run, and not the sweep that it is part of."""
    run, resumed = app.run, app.training_config.resume_from_model
    arguments = [command, f"spec={settings}", f"hydra.run.dir={overrides.quoted(folder)}"]
    arguments += [f"run.resume={run.resume}"] if run.resume else []
    arguments += [f"model_path={run.model_path}"] if run.model_path else []
    arguments += ["run.overwrite=true"] if run.overwrite else []
    arguments += [f"training_config.resume_from_model={overrides.quoted(Path(resumed))}"] if resumed else []
    return arguments


def _starts_processes(app: App) -> bool:
    from frcnn.trainer import starts_processes

    return starts_processes(app.trainer)


@contextmanager
def _own_command_line(own: list[str]) -> Iterator[None]:
    """What is started again for every further device."""
    from hydra.core.hydra_config import HydraConfig

    arguments, hydra_config = sys.argv, HydraConfig.instance().cfg
    sys.argv = [sys.argv[0], *own]
    HydraConfig.instance().cfg = None  # else Lightning would add Hydra's own arguments
    try:
        yield
    finally:
        sys.argv, HydraConfig.instance().cfg = arguments, hydra_config


def _composed_before(primary: str, chosen: list[str], items: Sequence[str]) -> "list[DictConfig]":
    """What the groups and specs of each job say before single values are set."""
    from hydra import compose, initialize_config_dir

    names = overrides.choices(conf_dir())
    groups = [item for item in (*chosen, *items) if overrides.split(item)[1] in (*names, "spec")]
    plain = [item for item in groups if "[" in item or "(" in item]
    swept = [
        [f"{item.partition('=')[0]}={value}" for value in item.partition("=")[2].split(",")]
        for item in groups
        if item not in plain
    ]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return [compose(primary, overrides=[*plain, *job]) for job in itertools.product(*swept)]


def _origins(line: overrides.CommandLine, documents: list[Document]) -> Callable[[App], dict[str, str]]:
    """What says where the values of a job come from."""
    specs = [read_spec(path) for path in line.values.get("spec", [])]

    def of(app: App) -> dict[str, str]:
        from hydra.core.hydra_config import HydraConfig

        from frcnn.entry.origins import origins

        job = HydraConfig.get()
        choices = {group: str(name) for group, name in job.runtime.choices.items() if name}
        typed = [overrides.split(item)[1] for item in job.overrides.task]
        number = int(choices.get("spec", "_0").rpartition("_")[2])
        return origins(
            app,
            typed=[key for key in typed if key not in choices],
            named={key: choices[key] for key in typed if key in choices and key != "spec"},
            chosen={group: name for group, name in choices.items() if group not in (*typed, "spec")},
            # A spec over a checkpoint replaces what it mentions.
            documents=[*specs[number : number + 1], *documents[number : number + 1]],
            conf=conf_dir(),
        )

    return of


def _locator(documents: list[Document], items: Sequence[str]) -> Callable[[str], str]:
    if len(documents) != 1:
        return str
    changed = [overrides.split(item)[1] for item in items]

    def locate(path: str) -> str:
        typed = any(path == key or path.startswith(f"{key}.") for key in changed)
        return path if typed else documents[0].locate(path)

    return locate

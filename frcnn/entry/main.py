"""The entry point of the scripts: from arguments to a finished command and its exit code."""

import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frcnn.bridge.convert import read_spec
from frcnn.bridge.document import Document
from frcnn.entry import help as help_page
from frcnn.entry import overrides
from frcnn.errors import FrcnnError, SpecError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(command: str, argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        command: train or evaluate.
        argv: arguments; those of the process if None.

    Returns:
        Exit code: 0 done, 1 failed while running, 2 wrong input, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = overrides.CommandLine(overrides=arguments).debug
    try:
        _run(command, arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except FrcnnError as error:
        sys.stderr.write(traceback.format_exc() if debug else f"{error}\n")
        return error.exit_code
    except Exception as error:  # noqa: BLE001  (the last resort: no stack trace unless asked for)
        text = traceback.format_exc() if debug else f"{type(error).__name__}: {error}\n"
        sys.stderr.write(text + ("" if debug else "  try: run.debug=true shows where this came from\n"))
        return 1
    return 0


def _run(command: str, argv: Sequence[str]) -> None:
    line = overrides.parse(argv)
    package = Path(__file__).resolve().parents[1]
    conf = next(path for path in (package.parent / "conf", package / "conf") if path.is_dir())
    if line.help:
        sys.stdout.write(help_page.page(command, conf))
        return
    overrides.check(line.overrides, conf)
    documents = _documents(command, line)
    for key in (*(document.spec.enc_key for document in documents), *line.values.get("enc_key", [])):
        # The key stays out of Hydra's tree, which is written to disk in clear (interface 12).
        if key:
            os.environ["FRCNN_ENC_KEY"] = key
    _compose(command, line, documents)


def _documents(command: str, line: overrides.CommandLine) -> list[Document]:
    specs = [read_spec(path) for path in line.values.get("spec", [])]
    if command != "evaluate":
        return specs
    from frcnn.weights.checkpoint import read_document

    paths = line.values.get("model_path") or [spec.spec.evaluation_config.model for spec in specs]
    if not any(paths):
        hint = "model_path=RUN/checkpoints/best.ckpt"
        raise SpecError("needs a model to evaluate", where="command line", hint=hint)
    fixed = [item for item in line.overrides if item.lstrip("+~").startswith(("model_config", "model="))]
    if fixed:
        message = "the network's settings come with the checkpoint"
        raise SpecError(message, where="command line", found=", ".join(fixed))
    if len(specs) > 1:
        raise SpecError("one spec at a time", where="command line", found=len(specs))
    return [read_document(path, over=specs[0] if specs else None) for path in paths]


def _compose(command: str, line: overrides.CommandLine, documents: list[Document]) -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from frcnn import config

    config.register()
    groups = _chosen_groups(line)
    names = [re.sub(r"\W", "_", f"{Path(document.source).stem}_{i}") for i, document in enumerate(documents)]
    trees = {name: config.spec_tree(item, groups) for name, item in zip(names, documents, strict=True)}
    chosen = [f"spec={','.join(names)}"] if names else []
    items = map(overrides.split, line.overrides)
    maps = [key for mark, key, value in items if overrides.is_map_value(mark, key, value)]
    sections, existing = overrides.sections(line.overrides), {}
    if sections or maps:
        before = _composed_before(config.derive(command, trees), chosen, line.overrides)
        sections = [path for path in sections if OmegaConf.select(before, path) is None]
        existing = {key: [str(name) for name in OmegaConf.select(before, key) or {}] for key in maps}
    primary = config.derive(command, trees, sections)
    locate = _locator(documents, line.overrides)

    failures: list[BaseException] = []

    def task(cfg: DictConfig) -> float | None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        hydra_config = HydraConfig.get()
        try:
            app = config.resolve(cfg, locate=locate)
            from frcnn import run

            score: float | None = getattr(run, command)(app, Path(hydra_config.runtime.output_dir))
            return score
        except BaseException as error:
            if hydra_config.mode == RunMode.MULTIRUN:
                raise  # Hydra goes on with the other jobs and reports this one
            failures.append(error)
            return None

    conf = str(config.conf_dir())
    flags = [*line.flags, *(["--resolve"] if {"--cfg", "-c"} & set(line.flags) else [])]
    saved = sys.argv
    try:
        full = overrides.expand(line.overrides, existing)
        sys.argv = [
            str(Path(saved[0]).with_name(f"{command}.py")),
            *flags,
            f"hydra.job.name={command}",
            *chosen,
            *full,
        ]
        hydra.main(version_base="1.3", config_path=conf, config_name=primary)(task)()
        for error in failures:
            raise error
    except (HydraException, OmegaConfBaseException) as error:
        raise config.readable(error) from error
    finally:
        sys.argv = saved


def _chosen_groups(line: overrides.CommandLine) -> dict[str, list[str]]:
    pairs = [(key, value or "") for _, key, value in map(overrides.split, line.overrides)]
    return {key: [v.strip() for v in value.split(",")] for key, value in pairs if key in line.groups}


def _composed_before(primary: str, chosen: list[str], items: Sequence[str]) -> "DictConfig":
    """What the groups and specs say before single values are set; of a sweep, its first job."""
    from hydra import compose, initialize_config_dir

    from frcnn.config import conf_dir

    groups = [item for item in items if overrides.split(item)[1] in overrides.choices(conf_dir())]
    first = [item.partition(",")[0] for item in (*chosen, *groups) if "[" not in item]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(primary, overrides=first)


def _locator(documents: list[Document], items: Sequence[str]) -> Any:
    if len(documents) != 1:
        return str
    changed = [overrides.split(item)[1] for item in items]

    def locate(path: str) -> str:
        typed = any(path == key or path.startswith(f"{key}.") for key in changed)
        return path if typed else documents[0].locate(path)

    return locate

"""What a command line says, checked against conf/ and the settings before Hydra is even imported."""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from frcnn.errors import SpecError
from frcnn.spec.fields import Message, Setting, settings_of
from frcnn.spec.run import App

OVERRIDE = re.compile(r"(?P<mark>[+~]{0,2})(?P<key>[^=@]+)(?:@[^=]*)?(?:=(?P<value>.*))?", re.DOTALL)
FLAGS_WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--info", "-i", "--config-dir", "-cd", "--config-name"}

ELSEWHERE = {
    "trainer.max_epochs": "training_config.num_epochs",
    "trainer.max_steps": "training_config.num_epochs",
    "trainer.check_val_every_n_epoch": "evaluation_config.validation_period_during_training",
    "trainer.val_check_interval": "evaluation_config.validation_period_during_training",
    "trainer.logger": "logger=csv|tensorboard|wandb|none",
    "trainer.enable_checkpointing": "training_config.checkpoint_interval",
    "trainer.callbacks": "training_config.early_stopping and training_config.checkpoint_interval",
    "trainer.default_root_dir": "hydra.run.dir",
    "trainer.resume_from_checkpoint": "training_config.resume_from_model",
}
"""Lightning's words for what is a TAO field here."""

RATES = "training_config.learning_rate.soft_start.base_lr or training_config.learning_rate.step.base_lr"
NUMBERS = {"lr": RATES, "optimizer": RATES, "training": "training_config.num_epochs"}

OWNED = {
    "optimizer": ["training_config.optimizer"],
    "lr": ["training_config.learning_rate"],
    "dataset": ["dataset_config"],
    "augmentation": ["augmentation_config"],
    "evaluation": ["evaluation_config"],
    "inference": ["inference_config"],
    "training": ["training_config"],
    "trainer": ["trainer"],
    "logger": ["logger"],
    "model": [],
    "backbone": [],
}
"""Groups and the sections that each replaces whole; model and backbone replace single keys."""


@dataclass
class CommandLine:
    """The arguments of a command, taken apart.

    Attributes:
        flags: Hydra's own flags, with their values.
        overrides: what is left for Hydra.
        values: `spec`, `model_path`, `images` and `enc_key`, each a list of values.
        help: whether --help was asked for.
    """

    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    values: dict[str, list[str]] = field(default_factory=dict)
    help: bool = False

    @property
    def groups(self) -> set[str]:
        """Groups of TAO's tree that the command line names."""
        return {key for _, key, _ in map(split, self.overrides) if key in OWNED}

    @property
    def debug(self) -> bool:
        """Whether stack traces are wanted."""
        return any(re.fullmatch(r"run\.debug=(true|True|1|yes|on)", item) for item in self.overrides)


def split(override: str) -> tuple[str, str, str | None]:
    """Mark (+, ++, ~ or nothing), key and value of an override."""
    match = OVERRIDE.fullmatch(override)
    return (match["mark"], match["key"].strip(), match["value"]) if match else ("", override, None)


def quoted(path: Path) -> str:
    """A path as a value that Hydra reads as it stands."""
    return "'" + str(path).replace("'", "\\'") + "'"


def parse(argv: Sequence[str]) -> CommandLine:
    """Take a command line apart.

    Raises:
        SpecError: an argument that is neither a flag nor key=value.
    """
    line, rest = CommandLine(), list(argv)
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help"):
            line.help = True
        elif word == "-r":
            if not rest:
                raise SpecError("needs a folder", where="command line", found="-r")
            out = rest.pop(0)
            line.overrides += [f"hydra.run.dir={out}", f"hydra.sweep.dir={out}"]
        elif word.startswith("-"):
            line.flags += [word, rest.pop(0)] if word in FLAGS_WITH_VALUE and rest else [word]
        elif "=" not in word and not word.startswith("~"):
            hint = "settings are written key=value, groups group=choice; --help lists them"
            raise SpecError("is no setting", where="command line", found=word, hint=hint)
        else:
            _, key, value = split(word)
            if key in ("spec", "model_path", "enc_key", "images"):
                if key in line.values:
                    raise SpecError("is given twice", where="command line", found=key, allowed="one list")
                if not value:
                    raise SpecError("needs a value", where="command line", found=word)
                whole = key in ("enc_key", "images") or Path(value).is_file()
                line.values[key] = [_bare(part) for part in ([value] if whole else value.split(","))]
            else:
                line.overrides.append(word)
    return line


def _bare(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def check(overrides: Sequence[str], conf: Path, command: str = "train") -> None:
    """Refuse groups that the command does not have, unknown choices and settings, all in one go.

    Raises:
        SpecError: what is unknown, with the nearest names.
    """
    groups, items = choices(conf), [split(override) for override in overrides]
    offered = set(re.findall(r"^  - (\w+):", (conf / f"{command}.yaml").read_text(encoding="utf-8"), re.M))
    problems = [p for item in items for p in _problems(*item, groups)]
    problems += [
        SpecError(
            "is no choice of this command",
            where="command line",
            found=key,
            allowed=", ".join(sorted(offered)),
        )
        for _, key, _ in items
        if key in groups and key not in offered
    ]
    problems += _rivals([key for mark, key, value in items if "~" not in mark and value != "null"])
    if problems:
        raise SpecError.of(problems, where="command line")


def choices(conf: Path) -> dict[str, list[str]]:
    """Groups of conf/ with the names of their files."""
    folders = sorted(path for path in conf.iterdir() if path.is_dir() and path.name != "hydra")
    return {path.name: sorted(file.stem for file in path.glob("*.yaml")) for path in folders}


def sections(overrides: Sequence[str]) -> list[str]:
    """Optional sections that overrides reach into, outermost first; they have to exist by then."""
    found: dict[str, None] = {}
    for mark, key, value in map(split, overrides):
        if "~" not in mark and value != "null":
            inner = fields_on(key)[: -1 if not (value or "").startswith("{") else None]
            found |= {path: None for path, item, _ in inner if item.optional and item.is_message}
    return list(found)


def expand(overrides: Sequence[str], existing: Mapping[str, Sequence[str]]) -> list[str]:
    """Overrides with what they imply: oneof siblings to clear, map entries to replace.

    Args:
        overrides: as typed.
        existing: keys that each map holds before overriding (interface: a map value replaces).

    Returns:
        Overrides for Hydra, in order.
    """
    result: list[str] = []
    last = {split(override)[1]: i for i, override in enumerate(overrides)}
    for i, override in enumerate(overrides):
        mark, key, value = split(override)
        path = fields_on(key)
        if is_map_value(mark, key, value) and i < last[key]:
            continue  # a later value of the same map replaces this one
        if path and value != "null" and "~" not in mark:
            result += [f"{sibling}=null" for _, _, siblings in path for sibling in siblings]
        if path and is_map_value(mark, key, value):
            result += [f"~{key}.{old}" for old in existing.get(key, ())]
            override = f"++{override}"
        if path and path[-1][1].wire == "float":  # TAO: block ids are floats
            override = re.sub(r"(?<=\d)\.0*(?=[,\]]|$)", "", override)
        result.append(override)
    return result


def implied_loggers(overrides: Sequence[str]) -> list[str]:
    """The loggers that a visualizer on the command line switches on, as in a spec; `logger=` overrules it."""
    values = {key: (value or "").lower() for mark, key, value in map(split, overrides) if "~" not in mark}
    if any(key.partition(".")[0] == "logger" for key in values):
        return []
    visualizer = "training_config.visualizer"
    enabled = values.get(f"{visualizer}.enabled") in ("true", "yes", "on", "1")
    wandb = any(key.startswith(f"{visualizer}.wandb_config") for key in values)
    return ["logger.tensorboard=true"] * enabled + ["logger.wandb=true"] * wandb


def is_map_value(mark: str, key: str, value: str | None) -> bool:
    """Whether an override gives a whole map a new value."""
    path = fields_on(key)
    return bool(path and path[-1][0] == key and path[-1][1].shape == "map" and not mark and value)


def fields_on(key: str) -> list[tuple[str, Setting, list[str]]]:
    """The settings along a dotted key as (path, setting, paths of its oneof siblings); empty if unknown."""
    found: list[tuple[str, Setting, list[str]]] = []
    message: type[Message] | None = App
    prefix = ""
    for name in key.split("."):
        if found and (name.isdigit() or found[-1][1].shape == "map"):
            continue
        fields = {item.name: item for item in settings_of(message)} if message else {}
        if name not in fields:
            return []
        parent, prefix, setting = prefix, f"{prefix}.{name}".lstrip("."), fields[name]
        siblings = [f.name for f in fields.values() if setting.oneof and f.oneof == setting.oneof]
        found.append((prefix, setting, [f"{parent}.{other}" for other in siblings if other != name]))
        message = setting.kind if setting.is_message else None
    return found


def _problems(mark: str, key: str, value: str | None, groups: Mapping[str, list[str]]) -> Iterator[SpecError]:
    where = "command line"
    if key == "hydra" or key.startswith(("hydra.", "hydra/")):
        return
    if key in groups:
        yield from _choice_problems(key, value or "", groups[key])
    elif key in ELSEWHERE:
        yield SpecError("is set elsewhere", where=where, found=key, hint=ELSEWHERE[key])
    elif path := fields_on(key):
        yield from _value_problems(key, value or "", path[-1][1]) if key.endswith(path[-1][0]) else ()
    elif "[" in key:
        hint = re.sub(r"\[(\d+)\]", r".\1", key)
        yield SpecError("items of a list are named with dots", where=where, found=key, hint=hint)
    else:
        hint = _nearest(key, groups)
        yield SpecError("unknown setting", where=where, found=f"{mark}{key}", hint=hint)


def _value_problems(key: str, value: str, setting: Setting) -> Iterator[SpecError]:
    """Plain values of a wrong type; whatever has quotes, brackets or references is left to Hydra."""
    readers: dict[type, Callable[[str], object]] = {int: int, float: float, bool: _boolean}
    if setting.shape != "one" or setting.kind not in readers or re.search(r"[^\w.+,-]", value):
        return
    for part in value.split(","):
        try:
            readers[setting.kind](part)
        except ValueError:
            names = {int: "a whole number", float: "a number", bool: "true or false"}
            if part not in ("null", ""):
                message, allowed = "a value of the wrong type", names[setting.kind]
                yield SpecError(message, where=key, found=part, allowed=allowed)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "yes", "no", "on", "off", "y", "n", "1", "0"):
        raise ValueError(text)
    return True


def _rivals(keys: Sequence[str]) -> Iterator[SpecError]:
    """Two members of one oneof, both typed."""
    for key in keys:
        for _, _, siblings in fields_on(key):
            for rival in keys:
                if any(rival == other or rival.startswith(f"{other}.") for other in siblings) and rival > key:
                    found = f"{key}, {rival}"
                    yield SpecError("only one may be set", where="command line", found=found)


def _choice_problems(group: str, value: str, names: list[str]) -> Iterator[SpecError]:
    if "(" in value or (value == "null" and group == "hparams"):
        return  # a sweep function, which Hydra reads
    for choice in value.strip("[]").split(","):
        choice = choice.strip().strip("'\"")
        if choice in names:
            continue
        if re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", choice, re.IGNORECASE) and group in NUMBERS:
            hint: str | None = f"to set a number: {NUMBERS[group]}"
        elif group == "model" and re.search(r"[./]", choice):
            hint = "a model file is given as model_path=FILE"
        else:
            near = difflib.get_close_matches(choice, names, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else None
        found, allowed = f"{group}={choice}", ", ".join(names)
        yield SpecError("no such choice", where="command line", found=found, allowed=allowed, hint=hint)


def _nearest(key: str, groups: Mapping[str, list[str]]) -> str:
    parent, _, last = key.rpartition(".")
    path = fields_on(parent) if parent else []
    message: type[Message] = path[-1][1].kind if path and path[-1][1].is_message else App
    names = [item.name for item in settings_of(message)] + ([] if parent else list(groups))
    near = difflib.get_close_matches(last, names, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(f"{parent}.{name}".lstrip(".") for name in near) + "?"
    homes = [path for path in _all_paths(App, "") if path.rpartition(".")[2] == last]
    if homes:
        return f"did you mean {' or '.join(homes[:3])}?"
    inside = f"{parent or 'the top level'} holds {', '.join(names)}"
    return inside if path or not parent else "--help lists groups; docs/spec-reference.md lists settings"


def _all_paths(message: type[Message], prefix: str) -> Iterator[str]:
    for item in settings_of(message):
        path = f"{prefix}.{item.name}".lstrip(".")
        yield path
        if item.is_message and item.shape == "one":
            yield from _all_paths(item.kind, path)

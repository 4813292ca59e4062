"""Where each value of the settings comes from, in words for people."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from frcnn.bridge.document import Document
from frcnn.encryption import model_suffix
from frcnn.spec.fields import walk
from frcnn.spec.run import App


def origins(
    app: App,
    *,
    typed: Sequence[str],
    named: Mapping[str, str],
    chosen: Mapping[str, str],
    documents: Sequence[Document],
    conf: Path,
) -> dict[str, str]:
    """Dotted path to `command line`, `group NAME=CHOICE` or `spec FILE:LINE`; what is missing is a default.

    Args:
        app: settings.
        typed: keys of single values on the command line.
        named: groups on the command line with their choices.
        chosen: groups that the command has by itself, with theirs.
        documents: specs, those that count first.
        conf: folder of the groups.
    """
    over, below = _groups(named, conf), _groups(chosen, conf)
    found = {}
    for path, field, _ in walk(app):
        if field.is_message:
            continue
        words = ["command line"] if _sets(typed, path) else []
        words += [group for group, paths in over.items() if _sets(paths, path)]
        words += [_place(item, path) for item in documents if _mentions(item.places.of, path)]
        words += [group for group, paths in below.items() if _sets(paths, path)]
        if words:
            found[path] = words[0]
    return found


def _groups(choices: Mapping[str, str], conf: Path) -> dict[str, list[str]]:
    return {f"group {group}={name}": _paths(conf / group / f"{name}.yaml") for group, name in choices.items()}


def _sets(paths: Iterable[str], path: str) -> bool:
    """Whether a value is among some that are set, or in a block that is."""
    return _mentions(paths, path) or any(path.startswith(f"{item}.") for item in paths)


def _mentions(paths: Iterable[str], path: str) -> bool:
    """Whether a value, or an entry of this map or list, is among some."""
    return any(item == path or item.startswith(f"{path}.") for item in paths)


def _place(document: Document, path: str) -> str:
    place = document.places.find(path)
    name = Path(document.source).name
    kind = "checkpoint" if model_suffix(name) == ".ckpt" else "spec"
    return f"{kind} {name}:{place[0]}" if place and kind == "spec" else f"{kind} {name}"


def _paths(file: Path) -> list[str]:
    """The values that a group's file sets."""
    if not file.is_file():
        return []
    text = file.read_text(encoding="utf-8")
    package = re.match(r"# @package (\S+)", text)
    prefix = package[1] if package and package[1] != "_global_" else ""
    return list(_leaves(yaml.safe_load(text) or {}, prefix))


def _leaves(tree: Any, path: str) -> Iterator[str]:
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from _leaves(value, f"{path}.{name}".lstrip("."))
    else:
        yield path

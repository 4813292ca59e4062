"""Specs as YAML: the same tree, in the dialect that OmegaConf reads."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import yaml

from frcnn.bridge.document import Document, Parsed, Root, describe, unknown_fields
from frcnn.bridge.files import read_text, write_text
from frcnn.bridge.places import Places, Unknown
from frcnn.errors import SpecError
from frcnn.spec.experiment import Experiment
from frcnn.spec.fields import REQUIRED, Message, Setting, settings_of

SUFFIXES = (".yaml", ".yml")
RUN_SECTIONS = ("run", "trainer", "logger", "prune", "quantize", "export")
"""Sections beside TAO's that a run's config.yaml holds."""

FLOAT = re.compile(
    r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.[0-9_]+(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with OmegaConf's idea of a float (1e-4 is one) and without dates."""


class _Dumper(yaml.SafeDumper):
    """Quotes whatever the loader above would not read back as the same string."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith((":timestamp", ":float"))]
        for first, resolvers in _class.yaml_implicit_resolvers.items()
    }
    _class.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Plain and single-quoted YAML fold exotic line breaks; double quotes escape them.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_multi_representer(IntEnum, lambda dumper, value: dumper.represent_str(value.name))


def loads(text: str, *, source: str = "<string>") -> Experiment:
    """Read a spec from YAML text.

    Raises:
        SpecError: broken syntax, unknown names and values of a wrong type, with line and column.
    """
    return parse(text, source=source).spec


def load(path: str | Path) -> Experiment:
    """Read a spec from a YAML file; errors as in `loads`."""
    return loads(read_text(path), source=str(path))


def dumps(spec: Message, *, full: bool = False) -> str:
    """Write a spec as YAML: what differs from the field defaults, or with `full` every value.

    Raises:
        SpecError: a string that OmegaConf cannot hold.
    """
    return dump_tree(tree(spec, full=full))


def save(spec: Message, path: str | Path, *, full: bool = False) -> None:
    """Write a spec to a YAML file in one go."""
    write_text(path, dumps(spec, full=full))


def dump_tree(value: Any) -> str:
    """YAML text of plain dicts, lists and values."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def tree(spec: Message, *, full: bool = False, path: str = "") -> dict[str, Any]:
    """A spec as plain dicts and lists whose strings are safe for OmegaConf."""
    result: dict[str, Any] = {}
    for field in settings_of(type(spec)):
        value, here = getattr(spec, field.name), f"{path}.{field.name}" if path else field.name
        if field.required and value == REQUIRED:
            continue
        if field.is_message and field.shape == "one":
            inner = None if value is None else tree(value, full=full, path=here)
            if inner or full or (value is not None and field.optional):
                result[field.name] = inner
        elif full or value != field.default:
            result[field.name] = _plain(value, here, full)
    return result


def _plain(value: Any, path: str, full: bool) -> Any:
    if isinstance(value, Message):
        return tree(value, full=full, path=path)
    if isinstance(value, list):
        return [_plain(item, f"{path}.{i}", full) for i, item in enumerate(value)]
    if isinstance(value, dict):
        return {k: _plain(v, f"{path}.{k}", full) for k, v in value.items()}
    return _escape(value, path) if isinstance(value, str) else value


def _escape(text: str, path: str) -> str:
    if text == REQUIRED:
        raise SpecError(
            "??? stands for a missing value in YAML", where=path, found=text, allowed="another text"
        )
    # OmegaConf reads ${...} as a reference; backslashes before it count in pairs.
    return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)


def _unescape(text: str) -> str:
    return re.sub(r"(\\*)\\\$\{", lambda match: match[1][: len(match[1]) // 2] + "${", text)


def parse(text: str, *, source: str = "<string>") -> Document:
    """Read YAML text and remember where each value stands; errors as in `loads`."""
    return parse_as(Experiment, text, source=source)


def parse_as(root: type[Root], text: str, *, source: str = "<string>") -> Parsed[Root]:
    """`parse` for any kind of spec, such as `DatasetExportConfig`."""
    top, reader = _compose(text, source), _Reader(source)
    if top is None:
        return Parsed(root(), source, reader.places, {})
    extra = {}
    for key, node in list(top.value):
        if root is Experiment and isinstance(key, yaml.ScalarNode) and key.value in RUN_SECTIONS:
            extra[key.value] = _Loader("").construct_document(node)
            reader.places.of |= {f"{key.value}.{name}": place for name, place in _entries(node)}
            top.value.remove((key, node))
    spec = reader.message(root, top, "")
    problems = [*unknown_fields(reader.places.unknown, source, root), *reader.problems]
    if problems:
        raise SpecError.of(problems, where=source)
    comments = bool(re.search(r"(^|\s)#", text))
    return Parsed(spec, source, reader.places, extra, comments)


def read_value(field: Setting, text: str, *, where: str, path: str) -> Any:
    """One field's value from YAML text, such as `20` or `[4, 8]`.

    Args:
        field: the field.
        text: its value.
        where: what to call the text in messages.
        path: dotted path of the field.

    Raises:
        SpecError: broken YAML or a value of the wrong type.
    """
    reader = _Reader(where)
    try:
        node = yaml.compose(text if text.strip() else "''", Loader=_Loader)
    except (yaml.YAMLError, RecursionError):
        node = None
    if node is None:
        raise SpecError("broken YAML", where=f"{where}: {path}", found=text)
    value = reader.field(field, node, path)
    if reader.places.unknown:
        unknown = reader.places.unknown[0]
        allowed = ", ".join(item.name for item in settings_of(field.kind)) if field.is_message else None
        raise SpecError(
            "unknown field", where=f"{where}: {unknown.path}", found=unknown.name, allowed=allowed
        )
    if reader.problems:
        wrong = reader.problems[0]
        raise SpecError(wrong.message, where=f"{where}: {path}", found=wrong.found, allowed=wrong.allowed)
    return value


def top_level_names(text: str, *, source: str = "<string>") -> list[str]:
    """Keys that do not lie in a block; errors as in `loads`."""
    top = _compose(text, source)
    return [] if top is None else [str(key.value) for key, _ in top.value]


def _compose(text: str, source: str) -> yaml.MappingNode | None:
    """The mapping at the top of a YAML text, None if it is empty."""
    try:
        root = yaml.compose(text.removeprefix("\ufeff"), Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise SpecError("broken YAML", where=where, found=getattr(error, "problem", str(error))) from None
    except RecursionError:
        raise SpecError("blocks are nested too deeply", where=source) from None
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise SpecError("is no mapping of settings", where=source, found=root.tag.rpartition(":")[2])
    return root


def _entries(section: yaml.Node) -> Iterator[tuple[str, tuple[int, int]]]:
    """The names in a section beside TAO's, with line and column of each."""
    for key, _ in section.value if isinstance(section, yaml.MappingNode) else ():
        yield str(key.value), (key.start_mark.line + 1, key.start_mark.column + 1)


def _one(field: Setting) -> str:
    """The values that one item of a field may hold, in words."""
    return describe(replace(field, shape="one"))


class _Reader:
    """Builds messages from YAML nodes, collecting every problem on the way."""

    def __init__(self, source: str) -> None:
        self.source, self.places = source, Places()
        self.problems: list[SpecError] = []

    def message(self, cls: type[Message], node: yaml.Node, path: str) -> Any:
        message = cls()
        if not isinstance(node, yaml.MappingNode):
            self.wrong(node, path, "a block of settings")
            return message
        fields = {field.name: field for field in settings_of(cls)}
        for key, value in self.entries(node, path):
            here = f"{path}.{key.value}" if path else str(key.value)
            self.places.of[here] = (key.start_mark.line + 1, key.start_mark.column + 1)
            if key.value not in fields:
                self.places.unknown.append(Unknown(here, str(key.value), cls, self.places.of[here]))
                continue
            field = fields[key.value]
            is_null = value.tag.endswith(":null")
            if is_null and (field.optional or field.shape != "one" or field.is_message):
                continue
            setattr(message, field.name, self.field(field, value, here))
            message.mentioned().add(field.name)
        return message

    def entries(self, node: yaml.MappingNode, path: str) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        """Keys and values; a key that is no text, or comes twice, is a problem."""
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                self.wrong(key, path, "keys that are text, each once")
                continue
            seen.add(key.value)
            yield key, value

    def field(self, field: Setting, node: yaml.Node, path: str) -> Any:
        if field.shape == "list":
            if not isinstance(node, yaml.SequenceNode):
                self.wrong(node, path, "a list")
                return []
            return [self.item(field, item, f"{path}.{i}") for i, item in enumerate(node.value)]
        if field.shape == "map":
            if not isinstance(node, yaml.MappingNode):
                self.wrong(node, path, "a mapping")
                return {}
            return {key.value: self.item(field, value, f"{path}.{key.value}") for key, value in node.value}
        return self.item(field, node, path)

    def item(self, field: Setting, node: yaml.Node, path: str) -> Any:
        self.places.of.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if field.is_message:
            return self.message(field.kind, node, path)
        try:
            value = _Loader("").construct_document(node)
        except (yaml.YAMLError, TypeError):
            self.wrong(node, path, _one(field))
            return field.default
        if isinstance(value, str) and field.kind is not str and value == REQUIRED:
            return REQUIRED
        if isinstance(value, str) and re.search(r"(?<!\\)(\\\\)*\$\{", value):
            self.wrong(node, path, "a value; references such as ${...} are for Hydra's conf/ only")
            return value
        if field.is_enum and isinstance(value, str) and value in field.kind.__members__:  # type: ignore[attr-defined]
            return field.kind[value]  # type: ignore[index]
        if field.is_enum and isinstance(value, int) and not isinstance(value, bool):
            return field.kind(value) if value in list(field.kind) else value  # type: ignore[call-overload]
        if field.kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if field.wire == "float" and isinstance(value, float) and math.isfinite(value):
            return int(value)
        if (
            field.is_enum
            or not isinstance(value, field.kind)
            or isinstance(value, bool) != (field.kind is bool)
        ):
            self.wrong(node, path, _one(field))
        return _unescape(value) if isinstance(value, str) else value

    def wrong(self, node: yaml.Node, path: str, allowed: str) -> None:
        mark = node.start_mark
        found = node.value if isinstance(node, yaml.ScalarNode) else node.tag.rpartition(":")[2]
        where = f"{self.source}:{mark.line + 1}:{mark.column + 1}: {path}"
        self.problems.append(
            SpecError("a value of the wrong type", where=where, found=found, allowed=allowed)
        )

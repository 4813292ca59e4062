"""TAO's prototxt spec files, read and written through protobuf's own text format."""

import logging
import math
import re
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from frcnn.bridge.descriptor import message_class
from frcnn.bridge.document import Document, Parsed, Root, describe, unknown_fields
from frcnn.bridge.files import read_text, write_text
from frcnn.bridge.places import find_places
from frcnn.errors import SpecError
from frcnn.spec.experiment import Experiment
from frcnn.spec.fields import Message, Setting, settings_of

log = logging.getLogger(__name__)

SUFFIXES = (".txt", ".prototxt", ".pbtxt")


WRONG_VALUE = "Couldn't parse|Value out|Enum type|Expected \"?(true|string)"
"""How protobuf begins the messages about a value, where others are about braces and quotes."""


def loads(text: str, *, source: str = "<string>") -> Experiment:
    """Read a spec from prototxt text, with the leniency of the original's loader.

    Raises:
        SpecError: broken syntax, values of a wrong type or unknown names, with line and column.
    """
    return parse(text, source=source).spec


def load(path: str | Path) -> Experiment:
    """Read a spec from a prototxt file; errors as in `loads`."""
    return loads(read_text(path), source=str(path))


def dumps(spec: Message) -> str:
    """Write a spec as prototxt: what a file mentioned, and what differs from the defaults.

    Raises:
        SpecError: a value that TAO's schema cannot hold, such as a negative integer.
    """
    root: Any = type(spec)
    proto = message_class(root)()
    _fill(proto, spec, "")
    return text_format.MessageToString(proto, as_utf8=True)


def save(spec: Message, path: str | Path) -> None:
    """Write a spec to a prototxt file in one go: the file is whole or as it was."""
    write_text(path, dumps(spec))


def parse(text: str, *, source: str = "<string>") -> Document:
    """Read prototxt text and remember where each value stands; errors as in `loads`."""
    return parse_as(Experiment, text, source=source)


def parse_as(root: type[Root], text: str, *, source: str = "<string>") -> Parsed[Root]:
    """`parse` for any kind of spec, such as `DatasetExportConfig`."""
    cls: Any = root
    proto, text = message_class(cls)(), text.removeprefix("\ufeff")
    try:
        text_format.Merge(text, proto, allow_unknown_field=True)
    except text_format.ParseError as error:
        raise _syntax_error(error, text, source, root) from None
    except RecursionError:
        raise SpecError("blocks are nested too deeply", where=source) from None
    places = find_places(text, root)
    if places.unknown:
        raise SpecError.of(unknown_fields(places.unknown, source, root), where=source)
    for lost, kept in places.replaced.items():
        # TAO: the last member of a oneof counts, and the parser says nothing.
        line, _ = places.of[lost]
        log.warning("%s:%d: %s does not count, as %s comes later", source, line, lost, kept)
    comments = bool(re.search(r"^[^'\"\n]*#", text, re.MULTILINE))
    return Parsed(_read(root, proto), source, places, {}, comments)


def top_level_names(text: str) -> list[str]:
    """Names of the fields that do not lie in a block, as far as the syntax holds."""
    places = find_places(text.removeprefix("\ufeff"), Experiment)
    paths = [*places.of, *(item.path for item in places.unknown)]
    return [path for path in paths if "." not in path]


def _syntax_error(error: text_format.ParseError, text: str, source: str, root: type[Message]) -> SpecError:
    line, column = error.GetLine() or 1, error.GetColumn() or 1
    lines = text.split("\n")
    path = find_places(text, root).path_at((line, column))
    field = _field_at(path, root)
    message = re.sub(r"^\d+:\d+ : ('.*': )?", "", str(error).replace("frcnn.", "")).strip()
    wrong_value = (
        field
        and not field.is_message
        and re.match("Couldn't parse|Value out|Enum type|Expected \"?(true|string)", message)
    )
    return SpecError(
        message,
        where=f"{source}:{line}:{column}" + (f": {path}" if path else ""),
        found=lines[min(line, len(lines)) - 1].strip() or "end of file",
        allowed=describe(field) if field and wrong_value else None,
        hint=None if wrong_value else "every block needs its closing brace and every text its quotes",
    )


def _field_at(path: str | None, root: type[Message]) -> Setting | None:
    message: type[Message] | None = root
    field = None
    for name in (path or "").split("."):
        if name.isdigit() or message is None:
            continue
        field = next((item for item in settings_of(message) if item.name == name), None)
        message = field.kind if field and field.is_message else None
    return field


def _read(cls: type[Message], proto: Any) -> Any:
    message = cls()
    for field in settings_of(cls):
        value = getattr(proto, field.name)
        if field.shape == "map":
            setattr(message, field.name, dict(sorted(value.items())))
        elif field.shape == "list":
            setattr(message, field.name, [_read_item(field, item) for item in value])
        elif proto.HasField(field.name):
            setattr(message, field.name, _read_item(field, value))
            message.mentioned().add(field.name)
    return message


def _read_item(field: Setting, value: Any) -> Any:
    if field.is_message:
        return _read(field.kind, value)
    if field.is_enum:
        # Text format keeps numbers that no member has; validation refuses them with the field's path.
        return field.kind(value) if value in list(field.kind) else value  # type: ignore[call-overload]
    # TAO: freeze_blocks is a list of floats that the original truncates.
    return int(value) if field.wire == "float" and math.isfinite(value) else value


def _fill(proto: Any, message: Message, path: str) -> None:
    for field, value in message.to_print():
        here = f"{path}.{field.name}" if path else field.name
        try:
            if field.shape == "map":
                getattr(proto, field.name).update(value)
            elif field.shape == "list" and not field.is_message:
                getattr(proto, field.name).extend(value)
            elif field.shape == "list":
                for i, item in enumerate(value):
                    _fill(getattr(proto, field.name).add(), item, f"{here}.{i}")
            elif field.is_message:
                getattr(proto, field.name).SetInParent()
                _fill(getattr(proto, field.name), value, here)
            else:
                setattr(proto, field.name, value)
        except (TypeError, ValueError, AttributeError):
            raise SpecError(
                "cannot be written as prototxt", where=here, found=repr(value), allowed=describe(field)
            ) from None

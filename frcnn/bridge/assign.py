"""Single settings of a command line, `kitti_config.val_split=20`, put into a spec."""

from typing import Any

from frcnn.bridge import yaml
from frcnn.bridge.document import nearest
from frcnn.errors import SpecError
from frcnn.spec.fields import Message, Setting, settings_of

WHERE = "command line"


def assign(spec: Message, item: str) -> str:
    """Set one value of a spec; values are YAML, and an absent optional block is created.

    Setting a member of a oneof clears its siblings, as everywhere in protobuf.

    Args:
        spec: settings to change.
        item: `dotted.path=value`.

    Returns:
        The path.

    Raises:
        SpecError: no `=`, an unknown name (with the nearest one) or a value of the wrong type.
    """
    path, equals, text = item.partition("=")
    if not equals or not path:
        raise SpecError("is no setting", where=WHERE, found=item, allowed="path.to.field=value")
    *blocks, last = path.split(".")
    message, here = spec, ""
    for position, name in enumerate(blocks):
        here = f"{here}.{name}" if here else name
        field = _field(message, name, here, type(spec))
        if field.shape == "map" and position == len(blocks) - 1:
            entry = yaml.read_value(field, f"{{{last}: {text}}}", where=WHERE, path=here)
            getattr(message, field.name).update(entry)
            return path
        if not field.is_message or field.shape != "one":
            hint = f"{here}=[...] sets the whole list" if field.shape == "list" else None
            raise SpecError("holds no fields", where=f"{WHERE}: {here}", found=path, hint=hint)
        if getattr(message, name) is None:
            _set(message, field, field.kind())
        message = getattr(message, name)
    field = _field(message, last, path, type(spec))
    _set(message, field, yaml.read_value(field, text, where=WHERE, path=path))
    return path


def _set(message: Message, field: Setting, value: Any) -> None:
    for sibling in settings_of(type(message)):
        if field.oneof and sibling.oneof == field.oneof:
            setattr(message, sibling.name, None)
    setattr(message, field.name, value)
    message.mentioned().add(field.name)


def _field(message: Message, name: str, path: str, root: type[Message]) -> Setting:
    fields = {field.name: field for field in settings_of(type(message))}
    if name not in fields:
        hint = nearest(name, type(message), root)
        raise SpecError(
            "unknown field", where=f"{WHERE}: {path}", found=name, allowed=", ".join(fields), hint=hint
        )
    return fields[name]

"""How a setting is declared: its number in TAO's schema, its default, its rule and its one-line doc."""

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

REQUIRED: Any = "???"
"""Value of a required setting that nobody set; OmegaConf spells a missing value the same way."""

UINT32_MAX = 2**32 - 1


@dataclass(frozen=True)
class Rule:
    """A test on one value and the words that describe it."""

    allowed: str
    holds: Callable[[Any], bool]


def above(low: float) -> Rule:
    """Values greater than `low`."""
    return Rule(f"a number above {low:g}", lambda value: value > low)


def at_least(low: float) -> Rule:
    """Values not smaller than `low`."""
    return Rule(f"a number of at least {low:g}", lambda value: value >= low)


def inside(low: float, high: float) -> Rule:
    """Values strictly between two bounds."""
    return Rule(f"above {low:g} and below {high:g}", lambda value: low < value < high)


def within(low: float, high: float) -> Rule:
    """Values between two bounds, bounds included."""
    return Rule(f"from {low:g} to {high:g}", lambda value: low <= value <= high)


def one_of(*options: object) -> Rule:
    """One of a few values."""
    return Rule(" or ".join(str(option) or "empty" for option in options), lambda value: value in options)


@dataclass(frozen=True)
class Setting:
    """What a field of the schema knows about itself.

    Attributes:
        name: the field's name, as TAO spells it.
        kind: bool, int, float, str, an IntEnum or a `Message` class: the type of one item.
        shape: "one", "list" or "map" (with string keys).
        number: protobuf field number.
        doc: one line for people.
        rule: test on each item.
        keys: map keys that have to be there.
        needed: whether a list or map must not be empty.
        oneof: name of the protobuf oneof it belongs to.
        optional: whether an absent message or oneof member means something (its value is then None).
        zero_means: the value that an explicit or default zero stands for.
        wire: protobuf's type where it differs from the Python type.
        inert: why the setting has no effect here, if it has none.
    """

    name: str
    kind: type
    shape: str
    number: int
    doc: str
    rule: Rule | None
    keys: tuple[str, ...]
    needed: bool
    oneof: str | None
    optional: bool
    zero_means: float | None
    wire: str | None
    inert: str | None
    required: bool
    default: Any

    @property
    def is_message(self) -> bool:
        """Whether the field holds one or several messages."""
        return issubclass(self.kind, Message)

    @property
    def is_enum(self) -> bool:
        """Whether the field holds one of a few names."""
        return issubclass(self.kind, IntEnum)


def setting(
    number: int,
    doc: str,
    *,
    default: Any = dataclasses.MISSING,
    factory: Any = dataclasses.MISSING,
    rule: Rule | None = None,
    keys: tuple[str, ...] = (),
    needed: bool = False,
    oneof: str | None = None,
    zero_means: float | None = None,
    wire: str | None = None,
    inert: str | None = None,
) -> Any:
    """Declare one field of a `Message`; without a default it is required."""
    extra = {
        "number": number,
        "doc": doc,
        "rule": rule,
        "keys": keys,
        "needed": needed,
        "oneof": oneof,
        "zero_means": zero_means,
        "wire": wire,
        "inert": inert,
    }
    if factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=factory, metadata=extra)
    return dataclasses.field(default=REQUIRED if default is dataclasses.MISSING else default, metadata=extra)


class Message:
    """Base of every block of settings. Two messages are equal when their values are.

    Which fields a file mentioned is kept beside the values, so that writing the file again keeps a
    line such as `freeze_bn: False` that only repeats a default.
    """

    def mentioned(self) -> set[str]:
        """Names of the fields that the source of this message spelled out; add to it to mark more."""
        return self.__dict__.setdefault("_mentioned", set())  # type: ignore[no-any-return]

    def to_print(self) -> Iterator[tuple[Setting, Any]]:
        """The fields worth writing: mentioned ones, and those that differ from their default."""
        for field in settings_of(type(self)):
            value = getattr(self, field.name)
            if value is None or (field.required and value == REQUIRED):
                continue
            is_block = field.is_message and field.shape == "one"
            said = field.name in self.mentioned() or field.optional or value != field.default
            if said or (is_block and any(True for _ in value.to_print())):
                yield field, value


_settings: dict[type, tuple[Setting, ...]] = {}


def settings_of(message: type[Message]) -> tuple[Setting, ...]:
    """The declared fields of a message class, in the order of declaration."""
    if message not in _settings:
        hints = typing.get_type_hints(message)
        fields = dataclasses.fields(message)  # type: ignore[arg-type]
        _settings[message] = tuple(_setting(field, hints[field.name]) for field in fields)
    return _settings[message]


def _setting(field: "dataclasses.Field[Any]", hint: Any) -> Setting:
    optional = isinstance(hint, types.UnionType)
    if optional:
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    shape = {list: "list", dict: "map"}.get(typing.get_origin(hint), "one")
    kind = hint if shape == "one" else typing.get_args(hint)[-1]
    factory = field.default_factory
    default = field.default if factory is dataclasses.MISSING else factory()
    required = isinstance(default, str) and default == REQUIRED
    return Setting(
        name=field.name,
        kind=kind,
        shape=shape,
        optional=optional,
        required=required,
        default=default,
        **field.metadata,
    )


def messages_below(root: type[Message]) -> Iterator[type[Message]]:
    """`root` and every message class reachable from it, each once, in order of first use."""
    seen: dict[type[Message], None] = {}

    def visit(message: type[Message]) -> None:
        if message not in seen:
            seen[message] = None
            for field in settings_of(message):
                if field.is_message:
                    visit(field.kind)

    visit(root)
    return iter(seen)


def build(cls: type[Message], tree: Mapping[str, Any]) -> Any:
    """A message from nested mappings and lists of values, such as a composed configuration."""
    message = cls()
    for field in settings_of(cls):
        if field.name not in tree:
            continue
        value = tree[field.name]
        if field.is_message and value is not None:
            is_list = field.shape == "list"
            value = [build(field.kind, item) for item in value] if is_list else build(field.kind, value)
        setattr(message, field.name, value)
    return message


def walk(message: Message, path: str = "") -> Iterator[tuple[str, Setting, Any]]:
    """Every field of a message and of the messages in it, as (path, field, value)."""
    for field in settings_of(type(message)):
        here = f"{path}.{field.name}" if path else field.name
        value = getattr(message, field.name)
        yield here, field, value
        for inner_path, inner in children(here, value):
            yield from walk(inner, inner_path)


def children(path: str, value: Any) -> Iterator[tuple[str, Message]]:
    """The messages in one field's value, with their paths (`data_sources.0` for a list's first)."""
    if isinstance(value, Message):
        yield path, value
    elif isinstance(value, list):
        yield from ((f"{path}.{i}", item) for i, item in enumerate(value) if isinstance(item, Message))

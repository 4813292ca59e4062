"""Where each value of a prototxt file stands, found by walking protobuf's own tokens."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from google.protobuf import text_format

from frcnn.spec.fields import Message, Setting, settings_of

Place = tuple[int, int]
OPEN = {"{": "}", "<": ">", "[": "]"}


@dataclass
class Unknown:
    """A name that its message does not have."""

    path: str
    name: str
    message: type[Message] | None  # None: an entry of a map
    place: Place


@dataclass
class Places:
    """Line and column (both from 1) of every field, list item and map entry, by dotted path."""

    of: dict[str, Place] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)  # member of a oneof -> the later one that counts
    unknown: list[Unknown] = field(default_factory=list)

    def find(self, path: str) -> Place | None:
        """The place of a value, or else of the nearest block around it."""
        while path:
            if path in self.of:
                return self.of[path]
            path = path.rpartition(".")[0]
        return None

    def path_at(self, place: Place) -> str | None:
        """The last value that starts at or before a place, in its line."""
        before = [(start, len(path), path) for path, start in self.of.items() if start <= place]
        start, _, path = max(before, default=((0, 0), 0, ""))
        return path if path and start[0] == place[0] else None


def find_places(text: str, root: type[Message]) -> Places:
    """Walk a prototxt text; stops quietly where its syntax breaks, keeping what came before."""
    walker = _Walker(text)
    # The parser proper reports what is broken; the places up to there still help to say where.
    with contextlib.suppress(text_format.ParseError):
        walker.fields(root, "", end="")
    return walker.places


class _Walker:
    def __init__(self, text: str) -> None:
        self.tokens = text_format.Tokenizer(text.split("\n"))
        self.places = Places()
        self.counts: dict[str, int] = {}

    def here(self) -> Place:
        error = self.tokens.ParseError("")  # type: ignore[arg-type]
        return error.GetLine() or 1, error.GetColumn() or 1

    def fields(self, message: type[Message], path: str, end: str) -> None:
        known = {item.name: item for item in settings_of(message)}
        while not self.tokens.AtEnd() and not (end and self.tokens.TryConsume(end)):
            place = self.here()
            name = self.tokens.ConsumeIdentifierOrNumber()
            inner = f"{path}.{name}" if path else name
            self.tokens.TryConsume(":")
            if name in known:
                self.places.of[inner] = place
                self.choose(known, name, path)
                self.values(known[name], inner)
            else:
                self.places.unknown.append(Unknown(inner, name, message, place))
                self.skip()
            _ = self.tokens.TryConsume(",") or self.tokens.TryConsume(";")

    def choose(self, known: Mapping[str, Setting], name: str, path: str) -> None:
        """Note the members of a oneof that another one replaces."""
        prefix = f"{path}." if path else ""
        self.places.replaced.pop(f"{prefix}{name}", None)
        for other, item in known.items():
            rival = item.oneof and item.oneof == known[name].oneof and other != name
            if rival and f"{prefix}{other}" in self.places.of:
                self.places.replaced[f"{prefix}{other}"] = f"{prefix}{name}"

    def values(self, item: Setting, path: str) -> None:
        if item.shape == "one":
            self.value(item, path)
            return
        for _ in self.list_items():
            if item.shape == "map":
                self.map_entry(path)
                continue
            index = self.counts.get(path, 0)
            self.counts[path] = index + 1
            self.places.of[f"{path}.{index}"] = self.here()
            self.value(item, f"{path}.{index}")

    def list_items(self) -> Iterator[None]:
        if not self.tokens.TryConsume("["):
            yield
        elif not self.tokens.TryConsume("]"):
            yield
            while self.tokens.TryConsume(","):
                yield
            self.tokens.Consume("]")

    def value(self, item: Setting, path: str) -> None:
        if item.is_message and self.tokens.token in ("{", "<"):
            end = OPEN[self.tokens.token]
            self.tokens.NextToken()
            self.fields(item.kind, path, end)
        else:
            self.skip()

    def map_entry(self, path: str) -> None:
        start, key, place = self.here(), "", None
        end = OPEN.get(self.tokens.token, "}")
        self.tokens.NextToken()
        while not self.tokens.AtEnd() and not self.tokens.TryConsume(end):
            at, name = self.here(), self.tokens.ConsumeIdentifier()
            self.tokens.TryConsume(":")
            if name == "key":
                key = self.tokens.ConsumeString()
            elif name == "value":
                place = self.here()
                self.skip()
            else:
                self.places.unknown.append(Unknown(f"{path}.{name}", name, None, at))
                self.skip()
            _ = self.tokens.TryConsume(",") or self.tokens.TryConsume(";")
        self.places.of[f"{path}.{key}"] = place or start

    def skip(self) -> None:
        """Pass over one value: a block, a list, adjacent strings or a single token."""
        first = self.tokens.token
        self.tokens.NextToken()
        if first in OPEN:
            while not self.tokens.AtEnd() and not self.tokens.TryConsume(OPEN[first]):
                self.skip()
        while first[:1] in ("'", '"') and self.tokens.token[:1] in ("'", '"'):
            self.tokens.NextToken()

"""How a flag is declared, and how a command line is taken apart."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from frcnn.errors import SpecError


@dataclass(frozen=True)
class Flag:
    """A flag of a verb.

    Attributes:
        names: all spellings; the first one is how it is passed on.
        doc: what it does here.
        value: what follows it, for the help page; "" for a switch, "N ..." for any number of words.
        sets: settings, with {} for the value as Hydra has to read it and {raw} for it as typed. A flag
            without any is the launcher's, or is passed on to a command with a parser of its own.
        was: what the original does with it, where that is something else.
        inert: why it has no effect here, if it has none.
        refused: what to do instead, where it is not taken.
        suffix: the suffix that the file has to have, "" for any.
    """

    names: tuple[str, ...]
    doc: str
    value: str = ""
    sets: tuple[str, ...] = ()
    was: str = ""
    inert: str = ""
    refused: str = ""
    suffix: str = ""

    @property
    def many(self) -> bool:
        """Whether several words may follow."""
        return self.value.endswith("...")


@dataclass
class Typed:
    """A command line, taken apart.

    Attributes:
        flags: each flag that was typed with its values, in order.
        rest: everything else, in order.
        help: whether --help was asked for.
    """

    flags: list[tuple[Flag, list[str]]] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    help: bool = False

    def values(self, name: str) -> list[str] | None:
        """What was typed after a flag, the last time; None without it."""
        return next((values for flag, values in reversed(self.flags) if name in flag.names), None)

    def value(self, name: str) -> str | None:
        """The only value of a flag; None without it."""
        values = self.values(name)
        return values[0] if values else None


def parse(argv: Sequence[str], flags: Iterable[Flag], *, passed_on: Iterable[str] = ()) -> Typed:
    """Take a command line apart.

    Args:
        argv: arguments after the verb.
        flags: of the verb; the first one with a name has it.
        passed_on: further flags that are left in `rest`.

    Raises:
        SpecError: an unknown flag, with the nearest names, or one without its value.
    """
    named: dict[str, Flag] = {}
    for flag in flags:
        named = dict.fromkeys(flag.names, flag) | named
    known = {*named, *passed_on}
    typed, words = Typed(), list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if word in ("-h", "--help"):
            typed.help = True
        elif name in named:
            flag = named[name]
            if flag.refused:
                raise SpecError("cannot be done by this command", where=name, hint=flag.refused)
            typed.flags.append((flag, [*_values(flag, name, words, value if equals else None, known)]))
        elif name in passed_on or not _is_flag(word):
            typed.rest.append(word)
        else:
            raise _unknown(name, known)
    return typed


def overrides(flag: Flag, values: Sequence[str]) -> list[str]:
    """The settings that a flag stands for."""
    value = f"[{','.join(map(quoted, values))}]" if flag.many else quoted(values[0] if values else "")
    return [item.format(value, raw=values[0] if values else "") for item in flag.sets]


def quoted(text: str) -> str:
    """A value as Hydra reads it without changing it."""
    if re.fullmatch(r"[\w.+-]+", text):
        return text
    doubled = re.sub(r"(\\+)(?='|$)", r"\1\1", text)  # those that a quote follows
    return "'" + doubled.replace("'", "\\'") + "'"


def _values(flag: Flag, name: str, words: list[str], given: str | None, known: set[str]) -> Iterator[str]:
    if not flag.value:
        if given is not None:
            raise SpecError("takes no value", where=name, found=given)
        return
    if given is not None:
        yield given
    elif not words or words[0] in known:
        raise SpecError("needs a value", where=name, allowed=flag.value)
    else:
        yield words.pop(0)
    while flag.many and words and "=" not in words[0] and not _is_flag(words[0]):
        yield words.pop(0)


def _is_flag(word: str) -> bool:
    return bool(re.match(r"-+[A-Za-z]", word))


def _unknown(name: str, known: Iterable[str]) -> SpecError:
    bare = {item.lstrip("-").replace("-", "_"): item for item in known}
    near = difflib.get_close_matches(name.lstrip("-").replace("-", "_"), bare, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(bare[item] for item in near)}?" if near else "--help lists all flags"
    return SpecError("is no flag of this command", where="command line", found=name, hint=hint)

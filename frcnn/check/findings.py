"""What a check found: sections with their facts, and what is wrong in each."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from frcnn.errors import FrcnnError, RunError, SpecError

LEVELS = ("fine", "warnings", "errors")
"""By exit code."""

EXAMPLES = 3
"""Places that are named where many things have the same problem."""


class Findings:
    """Collects the outcome of a check, which never stops at a problem.

    Args:
        debug: whether what nobody foresaw is raised instead of being a problem.

    Attributes:
        sections: name to a dict of `looked_at`, `summary`, `rows` (tables by title) and `facts`.
        problems: in the order in which they were found; alike ones of a section are one with a count.
    """

    def __init__(self, *, debug: bool = False) -> None:
        self._debug = debug
        self.sections: dict[str, dict[str, Any]] = {}
        self.problems: list[dict[str, Any]] = []
        self._section = ""

    @property
    def exit_code(self) -> int:
        """0 fine, 1 warnings, 2 errors."""
        return max((LEVELS.index(f"{problem['level']}s") for problem in self.problems), default=0)

    def broken(self, name: str) -> bool:
        """Whether a section has an error."""
        return any(problem["section"] == name and problem["level"] == "error" for problem in self.problems)

    @contextmanager
    def section(self, name: str) -> Iterator[dict[str, Any]]:
        """A part of the check: errors within end it, warnings that are logged within belong to it.

        Where the settings are wrong, what they make another part fail with is no problem of its own.
        """
        self._section = name
        content = self.sections.setdefault(name, {"looked_at": True, "summary": "", "rows": {}, "facts": {}})
        handler, log = _Collector(self), logging.getLogger("frcnn")
        spread, log.propagate = log.propagate, False
        log.addHandler(handler)
        try:
            yield content
        except FrcnnError as error:
            self.add("error", error)
        except Exception as error:
            if self._debug:
                raise
            if not self.broken("settings"):
                hint = "run.debug=true shows where this came from"
                self.error(RunError(f"{type(error).__name__}: {error}", hint=hint))
            skip(content, "the settings are wrong" if self.broken("settings") else "this part failed")
        finally:
            log.removeHandler(handler)
            log.propagate = spread

    def error(self, error: FrcnnError) -> None:
        """An error, in the words that a command would end with; what readers take as `problem`."""
        self.add("error", error)

    def warn(self, message: str, **parts: Any) -> None:
        """A warning; parts as of an error."""
        self.add("warning", FrcnnError(message, **parts))

    def add(self, level: str, error: FrcnnError) -> None:
        """A problem of the current section; those of a list in an error one by one."""
        if isinstance(error, SpecError) and error.problems:
            for problem in error.problems:
                self.add(level, problem)
            return
        same = {"level": level, "section": self._section, "message": error.message}
        for known in self.problems:
            if same.items() <= known.items() and known["hint"] == error.hint:
                known["count"] += 1
                if len(known["examples"]) < EXAMPLES:
                    known["examples"].append(_example(error))
                return
        self.problems.append({**same, "count": 1, "hint": error.hint, "examples": [_example(error)]})

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "schema": 1,
            "command": "check",
            "verdict": LEVELS[self.exit_code],
            "exit_code": self.exit_code,
            "sections": self.sections,
            "problems": self.problems,
        }


def skip(content: dict[str, Any], why: str) -> None:
    """A section is not looked at."""
    content["looked_at"], content["summary"] = False, f"not looked at: {why}"


def share(part: float, whole: float) -> float:
    """The share of a part; 0 of nothing."""
    return part / whole if whole else 0.0


def some(names: Sequence[str], most: int = 5) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _example(error: FrcnnError) -> dict[str, str | None]:
    parts = {"where": error.where, "found": error.found, "allowed": error.allowed}
    return {name: None if value is None else str(value) for name, value in parts.items()}


class _Collector(logging.Handler):
    def __init__(self, findings: Findings) -> None:
        super().__init__(logging.WARNING)
        self._findings = findings

    def emit(self, record: logging.LogRecord) -> None:
        self._findings.warn(record.getMessage())

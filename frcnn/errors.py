"""The errors that users see: where something is wrong, what was found, what is allowed, what to do."""

from collections.abc import Sequence


class FrcnnError(Exception):
    """A failure that has a name. `str(error)` is complete and needs no stack trace.

    Args:
        message: what is wrong, one sentence.
        where: file, line, field path or byte offset.
        found: what stands there now.
        allowed: what may stand there.
        hint: what to do about it.
    """

    exit_code: int = 2

    def __init__(
        self,
        message: str,
        *,
        where: object = None,
        found: object = None,
        allowed: object = None,
        hint: str | None = None,
    ) -> None:
        self.message, self.where, self.found, self.allowed, self.hint = message, where, found, allowed, hint
        super().__init__(str(self))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by parts, so that a data loader worker can hand the error to the main process."""
        return _rebuild, (type(self), self.message, self.where, self.found, self.allowed, self.hint)

    def __str__(self) -> str:
        head = self.message if self.where is None else f"{self.where}: {self.message}"
        details = [("found", self.found), ("allowed", self.allowed), ("try", self.hint)]
        return "\n".join([head, *(f"  {name}: {value}" for name, value in details if value is not None)])


class SpecError(FrcnnError):
    """A setting is unknown, malformed or out of range; holds every problem that was found."""

    def __init__(self, message: str, *, problems: Sequence[FrcnnError] = (), **parts: object) -> None:
        self.problems = tuple(problems)
        super().__init__(message, **parts)  # type: ignore[arg-type]

    @classmethod
    def of(cls, problems: Sequence[FrcnnError], *, where: object = None) -> "SpecError":
        """One error for one problem, or one that lists them all."""
        if len(problems) == 1 and isinstance(problems[0], SpecError):
            return problems[0]
        return cls(f"{len(problems)} problems in the settings", where=where, problems=problems)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_spec, (self.message, self.problems, self.where, self.found, self.allowed, self.hint)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"- {problem}" for problem in self.problems)])


class DataError(FrcnnError):
    """An image, a label file, a record or a data set cannot be used."""


class WeightsError(FrcnnError):
    """A checkpoint or weight file cannot be used."""


class ExportError(FrcnnError):
    """A model cannot be exported, or an engine cannot be built or run."""


class RunError(FrcnnError):
    """The input was fine, but the run could not go on: a full disk, a lost worker, a NaN loss."""

    exit_code = 1


class StoppedError(RunError):
    """The run was told to end (SIGTERM), as a scheduler does that needs the machine; it can go on later."""

    exit_code = 143  # 128 + SIGTERM, as shells report it


class ElsewhereError(FrcnnError):
    """What another process of the run failed with, in its words; none where they are said elsewhere."""

    def __init__(self, text: str, *, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_elsewhere, (self.message, self.exit_code)


def _rebuild_elsewhere(text: str, exit_code: int) -> ElsewhereError:
    return ElsewhereError(text, exit_code=exit_code)


def _rebuild(cls: type[FrcnnError], message: str, *parts: object) -> FrcnnError:
    where, found, allowed, hint = parts
    return cls(message, where=where, found=found, allowed=allowed, hint=hint)  # type: ignore[arg-type]


def _rebuild_spec(message: str, problems: Sequence[FrcnnError], *parts: object) -> SpecError:
    where, found, allowed, hint = parts
    return SpecError(message, problems=problems, where=where, found=found, allowed=allowed, hint=hint)

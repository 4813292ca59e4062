"""Settings that mean something this version cannot do yet: named and refused, never ignored."""

from frcnn.errors import SpecError
from frcnn.spec.fields import walk
from frcnn.spec.run import App

LATER = "is not available in this version"


def refuse_unavailable(app: App, command: str) -> None:
    """Stop on settings that mean something this version cannot do yet, instead of ignoring them.

    Args:
        app: settings.
        command: train or evaluate; settings of training do not stop an evaluation.

    Raises:
        SpecError: all of them at once, each with the value that goes without.
    """
    problems = []
    neutral: dict[str, object] = {}
    if command == "train":
        neutral = {"training_config.enable_qat": False}
    for path, _, value in walk(app):
        if path in neutral and value != neutral[path]:
            without = "" if neutral[path] == "" else f"{neutral[path]}".replace("False", "false")
            hint = f"{path}={without} goes without it"
            problems.append(SpecError(LATER, where=path, found=value, allowed=repr(neutral[path]), hint=hint))
    if problems:
        raise SpecError.of(problems)

"""The one source of truth for settings: TAO's schema as dataclasses (standard library only)."""

from pathlib import Path

from frcnn.spec.experiment import Experiment
from frcnn.spec.fields import REQUIRED, Message, Setting, messages_below, settings_of, walk

__all__ = [
    "REQUIRED",
    "Experiment",
    "Message",
    "Setting",
    "load",
    "messages_below",
    "save",
    "settings_of",
    "walk",
]


def load(path: str | Path) -> Experiment:
    """Read an experiment, TAO's text (.txt, .prototxt, .pbtxt) or YAML.

    Raises:
        SpecError: unknown or malformed settings, with file, line and column.
    """
    from frcnn.bridge.convert import read_spec

    return read_spec(path).spec


def save(spec: Experiment, path: str | Path) -> None:
    """Write an experiment in the format that the file's suffix names.

    Raises:
        SpecError: an unknown suffix.
        RunError: the file cannot be written.
    """
    from frcnn.bridge.convert import write_spec

    write_spec(spec, path)

"""A spec with the places of its values, and the words for what is wrong with it."""

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from frcnn.bridge.places import Places, Unknown
from frcnn.errors import SpecError
from frcnn.spec.dataset_export import DatasetExportConfig
from frcnn.spec.experiment import Experiment
from frcnn.spec.fields import UINT32_MAX, Message, Setting, messages_below, settings_of

Root = TypeVar("Root", bound=Message)

ROOTS: dict[type[Message], str] = {
    Experiment: "a FasterRCNN experiment, for train and evaluate",
    DatasetExportConfig: "a dataset_convert spec, for convert_dataset",
}
"""The kinds of spec files, in words."""

KINDS = {
    bool: "True or False",
    int: f"a whole number from 0 to {UINT32_MAX}",
    float: "a number",
    str: "a quoted string",
}

NEVER_PARSED = {
    "use_voc_11_point_metric": "the field is called use_voc07_11point_metric",
    "calibration_cache": "give the calibration cache to export instead",
    "etlt_model": "give the model as inference_config.model or evaluation_config.model",
}
"""Names that TAO's manual mentions and its parser never knew."""

FOREIGN = {
    "DetectNet_v2, SSD, YOLO or RetinaNet": {
        *("bbox_rasterizer_config", "cost_function_config", "postprocessing_config"),
        *("ssd_config", "yolov3_config", "yolov4_config", "retinanet_config", "dssd_config", "nms_config"),
    },
    "TLT 1.x or 2.x": {"network_config"},
}


@dataclass(frozen=True)
class Parsed(Generic[Root]):
    """A spec together with the place of each of its values.

    Attributes:
        spec: the settings.
        source: file name for messages.
        places: path to line and column.
        extra: top-level sections of a YAML file that are not TAO's (run, trainer, ...).
        comments: whether the file holds comments, which a conversion loses.
    """

    spec: Root
    source: str
    places: Places
    extra: dict[str, Any]
    comments: bool = False

    def locate(self, path: str) -> str:
        """`file:line:column: path`, as far as it is known."""
        place = self.places.find(path)
        return f"{self.source}:{place[0]}:{place[1]}: {path}" if place else f"{self.source}: {path}"


Document: TypeAlias = Parsed[Experiment]
"""An experiment, which is what most commands read."""


def nearest(name: str, message: type[Message], root: type[Message]) -> str | None:
    """What the writer of an unknown name probably meant, in words."""
    if name in NEVER_PARSED and root is Experiment:
        return NEVER_PARSED[name]
    for what, fields in FOREIGN.items():
        if name in fields:
            return f"this looks like a spec of {what}, not {ROOTS[root]}"
    names = [field.name for field in settings_of(message)]
    if close := difflib.get_close_matches(name, names, n=3, cutoff=0.6):
        return f"did you mean {' or '.join(close)}?"
    homes = [cls.__name__ for cls in messages_below(root) if name in {f.name for f in settings_of(cls)}]
    if homes:
        return f"{name} belongs to {' or '.join(homes)}"
    return None


def describe(field: Setting) -> str:
    """The values that a field may hold, in words."""
    if field.is_enum:
        return " or ".join(member.name for member in field.kind)  # type: ignore[attr-defined]
    if field.shape == "map":
        return "entries of key and value"
    return "a block" if field.is_message else KINDS[field.kind]


def unknown_fields(items: Sequence[Unknown], source: str, root: type[Message]) -> list[SpecError]:
    """Errors for names that their blocks do not have; one will do for another kind of spec."""
    for item in items:
        other = root_of([item.name]) if item.message is root else None
        if other is not None and other is not root:
            line, column = item.place
            message, where = f"this is {ROOTS[other]}", f"{source}:{line}:{column}: {item.path}"
            return [SpecError(message, where=where, found=item.name, allowed=ROOTS[root])]
    return [_unknown_field(item, source, root) for item in items]


def root_of(names: Iterable[str]) -> type[Message] | None:
    """The kind of spec that has most of these top-level blocks, or None if no kind has any."""
    blocks = {root: {field.name for field in settings_of(root) if field.is_message} for root in ROOTS}
    hits = Counter(root for name in names for root in ROOTS if name in blocks[root])
    return max(hits, key=hits.__getitem__, default=None)


def _unknown_field(item: Unknown, source: str, root: type[Message]) -> SpecError:
    """The error for a name that its block does not have."""
    line, column = item.place
    allowed = ", ".join(field.name for field in settings_of(item.message)) if item.message else "key, value"
    return SpecError(
        "unknown field",
        where=f"{source}:{line}:{column}: {item.path}",
        found=item.name,
        allowed=allowed,
        hint=nearest(item.name, item.message, root) if item.message else None,
    )

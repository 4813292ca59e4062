"""The account of every object of a data set: kept, or dropped and why."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Counts:
    """What became of the objects of a class."""

    kept: int = 0
    difficult: int = 0  # of those kept: in training like any other, ignored in evaluation
    degenerate: int = 0  # no area in the label
    outside: int = 0  # no area in the network input
    too_small: int = 0  # narrower or lower than the limits in the network input
    ignored: int = 0  # kept as areas to ignore

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class SourceTable:
    """The account of one source."""

    name: str
    images: int
    images_without_objects: int
    unused_labels: int  # label files without an image
    classes: Mapping[str, Counts]  # by class of the network
    areas: Mapping[str, Counts]  # by name in `ignore_classes`: areas to ignore that are of no class
    unmapped: Mapping[str, int]  # objects dropped because no class is mapped to their name

    @property
    def total(self) -> Counts:
        """The sum over all classes and areas."""
        return sum([*self.classes.values(), *self.areas.values()], Counts())


@dataclass(frozen=True)
class DataTable:
    """The account of a data set, by source."""

    sources: tuple[SourceTable, ...]

    @property
    def kept(self) -> dict[str, int]:
        """Objects kept, by class, over all sources."""
        names = self.sources[0].classes
        return {name: sum(source.classes[name].kept for source in self.sources) for name in names}

    def rows(self) -> list[dict[str, Any]]:
        """A row per source and class, one per name of areas or of nothing, and one of totals.

        Every row has the same keys; None where a column does not apply.
        """
        empty = dict.fromkeys(["unmapped", "images", "without_objects", "unused_labels"])
        rows: list[dict[str, Any]] = []
        for source in self.sources:
            for name, counts in (*source.classes.items(), *source.areas.items()):
                rows.append({"source": source.name, "class": name, **asdict(counts), **empty})
            for name, count in source.unmapped.items():
                nothing = dict.fromkeys(asdict(Counts()))
                rows.append({"source": source.name, "class": name, **nothing, **empty, "unmapped": count})
            rows.append(
                {
                    "source": source.name,
                    "class": "total",
                    **asdict(source.total),
                    "unmapped": sum(source.unmapped.values()),
                    "images": source.images,
                    "without_objects": source.images_without_objects,
                    "unused_labels": source.unused_labels,
                }
            )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """The same, nested, ready for JSON."""
        return asdict(self)

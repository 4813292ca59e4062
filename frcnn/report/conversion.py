"""What a conversion wrote, for people."""

from collections import Counter

from rich.console import Group, RenderableType
from rich.text import Text

from frcnn.data.convert.pipeline import Summary
from frcnn.report.tables import rows_table

_FOLDS = 8  # columns that fit beside each other


def conversion_table(summary: Summary, *, title: str) -> RenderableType:
    """Objects by class and fold, and below them what became of the images; empty rows are left out."""
    folds = summary.folds if len(summary.folds) <= _FOLDS else []
    numbers = {f"fold {number:03d}": fold for number, fold in enumerate(folds)}

    def row(name: str, values: list[int], **more: int) -> dict[str, object]:
        return {"": name, **dict(zip(numbers, values, strict=False)), "all": sum(values), **more}

    skipped, total = summary.skipped, sum(summary.skipped.values())
    rows = [
        row(
            name,
            [fold.objects[name] for fold in summary.folds],
            **({"skipped: no area": skipped[name]} if total else {}),
        )
        for name in summary.classes
    ]
    objects = [sum(fold.objects.values()) for fold in summary.folds]
    rows.append(row("objects", objects, **({"skipped: no area": total} if total else {})))
    figures = {
        "images": [fold.images for fold in summary.folds],
        "  without objects": [fold.empty for fold in summary.folds],
        "  left out by the filter": [fold.filtered for fold in summary.folds],
        "  copies added": [fold.copies for fold in summary.folds],
        "  beyond max_training_samples": [fold.cut for fold in summary.folds],
    }
    rows += [row(name, values) for name, values in figures.items() if name == "images" or any(values)]
    if any(fold.filtered or fold.copies or fold.cut for fold in summary.folds):
        rows.append(row("records", [fold.records for fold in summary.folds]))
    return Group(Text(title, style="bold"), rows_table(rows))


def to_dict(summary: Summary) -> dict[str, object]:
    """The same numbers, ready for JSON."""
    objects: Counter[str] = Counter()
    for fold in summary.folds:
        objects.update(fold.objects)
    return {
        "images": sum(fold.images for fold in summary.folds),
        "records": sum(fold.records for fold in summary.folds),
        "objects": dict(sorted(objects.items())),
        "skipped": dict(sorted(summary.skipped.items())),
        "files": summary.files,
        "empty_files": summary.empty_files,
        "folds": [
            {
                "fold": number,
                "images": fold.images,
                "images_without_objects": fold.empty,
                "filtered": fold.filtered,
                "copies": fold.copies,
                "beyond_limit": fold.cut,
                "records": fold.records,
                "objects": dict(sorted(fold.objects.items())),
            }
            for number, fold in enumerate(summary.folds)
        ],
    }

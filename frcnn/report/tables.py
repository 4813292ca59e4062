"""Tables for the console and, as plain text, for log files."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from frcnn.data.table import SourceTable

if TYPE_CHECKING:
    from frcnn.metrics import EvaluationResult

UNDEFINED = "-"
METRICS = {"area": "area under the curve", "voc07": "11-point VOC 2007"}


def evaluation_table(result: "EvaluationResult") -> RenderableType:
    """Figures per class, and mAP in the last line.

    Precision and recall stand once at the score threshold, as TAO prints them, and once where F1 is best.
    """
    several = len(result.iou_thresholds) > 1
    difficult = any(figure.difficult for figure in result.per_class.values())
    ignored = any(figure.ignored for figure in result.per_class.values())
    table = Table(
        title=f"{result.images:,} images · AP: {METRICS[result.metric]} · score ≥ {result.score_threshold:g}",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="dim",
        pad_edge=False,
        collapse_padding=True,
    )
    # On a narrow console only names and the longest column fold: a number that is cut misleads.
    table.add_column("\nClass", style="bold", overflow="fold")
    headers = ["\nAP", "Preci-\nsion", "\nRecall", "Best F1:\nP/R @ score", "RPN\nrecall", "Ground\ntruth"]
    headers += [*(["Diffi-\ncult"] if difficult else []), "Detec-\ntions"]
    for header in [*headers, *(["of them\nignored"] if ignored else [])]:
        table.add_column(header, justify="right", no_wrap="@" not in header)
    for name, figure in result.per_class.items():
        best = UNDEFINED
        if (point := figure.best_f1) is not None:
            best = f"{point.precision:.3f}/{point.recall:.3f} @ {point.score:.2f}"
        table.add_row(
            Text(name),
            _decimals(figure.AP),
            _decimals(figure.precision),
            _decimals(figure.recall),
            best,
            _decimals(figure.rpn_recall),
            f"{figure.ground_truth:,}",
            *([f"{figure.difficult:,}"] if difficult else []),
            f"{figure.detections:,}",
            *([f"{figure.ignored:,}"] if ignored else []),
        )
    iou = result.iou_thresholds
    lines = [f"mAP@{t:g} = {_decimals(mean)}" for t, mean in zip(iou, result.mAP_per_iou, strict=True)]
    if several:
        lines.append(f"mAP@[{iou[0]:g}:{iou[-1]:g}] = {_decimals(result.mAP)}")
    return Group(table, *(Text(line) for line in lines[:-1]), Text(lines[-1], style="bold green"))


def coco_table(coco: Mapping[str, float | None]) -> Table:
    """COCO's twelve figures in rows of AP and AR."""
    return rows_table(coco_rows(coco), title="COCO, IoU 0.50:0.95; sizes are those in the image file")


def coco_rows(coco: Mapping[str, float | None]) -> list[dict[str, object]]:
    """A row of AP and one of AR; `None` where a figure is undefined."""
    sizes = ("small", "medium", "large")
    precision = {"": "AP", "all": coco["AP"], "IoU 0.50": coco["AP50"], "IoU 0.75": coco["AP75"]}
    recall = {"": "AR", "all": coco["AR100"], "1 detection": coco["AR1"], "10 detections": coco["AR10"]}
    return [
        {**precision, **{size: coco[f"AP_{size}"] for size in sizes}},
        {**recall, **{size: coco[f"AR_{size}"] for size in sizes}},
    ]


def data_table(source: SourceTable, *, split: str) -> RenderableType:
    """What became of each object of a data source, with its title."""
    title, rows = data_rows(source, split=split)
    return Group(Text(title, style="bold"), rows_table(rows))


def data_rows(source: SourceTable, *, split: str) -> tuple[str, list[dict[str, object]]]:
    """A title, and what became of each object of a data source; reasons that no object had are left out."""
    reasons = {
        "difficult": "of them difficult",
        "ignored": "areas to ignore",
        "degenerate": "dropped: no area",
        "outside": "dropped: outside the input",
        "too_small": "dropped: too small",
    }
    total = asdict(source.total)
    shown = {"kept": "kept", **{key: words for key, words in reasons.items() if total[key]}}
    rows: list[dict[str, object]] = []
    for name, counts in (*source.classes.items(), *source.areas.items(), ("total", source.total)):
        rows.append({"class": name, **{words: asdict(counts)[key] for key, words in shown.items()}})
    rows[-1:-1] = [{"class": name, "dropped: not mapped": count} for name, count in source.unmapped.items()]
    if source.unmapped:
        rows[-1]["dropped: not mapped"] = sum(source.unmapped.values())
    title = f"{split}: {source.images:,} images from {source.name}"
    if source.images_without_objects:
        title += f", {source.images_without_objects:,} without objects"
    if source.unused_labels:
        title += f", {source.unused_labels:,} label files without an image"
    return title, rows


def rows_table(rows: Sequence[Mapping[str, object]], *, title: str | None = None) -> Table:
    """One row per mapping; columns are the keys in the order of their first appearance.

    Numbers are set right-aligned with separators, missing values and None as a dash.
    """
    table = Table(
        title=None if title is None else Text(title, overflow="fold"),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )
    keys = list(dict.fromkeys(key for row in rows for key in row))
    for key in keys:
        values = [row[key] for row in rows if row.get(key) is not None]
        numeric = bool(values) and all(isinstance(value, int | float) for value in values)
        header = Text(key.replace("_", " "))
        table.add_column(header, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_cell(row.get(key)) for key in keys))
    return table


def render(renderable: RenderableType, *, width: int = 120) -> str:
    """Plain text of what `rich` would print: no colours, no control characters, no trailing blanks."""
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None, force_terminal=False).print(renderable)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().split("\n"))


def _decimals(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.4f}"


def _cell(value: object) -> Text:
    """As text, not markup: names from files may hold brackets."""
    if value is None:
        return Text(UNDEFINED)
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return Text(f"{value:,}")
    return Text(f"{value:.4g}" if isinstance(value, float) else str(value))

"""The page of a run: everything that a run left, for someone with nothing but a browser."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np
from PIL import Image

from frcnn.data.table import DataTable
from frcnn.metrics import EvaluationResult
from frcnn.metrics.calibration import FROM
from frcnn.report.charts import DASHES, INK, Line, line_chart
from frcnn.report.colours import PALETTE, class_colour
from frcnn.report.html import Html, definitions, element, joined, page, picture, table
from frcnn.report.plots import LOSSES, Series, precision_recall_points, smooth
from frcnn.report.style import STYLE
from frcnn.report.tables import METRICS, coco_rows, data_rows

MEMORY, RATE = "memory/gpu_GiB", "throughput/images_per_second_epoch"


class Setting(NamedTuple):
    """One value of the settings, and where it comes from."""

    path: str
    value: object
    origin: str


class Picture(NamedTuple):
    """A drawn image with its title."""

    title: str
    image: Image.Image


@dataclass(frozen=True)
class RunPage:
    """What the page shows; what is empty is left out."""

    title: str
    command: str
    state: str  # finished, interrupted or failed
    reason: str = ""  # why, if it did not finish
    folder: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)  # figures to see first
    curves: Mapping[str, Series] = field(default_factory=dict)
    result: EvaluationResult | None = None
    evaluated: str = ""  # what the result is of, such as "epoch 3"
    times: Mapping[str, float] = field(default_factory=dict)  # stages and the milliseconds of an image
    class_names: Sequence[str] = ()
    worst: Sequence[Picture] = ()
    best: Sequence[Picture] = ()
    validation: Sequence[Picture] = ()
    training: Sequence[Picture] = ()
    data: Mapping[str, DataTable] = field(default_factory=dict)
    model: Sequence[Mapping[str, object]] = ()
    settings: Sequence[Setting] = ()
    environment: Mapping[str, object] = field(default_factory=dict)


def render_page(run: RunPage) -> str:
    """The HTML document, which needs no other file and no network."""
    sections = {name: content for name, content in _sections(run) if content}
    links = [element("a", name, href=f"#{_anchor(name)}") for name in sections]
    body = [
        element("h1", run.title),
        element("p", element("span", run.state, class_=f"state {run.state}"), f" {run.command}"),
        element("p", run.reason, class_="reason") if run.reason else None,
        definitions(run.facts),
        element("p", run.folder, class_="quiet") if run.folder else None,
        element("nav", *links),
    ]
    parts = [element("section", element("h2", n), c, id=_anchor(n)) for n, c in sections.items()]
    return page(run.title, element("main", element("header", *body), *parts), style=STYLE)


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _sections(run: RunPage) -> Iterator[tuple[str, Html]]:
    yield "Curves", _grid(_curves(run.curves, run.class_names), "charts")
    if run.result:
        yield "Classes", _classes(run.result, run.evaluated)
        levels = range(len(run.result.iou_thresholds))
        yield (
            "Precision and recall",
            _grid([_precision_recall(run.result, level) for level in levels], "charts"),
        )
        yield "COCO", _coco(run.result)
        yield "Confusion", _confusion(run.result)
        yield "Calibration", _calibration(run.result)
    if run.times:
        note = "Medians for one image; the last two are a batch's divided by its images."
        yield (
            "Time",
            joined([element("p", note), definitions({k: f"{v:.1f} ms" for k, v in run.times.items()})]),
        )
    key = _key(run.class_names)
    truth = "Dashed: ground truth (dotted: difficult). Coloured: detections."
    counted = "Detections count from the score of their class's best F1 on."
    most = f"Most wrong detections and missed objects first. {truth} {counted}"
    yield "Worst images", _pictures(run.worst, joined([element("p", most), key]))
    least = f"Fewest mistakes, then most objects first. {truth} {counted}"
    yield "Best images", _pictures(run.best, joined([element("p", least), key]))
    yield "Validation images", _pictures(run.validation, joined([element("p", truth), key]))
    seen = "The first images of the training, as the network saw them."
    yield "Training images", _pictures(run.training, joined([element("p", seen), key]))
    yield "Data", joined(_data(run.data))
    yield "Model", table([_tidy(row) for row in run.model], total=True) if run.model else Html()
    yield "Settings", joined(_settings(run.settings))
    yield "Environment", definitions(run.environment) if run.environment else Html()


def _curves(curves: Mapping[str, Series], class_names: Sequence[str]) -> Iterator[Html]:
    losses: list[Line] = []
    for name, (label, colour) in LOSSES.items():
        if name in curves:
            line = Line(label, curves[name].step, curves[name].value, INK if colour == "black" else colour)
            smoothed = smooth(line.y)
            if not np.array_equal(smoothed, line.y):
                losses.append(line._replace(faint=True))
            losses.append(line._replace(y=smoothed, bold=colour == "black"))
    if losses:
        yield line_chart(losses, title="Training loss", x_label="step", log=True)
    if "lr" in curves:
        rate = Line("learning rate", curves["lr"].step, curves["lr"].value, PALETTE[0])
        yield line_chart([rate], title="Learning rate", x_label="step")
    if means := _over_epochs(curves, {f"{name}_epoch": style for name, style in LOSSES.items()}):
        yield line_chart(means, title="Mean loss of an epoch", x_label="epoch", log=True)
    classes = {f"val/AP/{name}": (name, class_colour(i)) for i, name in enumerate(class_names)}
    if lines := _over_epochs(curves, {"val/mAP": ("mAP", "black")} | classes):
        title = "Average precision on the validation set"
        yield line_chart(lines, title=title, x_label="epoch", y_range=(0.0, 1.0))
    speed = {RATE: ("images per second", PALETTE[2]), MEMORY: ("GPU memory, GiB", PALETTE[1])}
    for name, style in speed.items():
        if lines := _over_epochs(curves, {name: style}):
            yield line_chart(lines, title=style[0][0].upper() + style[0][1:], x_label="epoch")


def _over_epochs(curves: Mapping[str, Series], styles: Mapping[str, tuple[str, str]]) -> list[Line]:
    known = [(label, colour, curves[name]) for name, (label, colour) in styles.items() if name in curves]
    return [
        Line(
            label,
            series.epoch,
            series.value,
            INK if colour == "black" else colour,
            dash=DASHES[max(i - 1, 0) // len(PALETTE) % len(DASHES)],
            bold=colour == "black",
        )
        for i, (label, colour, series) in enumerate(known)
    ]


def _classes(result: EvaluationResult, evaluated: str) -> Html:
    several = len(result.iou_thresholds) > 1
    difficult = any(figures.difficult for figures in result.per_class.values())
    ignored = any(figures.ignored for figures in result.per_class.values())
    rows: list[dict[str, object]] = []
    for i, (name, figures) in enumerate(result.per_class.items()):
        row: dict[str, object] = {"Class": joined([_swatch(class_colour(i)), " ", name]), "AP": figures.AP}
        if several:
            row[f"AP at IoU {result.iou_thresholds[0]:g}"] = figures.AP_per_iou[0]
        best = figures.best_f1
        row |= {
            "Precision": figures.precision,
            "Recall": figures.recall,
            "Best F1: precision": best.precision if best else None,
            "recall": best.recall if best else None,
            "at score": best.score if best else None,
            "RPN recall": figures.rpn_recall,
            "Objects": figures.ground_truth,
            **({"Difficult": figures.difficult} if difficult else {}),
            "Detections": figures.detections,
            **({"Ignored": figures.ignored} if ignored else {}),
        }
        rows.append(row)
    means: dict[str, object] = {"Class": "mean", "AP": result.mAP}
    if several:
        means[f"AP at IoU {result.iou_thresholds[0]:g}"] = result.mAP_per_iou[0]
    spans = [f"{result.iou_thresholds[0]:g}", f"{result.iou_thresholds[-1]:g}"]
    note = (
        f"{evaluated + ': ' if evaluated else ''}{result.images:,} images, IoU from "
        f"{' to '.join(dict.fromkeys(spans))}, AP is the {METRICS[result.metric]}; precision and recall "
        f"count detections with a score of at least {result.score_threshold:g}."
    )
    return joined([element("p", note), table([*rows, means], total=True, decimals=4)])


def _precision_recall(result: EvaluationResult, level: int) -> Html:
    lines = [
        Line(
            name,
            recall,
            precision,
            class_colour(i),
            dash=DASHES[i // len(PALETTE) % len(DASHES)],
            label=f"AP {ap:.3f}",
        )
        for i, name, ap, recall, precision in precision_recall_points(result, level=level)
    ]
    title = f"Precision over recall at IoU {result.iou_thresholds[level]:g}"
    return line_chart(lines, title=title, x_label="recall", x_range=(0.0, 1.0), y_range=(0.0, 1.0))


def _coco(result: EvaluationResult) -> Html:
    note = (
        "COCO's own figures: mean over IoU 0.50 to 0.95, at most 100 detections of an image and class; "
        "small is below 32x32 pixels of the image file, large above 96x96."
    )
    return joined([element("p", note), table(coco_rows(result.coco), decimals=4)])


def _confusion(result: EvaluationResult) -> Html:
    names = [*result.per_class, "background"]
    rows: list[dict[str, object]] = []
    for i, (name, counts) in enumerate(zip(names, result.confusion.counts, strict=True)):
        whole = max(sum(counts), 1)
        cells = {
            f"as {other}": _shaded(count, count / whole) for other, count in zip(names, counts, strict=True)
        }
        colour = class_colour(i) if i < len(names) - 1 else "transparent"
        rows.append({"Object": joined([_swatch(colour), " ", name]), **cells})
    rows[-1][f"as {names[-1]}"] = None
    note = (
        "Objects by class, and what they were detected as, at IoU 0.5; a class's detections count from the "
        "score of its best F1. Last column: missed. Last row: detections of nothing. "
        "Shades are shares of a row."
    )
    return joined([element("p", note), table(rows)])


def _shaded(count: int, share: float) -> Html:
    style = f"background:rgba(0,114,178,{0.55 * share:.2f});padding:2px 8px;border-radius:4px"
    return element("span", f"{count:,}", style=style)


def _calibration(result: EvaluationResult) -> Html:
    diagonal = Line("as right as they say", np.array([0.0, 1.0]), np.array([0.0, 1.0]), INK, faint=True)
    lines = [
        Line(
            name,
            np.array(known.score),
            np.array(known.precision),
            class_colour(i),
            dash=DASHES[i // len(PALETTE) % len(DASHES)],
            label=f"error {known.error:.3f}",
        )
        for i, (name, figures) in enumerate(result.per_class.items())
        if (known := figures.calibration)
    ]
    title = f"Precision over score at IoU {result.iou_thresholds[0]:g}"
    unit = (0.0, 1.0)
    chart = line_chart([diagonal, *lines], title=title, x_label="score", x_range=unit, y_range=unit)
    note = (
        "Where a line is below the diagonal, scores promise too much. The error is the expected calibration "
        f"error over detections that score at least {FROM:g}."
    )
    return joined([element("p", note), _grid([chart], "charts")]) if lines else Html()


def _pictures(pictures: Sequence[Picture], words: Html) -> Html:
    figures = [picture(image, alt=title, caption=title) for title, image in pictures]
    return joined([words, element("div", *figures, class_="pictures")]) if figures else Html()


def _key(class_names: Sequence[str]) -> Html:
    entries = [element("li", _swatch(class_colour(i)), " ", name) for i, name in enumerate(class_names)]
    return element("ul", *entries, class_="legend")


def _swatch(colour: str) -> Html:
    return element("span", class_="swatch", style=f"background:{colour}")


def _data(tables: Mapping[str, DataTable]) -> Iterator[Html]:
    for split, data in tables.items():
        for source in data.sources:
            title, rows = data_rows(source, split=split)
            yield table([_tidy(row) for row in rows], caption=title, total=True)


def _tidy(row: Mapping[str, object]) -> dict[str, object]:
    return {key[:1].upper() + key[1:]: value for key, value in row.items()}


def _settings(settings: Sequence[Setting]) -> Iterator[Html]:
    typed = [setting for setting in settings if setting.origin == "command line"]
    if typed:
        yield element("p", "From the command line:")
        yield _setting_rows(typed)
    for section, members in groupby(settings, key=_section):
        listed = list(members)
        given = sum(setting.origin != "default" for setting in listed)
        summary = element("summary", section, element("small", f"{given} of {len(listed)} given"))
        yield element("details", summary, _setting_rows(listed))


def _section(setting: Setting) -> str:
    first, dot, _ = setting.path.partition(".")
    return first if dot else "experiment"


def _setting_rows(settings: Sequence[Setting]) -> Html:
    return table(
        [
            {
                "Setting": element("code", setting.path),
                "Value": element("code", _value(setting.value)),
                "Origin": element(
                    "span", setting.origin, class_="quiet" if setting.origin == "default" else None
                ),
            }
            for setting in settings
        ]
    )


def _value(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or "''"


def _grid(figures: object, class_: str) -> Html:
    found = [figure for figure in figures if figure]  # type: ignore[attr-defined]
    return element("div", *found, class_=class_) if found else Html()

"""Curves of a run: losses, learning rate, average precision over epochs, precision over recall."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from frcnn.metrics import EvaluationResult
from frcnn.metrics.average_precision import precision_envelope
from frcnn.metrics.calibration import BINS
from frcnn.report.colours import PALETTE, class_colour

LOSSES = {
    "train/loss": ("total", "black"),
    "train/loss_rpn_class": ("RPN class", PALETTE[0]),
    "train/loss_rpn_box": ("RPN box", PALETTE[5]),
    "train/loss_rcnn_class": ("RCNN class", PALETTE[1]),
    "train/loss_rcnn_box": ("RCNN box", PALETTE[4]),
}
INK = "#404040"
LINE_STYLES = ("-", "--", ":")  # classes that share a colour differ in this


class Series(NamedTuple):
    """The values of one logged figure."""

    step: NDArray[np.float64]
    epoch: NDArray[np.float64]  # from 1
    value: NDArray[np.float64]


def training_figure(metrics: Mapping[str, Series]) -> Figure:
    """Losses (logarithmic, smoothed over the noise drawn faintly behind) and learning rate over steps."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for name, (label, colour) in LOSSES.items():
        if name in metrics:
            step, _, value = metrics[name]
            width = 2.2 if name == "train/loss" else 1.5
            losses.plot(step, value, color=colour, linewidth=0.8, alpha=0.2)
            losses.plot(step, smooth(value), color=colour, linewidth=width, label=label)
    if losses.lines:
        losses.set_yscale("log")
        losses.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        losses.yaxis.set_minor_locator(NullLocator())
        losses.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        losses.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    losses.set_title("Training loss", loc="left", fontweight="bold")
    rates.set_title("Learning rate", loc="left", fontweight="bold")
    if "lr" in metrics:
        rates.plot(metrics["lr"].step, metrics["lr"].value, color=INK, linewidth=1.5)
    rates.set_ylim(bottom=0)
    rates.set_xlabel("step")
    rates.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    rates.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    for axes in (losses, rates):
        tidy(axes)
    return figure


def map_figure(metrics: Mapping[str, Series]) -> Figure:
    """Mean AP and the AP of every class over epochs (from 1), each line named at its end."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    prefix = "val/AP/"
    lines = [(name.removeprefix(prefix), metrics[name]) for name in metrics if name.startswith(prefix)]
    ends: list[tuple[str, str, float]] = []
    for i, (name, series) in enumerate(lines):
        style = LINE_STYLES[i // len(PALETTE) % len(LINE_STYLES)]
        axes.plot(series.epoch, series.value, style, color=class_colour(i), linewidth=1.5)
        ends.append((f"{name} {series.value[-1]:.3f}", class_colour(i), float(series.value[-1])))
    if "val/mAP" in metrics:
        _, epoch, value = metrics["val/mAP"]
        axes.plot(epoch, value, color="black", linewidth=2.5, marker="o", markersize=4)
        ends.append((f"mAP {value[-1]:.3f}", "black", float(value[-1])))
        best = int(value.argmax())
        axes.plot(epoch[best], value[best], "o", color="white", markeredgecolor="black", markersize=9)
        axes.set_title(f"best mAP {value[best]:.3f} in epoch {epoch[best]:.0f}", loc="right", color=INK)
    axes.set_ylim(-0.02, 1.02)
    gap = min(0.05, 1 / max(len(ends), 1))
    font: dict[str, Any] = {"size": 200 * gap, "va": "center", "transform": axes.get_yaxis_transform()}
    for (label, colour, _), height in zip(ends, spread([end[2] for end in ends], gap=gap), strict=True):
        weight = "bold" if colour == "black" else "normal"
        axes.text(1.01, height, label, color=colour, weight=weight, **font)
    axes.set_title("Average precision on the validation set", loc="left", fontweight="bold")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    tidy(axes)
    return figure


def precision_recall_figure(result: EvaluationResult, *, level: int = 0) -> Figure:
    """Precision over recall at an IoU threshold, by its number; a dot at the first marks each best F1."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for i, name, ap, recall, precision in precision_recall_points(result, level=level):
        style = LINE_STYLES[i // len(PALETTE) % len(LINE_STYLES)]
        label = f"{name}  AP {ap:.3f}"
        axes.plot(recall, precision, style, color=class_colour(i), linewidth=1.8, label=label)
        if level == 0 and (best := result.per_class[name].best_f1) is not None:
            axes.plot(best.recall, best.precision, "o", color=class_colour(i), markeredgecolor="white")
    if axes.lines:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.02, 1.02), xlabel="recall", ylabel="precision")
    title = f"Precision and recall at IoU {result.iou_thresholds[level]:g}"
    axes.set_title(title, loc="left", fontweight="bold")
    tidy(axes)
    return figure


def precision_recall_points(
    result: EvaluationResult, *, level: int = 0
) -> Iterator[tuple[int, str, float, NDArray[np.float64], NDArray[np.float64]]]:
    """Class id, name, AP, recall and precision, at an IoU threshold, of every class that has them.

    As in the metric: the envelope whose area is AP, or the raw points of which VOC 2007 takes eleven.
    """
    for i, (name, figures) in enumerate(result.per_class.items()):
        precision, recall = figures.curves[level]
        ap = figures.AP_per_iou[level]
        if ap is None or not len(precision):
            continue
        if result.metric == "area":
            precision = precision_envelope(precision)
        yield i, name, ap, np.append(0.0, recall), np.append(precision[:1], precision)


def confusion_figure(result: EvaluationResult) -> Figure:
    """Objects by class against what they were detected as, from the score of each class's best F1 on.

    Numbers are counts, shades are shares of a row.
    """
    labels = [*(_short(name) for name in result.per_class), "background"]
    counts = np.array(result.confusion.counts, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = len(labels)
    longest = max(map(len, labels))
    room = max(0.5, 0.11 * max(len(f"{count:.0f}") for count in counts.flat))  # inches of a cell
    figure = Figure(figsize=(1.8 + 0.08 * longest + room * side, 1.6 + 0.08 * longest + 0.5 * side))
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        if row < side - 1 or column < side - 1:  # nobody counts where there is nothing and nothing is found
            colour = "white" if shares[row, column] > 0.55 else "black" if count else "#a0a0a0"
            axes.text(column, row, f"{count:.0f}", ha="center", va="center", color=colour, size=9)
    turned = longest * 0.08 > room
    axes.set_xticks(range(side), labels, rotation=90 if turned else 0)
    axes.set_yticks(range(side), labels)
    axes.set_xlabel("detected as (last: missed)")
    axes.set_ylabel("is (last: nothing there)")
    axes.axhline(side - 1.5, color=INK, linewidth=1)
    axes.axvline(side - 1.5, color=INK, linewidth=1)
    figure.suptitle("Confusion at IoU 0.5", x=0.01, ha="left", fontweight="bold")
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=INK, length=0)
    return figure


def calibration_figure(result: EvaluationResult) -> Figure:
    """The share of detections that are right over their score, and below how many detections score so."""
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    axes.plot([0, 1], [0, 1], color="#a0a0a0", linewidth=1, label="as right as they say")
    total = np.zeros(BINS)
    for i, (name, figures) in enumerate(result.per_class.items()):
        if (known := figures.calibration) is None:
            continue
        style = LINE_STYLES[i // len(PALETTE) % len(LINE_STYLES)]
        label = f"{_short(name)}  error {known.error:.3f}"
        axes.plot(
            known.score, known.precision, style, color=class_colour(i), marker="o", markersize=4, label=label
        )
        places = np.minimum((np.array(known.score) * BINS).astype(int), BINS - 1)
        np.add.at(total, places, known.detections)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.02, 1.02), ylabel="precision")
    axes.set_title(f"Calibration at IoU {result.iou_thresholds[0]:g}", loc="left", fontweight="bold")
    below.bar((np.arange(BINS) + 0.5) / BINS, total, width=0.9 / BINS, color="#a0a0a0")
    below.set(xlabel="score", ylabel="detections")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    for one in (axes, below):
        tidy(one)
    return figure


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred mean over a twentieth of the curve; a curve of less than 40 points stays as it is."""
    index, half = np.arange(len(values)), len(values) // 40
    total = np.cumsum(np.append(0.0, values))
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    mean: NDArray[np.float64] = (total[last] - total[first]) / (last - first)
    return mean


def spread(heights: Sequence[float], *, gap: float) -> list[float]:
    """Heights in the same order, at least `gap` apart and within 0..1, if there is room for all of them.

    What is too close together becomes a group around its own mean.
    """
    groups: list[list[int]] = []
    centres: list[float] = []
    for i in sorted(range(len(heights)), key=lambda i: heights[i]):
        groups.append([i])
        while True:
            half = gap * (len(groups[-1]) - 1) / 2
            mean = sum(heights[j] for j in groups[-1]) / len(groups[-1])
            centres[len(groups) - 1 :] = [max(min(mean, 1 - half), half)]
            neighbours = sum(len(group) for group in groups[-2:])
            if len(groups) == 1 or centres[-1] - centres[-2] >= gap * neighbours / 2 - 1e-9:
                break
            groups[-2:] = [groups[-2] + groups[-1]]
    placed = [0.0] * len(heights)
    for group, centre in zip(groups, centres, strict=True):
        for rank, i in enumerate(group):
            placed[i] = centre + gap * (rank - (len(group) - 1) / 2)
    return placed


def tidy(axes: Axes) -> None:
    """A quiet grid and no frame."""
    axes.grid(color="#e0e0e0", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)

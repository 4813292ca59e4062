"""The plot of a sweep: what each job reached, and how that depends on each setting."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from frcnn.report.colours import PALETTE, class_colour

INK = "#404040"
SPREAD = 20
"""Numeric settings whose largest value is more than this many times their smallest get a log axis."""


def sweep_figure(
    *,
    numbers: Sequence[int],
    metric: str,
    scores: Sequence[float | None],
    classes: Mapping[str, Sequence[float | None]],
    settings: Mapping[str, Sequence[str]],
    statuses: Sequence[str],
    best: int | None = None,
) -> Figure:
    """A line per job on the left, a panel per varying setting on the right.

    Args:
        numbers: (J,) of the jobs.
        metric: what they are compared by.
        scores: (J,) values of the metric; None where there is none.
        classes: class name to (J,) AP, drawn faintly beside the score.
        settings: varying setting to (J,) values as they were typed.
        statuses: (J,) shown where there is no score.
        best: index of the best job.
    """
    panels = max(1, min(len(settings), 4))
    height = min(max(3.2, 1.2 + 0.3 * len(scores), 2.4 * ((panels + 1) // 2)), 20)
    figure = Figure(figsize=(12, height), layout="constrained")
    halves = figure.add_gridspec(1, 2, width_ratios=[3, 2])
    left, right = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    _jobs(left.subplots(), numbers, metric, scores, classes, settings, statuses, best)
    grid = right.subplots((panels + 1) // 2, min(panels, 2), squeeze=False, sharey=True)
    for axes in grid.flat:
        axes.set_visible(False)
    for axes, (name, values) in zip(grid.flat, settings.items(), strict=False):
        axes.set_visible(True)
        _dependence(axes, name, values, scores, best)
    for row in grid:
        row[0].set_ylabel(metric, color=INK)
    return figure


def _jobs(
    axes: Axes,
    numbers: Sequence[int],
    metric: str,
    scores: Sequence[float | None],
    classes: Mapping[str, Sequence[float | None]],
    settings: Mapping[str, Sequence[str]],
    statuses: Sequence[str],
    best: int | None,
) -> None:
    rows = range(len(scores))
    for i, (name, values) in enumerate(classes.items()):
        _dots(axes, values, rows, size=16, color=class_colour(i), alpha=0.6, label=name)
    _dots(axes, scores, rows, size=46, color="black", label=metric, zorder=3)
    for row, score in enumerate(scores):
        if score is None:
            place = axes.get_yaxis_transform()
            axes.text(0.02, row, statuses[row], transform=place, va="center", color=PALETTE[1])
    if best is not None:
        _ring(axes, scores[best], best)
        axes.set_title(f"best: job {numbers[best]}, {scores[best]:.4g}", loc="right", color=INK)
    labels = [", ".join(_short(values[row]) for values in settings.values()) for row in rows]
    named = zip(numbers, labels, strict=True)
    names = [f"{number}: {textwrap.shorten(label, 60, placeholder=' …')}" for number, label in named]
    axes.set_yticks(rows, names, fontsize=9 if len(scores) <= 50 else 5)
    axes.set_ylim(len(scores) - 0.5, -0.5)
    if len(classes) <= 12:
        axes.legend(loc="upper right", bbox_to_anchor=(1.0, -0.08), ncols=4, frameon=False, fontsize=9)
    axes.set_title(metric, loc="left", fontweight="bold")
    _tidy(axes)


def _dependence(
    axes: Axes, name: str, values: Sequence[str], scores: Sequence[float | None], best: int | None
) -> None:
    numbers = [_float(value) for value in values]
    places: list[float]
    if all(number is not None for number in numbers) and len(set(numbers)) > 2:
        places = [number or 0.0 for number in numbers]
        if min(places) > 0 and max(places) > SPREAD * min(places):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if max(places) < 50 * min(places) else (1,)))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(axis="x", labelsize=8)
    else:
        kinds = list(dict.fromkeys(values))
        places = [float(kinds.index(value)) for value in values]
        names = [textwrap.shorten(_short(kind), 20) for kind in kinds]
        turn = 20 if sum(map(len, names)) > 24 else 0
        axes.set_xticks(range(len(kinds)), names, rotation=turn, ha="right" if turn else "center", fontsize=8)
        axes.set_xlim(-0.5, len(kinds) - 0.5)
    _dots(axes, places, scores, size=26, color=PALETTE[0])
    if best is not None:
        _ring(axes, places[best], scores[best])
    axes.set_title(name, loc="left", fontweight="bold", fontsize=10)
    _tidy(axes)


def _dots(
    axes: Axes, xs: Sequence[float | None], ys: Sequence[float | None], *, size: float, **style: Any
) -> None:
    """Points whose two places are known."""
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if x is not None and y is not None]
    axes.scatter([x for x, _ in points], [y for _, y in points], s=size, **style)


def _ring(axes: Axes, x: float | None, y: float | None) -> None:
    _dots(axes, [x], [y], size=150, facecolors="none", edgecolors=PALETTE[1], zorder=4)


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _short(text: str) -> str:
    number = _float(text)
    return text if number is None else f"{number:.3g}"


def _tidy(axes: Axes) -> None:
    axes.grid(color="#e0e0e0", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)

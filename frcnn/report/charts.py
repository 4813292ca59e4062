"""Line charts as inline SVG, in the colours of the page that they stand in."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from frcnn.report.html import Html, element, joined

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 10, 46
MARKED = 40  # points that a line may have to show each of them
ACROSS = 400  # points that a line needs at most

LEAST = 1e-30  # what a logarithmic axis shows

INK = "currentColor"
DASHES = (None, "6 3", "2 3")  # lines that share a colour differ in this


class Line(NamedTuple):
    """One line of a chart."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    colour: str = INK
    dash: str | None = None
    bold: bool = False
    faint: bool = False  # drawn behind, without a name in the legend
    label: str = ""  # in the legend; the last value by default


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    log: bool = False,
) -> Html:
    """A figure with title, axes, grid and legend; a value that is not finite is left out.

    Args:
        lines: in the order of the legend; those without points are left out.
        title: above the chart, and what a screen reader says of it.
        x_label: of the x axis.
        x_range: of the x axis; by default that of the points, which count something.
        y_range: of the y axis; by default from 0 (or the least value if `log`) to the largest.
        log: whether the y axis is logarithmic.
    """
    shown = [line for line in (_drawable(line, log=log) for line in lines) if len(line.x)]
    if not shown:
        return element("figure", element("figcaption", title), element("p", "No values."), class_="chart")
    x, y = (np.concatenate([line[i] for line in shown]) for i in (1, 2))
    across = x_range or (float(x.min()), float(x.max()))
    x_ticks = _ticks(*across, whole=x_range is None)
    y_ticks = (
        _log_ticks(y) if log else _ticks(*(y_range or (min(0.0, float(y.min())), _rounded(float(y.max())))))
    )
    frame = _Frame(
        x_range=across,
        y_range=y_range or (y_ticks[0], y_ticks[-1]),
        log=log,
    )
    drawing = element(
        "svg",
        element("title", title),
        *_axes(frame, x_ticks, y_ticks, x_label),
        *(_path(frame, line) for line in sorted(shown, key=lambda line: line.bold - line.faint)),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
    )
    named = [line for line in shown if not line.faint]
    return element("figure", element("figcaption", title), drawing, _legend(named), class_="chart")


class _Frame(NamedTuple):
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log: bool

    def x(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        low, high = self.x_range
        return LEFT + (values - low) / ((high - low) or 1.0) * (WIDTH - LEFT - RIGHT)

    def y(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        low, high = np.log(self.y_range) if self.log else self.y_range
        heights = np.log(values) if self.log else values
        return HEIGHT - BOTTOM - (heights - low) / ((high - low) or 1.0) * (HEIGHT - TOP - BOTTOM)


def _drawable(line: Line, *, log: bool) -> Line:
    good = np.isfinite(line.x) & np.isfinite(line.y) & ((line.y > LEAST) | (not log))
    finite = line.y[np.isfinite(line.y)]
    # The last value is said as it is, drawn or not.
    label = line.label or (f"{finite[-1]:.4g}" if len(finite) else "")
    return line._replace(x=line.x[good], y=line.y[good], label=label)


def _rounded(value: float) -> float:
    """Without the last bits of single precision, which would cost a tick of their own."""
    return float(f"{value:.6g}")


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    if low == high:
        high = low + (1.0 if whole or not low else abs(low))
    return [float(t) for t in MaxNLocator(5, integer=whole, steps=[1, 2, 5, 10]).tick_values(low, high)]


def _log_ticks(values: NDArray[np.float64]) -> list[float]:
    low, high = float(values.min()), float(values.max())
    subs = (1, 2, 5) if high < 300 * low else (1,)
    ticks = [float(t) for t in LogLocator(subs=subs).tick_values(low, high)]
    first = max((i for i, t in enumerate(ticks) if t <= low), default=0)
    last = min((i for i, t in enumerate(ticks) if t >= high), default=len(ticks) - 1)
    return ticks[first : last + 1] if last > first else [low / 2, low * 2]


def _axes(frame: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str) -> list[Html]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for tick, height in zip(y_ticks, frame.y(np.array(y_ticks)), strict=True):
        if TOP - 1 <= height <= bottom + 1:
            parts.append(
                element("line", x1=LEFT, x2=right, y1=f"{height:.1f}", y2=f"{height:.1f}", class_="grid")
            )
            parts.append(_text(f"{tick:.6g}", LEFT - 8, height + 4, anchor="end"))
    for tick, place in zip(x_ticks, frame.x(np.array(x_ticks)), strict=True):
        if LEFT - 1 <= place <= right + 1:
            parts.append(_text(f"{tick:.6g}", place, bottom + 20))
    parts.append(element("line", x1=LEFT, x2=right, y1=bottom, y2=bottom, class_="axis"))
    return [*parts, _text(x_label, (LEFT + right) / 2, HEIGHT - 6)]


def _text(words: str, x: float, y: float, *, anchor: str = "middle") -> Html:
    return element("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _path(frame: _Frame, line: Line) -> Html:
    few = len(line.x) <= MARKED
    thin = line if few else _thinned(line)
    xs, ys = frame.x(thin.x), np.clip(frame.y(thin.y), TOP - 8, HEIGHT - BOTTOM + 2)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    width = 1.0 if line.faint else 2.6 if line.bold else 1.7
    drawn = element(
        "polyline",
        points=points,
        fill="none",
        stroke=line.colour,
        stroke_width=width,
        stroke_dasharray=line.dash,
        stroke_linejoin="round",
        opacity=0.25 if line.faint else None,
    )
    if not few or line.faint:
        return drawn
    marks = [
        element(
            "circle",
            element("title", f"{line.name} {y:.4g} at {x:g}"),
            cx=f"{cx:.1f}",
            cy=f"{cy:.1f}",
            r=2 + line.bold,
            fill=line.colour,
        )
        for x, y, cx, cy in zip(thin.x, thin.y, xs, ys, strict=True)
    ]
    return joined([drawn, *marks])


def _thinned(line: Line) -> Line:
    """The first point in each of `ACROSS` columns, and the last of all: more cannot be seen."""
    low, high = line.x.min(), line.x.max()
    columns = ((line.x - low) / ((high - low) or 1.0) * ACROSS).astype(int)
    _, first = np.unique(columns, return_index=True)
    kept = np.unique(np.append(np.sort(first), len(line.x) - 1))
    return line._replace(x=line.x[kept], y=line.y[kept])


def _legend(lines: Sequence[Line]) -> Html:
    entries = []
    for line in lines:
        stroke = element(
            "svg",
            element(
                "line",
                x1=0,
                x2=22,
                y1=6,
                y2=6,
                stroke=line.colour,
                stroke_width=3 if line.bold else 2,
                stroke_dasharray=line.dash,
            ),
            width=22,
            height=12,
            aria_hidden="true",
        )
        value = element("b", line.label)
        entries.append(element("li", stroke, " ", line.name, " ", value))
    return element("ul", *entries, class_="legend")

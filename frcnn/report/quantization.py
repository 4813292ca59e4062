"""A picture of a quantisation: what rounding changes in each layer."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from frcnn.report.colours import PALETTE
from frcnn.report.plots import tidy

SHARES = ("error", "by_input", "by_weights")
"""Keys of a row that are shares of a layer's output."""

_PER_COLUMN = 70  # layers; more of them stand in further columns


def errors_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A bar per layer, the worst first, with marks for the parts of inputs and of weights.

    Args:
        rows: of `frcnn.quantize.layer_errors`.
    """
    columns = -(-len(rows) // _PER_COLUMN)
    height = -(-len(rows) // columns)
    figure = Figure(figsize=(2.5 + 5.5 * columns, 1.6 + 0.19 * height), layout="constrained")
    for i, axes in enumerate(figure.subplots(1, columns, sharex=True, squeeze=False)[0]):
        part = rows[i * height : (i + 1) * height]
        places = range(len(part))
        error, by_input, by_weights = ([100 * row[key] for row in part] for key in SHARES)
        axes.barh(places, error, height=0.72, color="#d7dce3", label="inputs and weights")
        axes.scatter(by_input, places, s=14, color=PALETTE[0], label="inputs alone", zorder=3)
        axes.scatter(by_weights, places, s=14, color=PALETTE[1], label="weights alone", zorder=3)
        axes.set_yticks(places, [row["layer"] for row in part])
        axes.set_ylim(height - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel("% of the output")
        tidy(axes)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelsize=7.5)
    figure.axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    title = "What rounding to eight bits changes in each layer's output"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", size=11, wrap=True)
    return figure

"""Pictures of a pruning: the filters of each layer, and what thresholds cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from frcnn.report.colours import PALETTE
from frcnn.report.plots import INK, tidy

_PER_COLUMN = 70  # layers; more of them stand in further columns


def filters_figure(
    rows: Sequence[Mapping[str, Any]], *, shares: Mapping[str, float], threshold: float
) -> Figure:
    """A bar per layer: its filters that stay, before all that it had.

    Args:
        rows: of `frcnn.pruning.Pruned`.
        shares: of parameters and operations that are left.
        threshold: that the network was pruned with.
    """
    columns = -(-len(rows) // _PER_COLUMN)
    height = -(-len(rows) // columns)
    figure = Figure(figsize=(2.5 + 5.5 * columns, 1.6 + 0.19 * height), layout="constrained")
    for i, axes in enumerate(figure.subplots(1, columns, sharex=True, squeeze=False)[0]):
        part = rows[i * height : (i + 1) * height]
        places, before, after = range(len(part)), *([row[k] for row in part] for k in ("before", "after"))
        axes.barh(places, before, height=0.72, color="#d7dce3", label="before")
        axes.barh(places, after, height=0.72, color=PALETTE[0], label="after")
        for place, row in zip(places, part, strict=True):
            text = f"{row['after']:,}" if row["after"] < row["before"] else "all"
            axes.text(row["before"], place, f" {text}", va="center", size=7, color=INK)
        axes.set_yticks(places, [row["layer"] for row in part])
        axes.set_ylim(height - 0.4, -0.6)
        axes.set_xlabel("filters")
        tidy(axes)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelsize=7.5)
        axes.margins(x=0.12)
    figure.axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    title = (
        f"Filters of each layer at threshold {threshold:.4g}: {shares['parameters']:.1%} of the parameters, "
        f"{shares['flops']:.1%} of the operations"
    )
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", size=11, wrap=True)
    return figure


def sensitivity_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Mean AP, and the shares of parameters and operations that are left, over the threshold."""
    figure = Figure(figsize=(8, 6), layout="constrained")
    scores, sizes = figure.subplots(2, 1, sharex=True)
    thresholds = [row["threshold"] for row in rows]
    scored = [(row["threshold"], row["mAP"]) for row in rows if row["mAP"] is not None]
    scores.plot(*zip(*scored, strict=True) if scored else ([], []), marker="o", color="black")
    scores.set_title("mAP on the validation set, before any retraining", loc="left", fontweight="bold")
    for key, label, colour in (("parameters", "parameters", PALETTE[0]), ("flops", "operations", PALETTE[1])):
        sizes.plot(thresholds, [row[key] for row in rows], marker="o", color=colour, label=label)
    sizes.set_title("Share that is left", loc="left", fontweight="bold")
    sizes.set_xlabel("prune.threshold")
    sizes.legend(frameon=False)
    for axes in (scores, sizes):
        axes.set_ylim(-0.02, 1.02)
        tidy(axes)
    return figure

"""A picture of a comparison of two models: how far stages, scores and boxes are apart."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from frcnn.report.colours import PALETTE
from frcnn.report.plots import INK, tidy


def parity_figure(found: Mapping[str, Any]) -> Figure:
    """What `frcnn.parity.compare_models` found: stages on the left, scores of partners on the right."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    bars, scores = figure.subplots(1, 2, width_ratios=(3, 2))
    names = list(found["stages"])
    shares = [
        values["largest difference"] / max(values["largest value"], 1e-12)
        for values in found["stages"].values()
    ]
    bars.barh(range(len(names)), [max(share, 1e-9) for share in shares], color=PALETTE[0], height=0.6)
    for place, share in enumerate(shares):
        bars.text(max(share, 1e-9), place, f" {share:.1e}", va="center", size=8, color=INK)
    bars.set_yticks(range(len(names)), names)
    bars.invert_yaxis()
    bars.set_xscale("log")
    bars.set_xlim(1e-9, 10)
    bars.set_title("Largest difference, of the largest value", loc="left", fontweight="bold")
    if not names:
        bars.text(
            0.5, 0.5, "one of the two shows no stages", ha="center", transform=bars.transAxes, color=INK
        )
    scores.plot([0, 1], [0, 1], color="#c3c9d2", linewidth=1)
    scores.scatter(
        *zip(*found["points"], strict=True) if found["points"] else ([], []), s=9, color=PALETTE[1]
    )
    scores.set_xlabel("score in the first")
    scores.set_ylabel("score in the second")
    scores.set_title("Detections that both have", loc="left", fontweight="bold")
    for axes in (bars, scores):
        tidy(axes)
    part = found["detections"]
    verdict = "agree" if found["agree"] else f"part at {found['parts_at'] or 'detections'}"
    figure.suptitle(
        f"The two {verdict}: {part['matched']} detections matched, {sum(part['excused'].values())} excused, "
        f"{part['unexplained']} unexplained; boxes within {part['box_difference']:.2g} px, "
        f"scores within {part['score_difference']:.2g}",
        x=0.01,
        ha="left",
        size=10,
        wrap=True,
    )
    return figure

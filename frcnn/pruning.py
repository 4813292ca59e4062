"""Pruning of a detector as the settings `prune` say."""

import difflib
import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from frcnn import build, results
from frcnn.errors import SpecError, WeightsError
from frcnn.model.detector import FasterRCNN, channel_plan
from frcnn.prune.flow import trace
from frcnn.prune.keep import CRITERIA, NORMALIZERS, Choice, choose, norms
from frcnn.prune.network import copy_kept
from frcnn.quantize import copy_ranges, is_quantized, quantize, trait
from frcnn.report.pruning import filters_figure, sensitivity_figure
from frcnn.report.summary import summary_rows
from frcnn.report.tables import render, rows_table
from frcnn.spec.run import App
from frcnn.weights.checkpoint import Checkpoint, save_detector
from frcnn.weights.load import weighted_layers

log = logging.getLogger(__name__)

OUTPUTS = ("rpn_out_class", "rpn_out_regress", "dense_class", "dense_regress")
"""Layers whose channels mean something and are never pruned."""

_WEAK = (0.01, *(tenth / 10 for tenth in range(1, 10)), 0.99)  # of the channels, along the curve


class Size(NamedTuple):
    """What a network takes."""

    parameters: int  # with batch norm's statistics, as TAO counts
    gflops: float  # of an image of the usual size and its proposals

    def amount(self, of: str) -> float:
        """Its "parameters" or "flops"."""
        return self.parameters if of == "parameters" else self.gflops


@dataclass(frozen=True)
class Pruned:
    """A pruned network.

    Attributes:
        detector: the network.
        threshold: that it was pruned with.
        size: of the network.
        rows: a row per layer: its filters before and after, and why.
    """

    detector: FasterRCNN
    threshold: float
    size: Size
    rows: list[dict[str, Any]]


class Pruner:
    """A detector that can be pruned with one threshold or another; it is not changed.

    Args:
        app: settings of the detector, and of pruning.
        detector: with its weights.

    Raises:
        SpecError: a layer to exclude that the network does not have.
        WeightsError: weights that are no finite numbers.
    """

    def __init__(self, app: App, detector: FasterRCNN) -> None:
        self.app, self.detector, self.settings = app, detector, app.prune
        self.flow = trace(self._twin(channel_plan(detector)))
        self.excluded = _excluded(self.settings.excluded_layers, self.flow.widths)
        self.strengths = [self._strength(group) for group in self.flow.groups]

    @cached_property
    def size(self) -> Size:
        """Of the network as it is."""
        return self.measure(channel_plan(self.detector))

    def prune(self, threshold: float) -> Pruned:
        """The network with the weak channels cut out."""
        choices = self._choices(threshold)
        kept = {name: choice.filters for name, choice in choices.items()}
        plan = {name: len(filters) for name, filters in kept.items()}
        smaller = build.build_detector(self.app, plan=plan)
        smaller.limit_activations(self.detector.trunk.ceiling)
        if is_quantized(self.detector):
            quantize(smaller, **trait(self.detector))
            copy_ranges(self.detector, smaller)
        copy_kept(self.detector, smaller, self.flow, kept)
        return Pruned(smaller, threshold, self.measure(plan), self._rows(choices))

    def threshold_for(self, ratio: float, of: str) -> float:
        """The smallest threshold that leaves no more than a share of the network.

        Args:
            ratio: the share.
            of: "parameters" or "flops".

        Raises:
            SpecError: no threshold leaves so little.
        """
        whole = self.size.amount(of)

        def excess(threshold: float) -> float:
            plan = {name: len(choice.filters) for name, choice in self._choices(threshold).items()}
            return self.measure(plan).amount(of) / whole - ratio

        # A larger threshold never keeps more, and between two strengths nothing changes.
        thresholds: list[float] = sorted({0.0, *torch.cat(self.strengths).tolist()})
        if (least := excess(thresholds[-1])) > 0:
            raise SpecError(
                f"no threshold leaves so few {of}",
                where="prune.target_ratio",
                found=f"{ratio:g}",
                allowed=f"from {least + ratio:.4f}",
                hint="a smaller prune.min_num_filters or prune.granularity, or fewer prune.excluded_layers",
            )
        return thresholds[bisect_left(thresholds, True, key=lambda threshold: excess(threshold) <= 0)]

    def shares(self, size: Size) -> dict[str, float]:
        """What a network takes of what the whole one takes."""
        return {of: size.amount(of) / self.size.amount(of) for of in ("parameters", "flops")}

    def measure(self, plan: Mapping[str, int]) -> Size:
        """Parameters and operations of the network with other widths."""
        twin = self._twin(plan)
        state = twin.state_dict().values()
        total = summary_rows(
            twin,
            size=build.usual_size(self.app),
            channels=build.channels(self.app),
            regions=self.app.evaluation_config.rpn_nms_max_boxes,
        )[-1]
        return Size(sum(t.numel() for t in state if t.is_floating_point()), total["GFLOPs"])

    def _twin(self, plan: Mapping[str, int]) -> FasterRCNN:
        with torch.device("meta"):
            return build.build_detector(self.app, plan=plan)

    def _strength(self, group: tuple[str, ...]) -> Tensor:
        layers, settings = weighted_layers(self.detector), self.settings
        table = []
        for name in group:
            found = norms(layers[name].get_parameter("weight")).cpu()
            if not found.isfinite().all():
                raise WeightsError("holds weights that are no finite numbers", where=name)
            table.append(NORMALIZERS[settings.normalizer](found))
        return CRITERIA[settings.equalization_criterion](torch.stack(table))

    def _choices(self, threshold: float) -> dict[str, Choice]:
        found: dict[str, Choice] = {}
        for group, strengths in zip(self.flow.groups, self.strengths, strict=True):
            if held := next((name for name in group if name in self.excluded), None):
                choice = Choice(torch.arange(len(strengths)), f"{held} is {self.excluded[held]}")
            else:
                choice = choose(
                    strengths,
                    threshold=threshold,
                    granularity=self.settings.granularity,
                    min_filters=self.settings.min_num_filters,
                )
            found |= dict.fromkeys(group, choice)
        return {name: found[name] for name in self.flow.widths}

    def _rows(self, choices: Mapping[str, Choice]) -> list[dict[str, Any]]:
        group_of = {name: group for group in self.flow.groups for name in group if len(group) > 1}
        return [
            {
                "layer": name,
                "before": width,
                "after": len(choices[name].filters),
                "kept": len(choices[name].filters) / width,
                "with": _others(name, group_of.get(name, ())),
                "reason": choices[name].reason,
            }
            for name, width in self.flow.widths.items()
        ]


def sensitivity(pruner: Pruner, score: Callable[[FasterRCNN], float | None]) -> Iterator[dict[str, Any]]:
    """What pruning alone costs, at 0 and the strengths of channels from the weakest to the strongest.

    Args:
        pruner: of the detector.
        score: mAP of a detector; called once per threshold that changes the network.

    Yields:
        Threshold, the share of parameters and of operations that it leaves, and mAP.
    """
    strengths = torch.cat(pruner.strengths).sort().values
    weak = [0.0, *(float(strengths[int(share * len(strengths))]) for share in _WEAK)]
    last: Pruned | None = None
    found = None
    for threshold in sorted({round(value, 4) for value in weak}):
        pruned = pruner.prune(threshold)
        shares = pruner.shares(pruned.size)
        if last is None or pruned.size != last.size:
            found = score(pruned.detector)
            text = "prune.threshold %g: %.4f of the parameters, mAP %s"
            log.info(text, threshold, shares["parameters"], "-" if found is None else f"{found:.4f}")
        last = pruned
        yield {"threshold": threshold, **shares, "mAP": found}


def prune_checkpoint(
    app: App, folder: Path, target: Path, *, score: Callable[[FasterRCNN], float | None] | None
) -> dict[str, Any]:
    """Prune the network of `run.model_path`.

    Args:
        app: settings.
        folder: of the run; takes settings, results.json and pictures.
        target: the checkpoint to write.
        score: mAP of a detector, to measure what thresholds cost; None measures nothing.

    Returns:
        The content of results.json.

    Raises:
        SpecError: a layer to exclude that the network does not have, or a share that no threshold leaves.
        WeightsError: the model cannot be used.
        RunError: the checkpoint cannot be written.
    """
    stored, settings = Checkpoint(app.run.model_path), app.prune
    detector = build.build_detector(app, plan=stored.channels)
    stored.load_into(detector)
    pruner = Pruner(app, detector)
    threshold = settings.threshold
    if settings.target_ratio:
        threshold = pruner.threshold_for(settings.target_ratio, settings.target)
        log.info("prune.threshold %s leaves that share of the %s", threshold, settings.target)
    results.store_settings(app, folder)
    pruned = pruner.prune(threshold)
    save_detector(pruned.detector, target, stored=results.stored_texts(app) | stored.traits)
    before, after, shares = pruner.size, pruned.size, pruner.shares(pruned.size)
    log.info("%s", render(rows_table(pruned.rows, title=f"{app.model_config.arch}, filters of each layer")))
    log.info("parameters: %s of %s", f"{after.parameters:,}", f"{before.parameters:,}")
    log.info("GFLOPs: %.4g of %.4g, %.4f of them", after.gflops, before.gflops, shares["flops"])
    log.info("Pruning ratio (pruned model / original model): %.4f", shares["parameters"])
    filters_figure(pruned.rows, shares=shares, threshold=threshold).savefig(folder / "pruning.png", dpi=120)
    found: dict[str, Any] = {
        "schema": 1,
        "command": "prune",
        "mAP": None,
        "per_class": {},
        "model": app.run.model_path,
        "checkpoint": str(target),
        "threshold": threshold,
        "before": before._asdict(),
        "after": after._asdict(),
        "ratio": shares,
        "layers": pruned.rows,
        "versions": results.versions(),
    }
    results.write(folder, found)  # before the sensitivity, which takes long and may be interrupted
    if score:
        found["sensitivity"] = rows = list(sensitivity(pruner, score))
        log.info("%s", render(rows_table(rows, title="before any retraining")))
        sensitivity_figure(rows).savefig(folder / "sensitivity.png", dpi=120)
        results.write(folder, found)
    return found


def _others(name: str, group: tuple[str, ...]) -> str | None:
    others = [other for other in group if other != name]
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    return f"{others[0]}{more}" if others else None


def _excluded(names: list[str], widths: Mapping[str, int]) -> dict[str, str]:
    """Layer -> why it keeps all of its channels."""
    ours = [name.removesuffix("_td") for name in names]  # as TAO calls the layers that run on every region
    for name in ours:
        if name not in widths:
            near = difflib.get_close_matches(name, widths, n=3)
            raise SpecError(
                "no convolution or dense layer of this network",
                where="prune.excluded_layers",
                found=name,
                hint=f"did you mean {' or '.join(near)}?" if near else None,
            )
    return dict.fromkeys(ours, "excluded") | dict.fromkeys(OUTPUTS, "an output")

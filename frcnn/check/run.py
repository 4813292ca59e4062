"""The check as a whole: every section is looked at, whatever another one found."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from frcnn import build
from frcnn.check.anchors import best_iou, propose
from frcnn.check.cost import measure
from frcnn.check.data import Split, look_at, look_at_overlap
from frcnn.check.findings import Findings, skip
from frcnn.errors import FrcnnError
from frcnn.model.detector import STRIDE, FasterRCNN
from frcnn.resume import check_resume, checkpoint_to_resume
from frcnn.spec.experiment import Experiment
from frcnn.spec.run import App
from frcnn.spec.values import class_names, dead_fields, replace_zeros
from frcnn.start import locate_weights, start
from frcnn.trainer import quiet

ANCHORS = "model_config.anchor_box_config"
WORTH = 0.05
"""Other anchors are worth a warning where this share of the boxes more reaches the positive IoU."""


def check(app: App, folder: Path, problems: Sequence[FrcnnError], findings: Findings) -> None:
    """Look at everything that a training with these settings would meet, and train nothing.

    Args:
        app: settings, which may be wrong; paths are made absolute and zeros replaced.
        folder: of the run that would go on, with `run.resume`.
        problems: what is wrong with the settings.
        findings: is filled; where the anchors fit badly, `facts` of section `anchors` hold better ones.
    """
    with findings.section("settings") as content:
        for problem in problems:
            findings.error(problem)
        content["facts"]["notes"] = [*replace_zeros(app), *dead_fields(app)]
        content["summary"] = (
            f"{len(problems)} wrong" if problems else f"{app.model_config.arch}, {_input(app)}"
        )
    with quiet():
        pl.seed_everything(app.random_seed if not problems else 0, workers=True, verbose=False)
        training = _look_at_data(app, findings)
        with findings.section("anchors") as content:
            if training is not None and len(training.boxes):
                _look_at_anchors(app, training, findings, content)
            else:
                skip(content, "there are no boxes")
        detector = None
        with findings.section("weights") as content:
            detector = _look_at_weights(app, folder, findings, content)
        with findings.section("memory and time") as content:
            if not app.run.check_steps:
                skip(content, "run.check_steps is 0")
            elif training is None or not len(training.boxes):
                skip(content, "there is no training data")
            else:
                measure(app, detector or _without_weights(app), training.dataset, findings, content)


def take_anchors(spec: Experiment, findings: Findings) -> bool:
    """Put the anchors that were found into a spec; whether there are any."""
    found = findings.sections.get("anchors", {}).get("facts", {}).get("proposed")
    if found:
        spec.model_config.anchor_box_config.scale = list(found["scale"])
        spec.model_config.anchor_box_config.ratio = list(found["ratio"])
    return bool(found)


def _look_at_data(app: App, findings: Findings) -> Split | None:
    data = app.dataset_config
    validates = data.validation_data_source is not None or data.validation_fold is not None
    splits: dict[bool, Split | None] = {False: None, True: None}
    with findings.section("training data"):
        lost = build.locate_data(app, app.run, problem=findings.error)
        data.data_sources = [source for source in data.data_sources if source not in lost]
    for validation, name in ((False, "training data"), (True, "validation data")):
        with findings.section(name) as content:
            if validation and not validates:
                content["summary"] = "none"
                hint = "set validation_fold or validation_data_source"
                findings.warn("nothing is validated: neither mAP nor a best checkpoint", hint=hint)
            elif (data.validation_data_source in lost) if validation else not data.data_sources:
                skip(content, "its files were not found")
            else:
                splits[validation] = look_at(app, findings, content, validation=validation)
    with findings.section("overlap") as content:
        training, held_out = splits[False], splits[True]
        if training is None:
            skip(content, "there is no training data")
        else:
            look_at_overlap(training.dataset, held_out.dataset if held_out else None, findings, content)
    return splits[False]


def _look_at_anchors(app: App, split: Split, findings: Findings, content: dict[str, Any]) -> None:
    anchors, positive = app.model_config.anchor_box_config, app.training_config.rpn_max_overlap
    negative = app.training_config.rpn_min_overlap
    now = {"scale": list(anchors.scale), "ratio": list(anchors.ratio)}
    fit = best_iou(split.boxes, split.sizes, scales=now["scale"], ratios=now["ratio"], stride=STRIDE)
    scales, ratios = propose(
        split.boxes, split.sizes, scales=now["scale"], ratios=now["ratio"], positive_iou=positive
    )
    better = best_iou(split.boxes, split.sizes, scales=scales, ratios=ratios, stride=STRIDE)
    share, gained = float((fit >= positive).mean()), float((better >= positive).mean())
    sides = np.sqrt((split.boxes[:, 2:] - split.boxes[:, :2]).prod(axis=1))
    rows = []
    for number, name in enumerate(class_names(app.dataset_config)):
        mine = split.class_ids == number
        if mine.any():
            row: dict[str, Any] = {"class": name, "boxes": int(mine.sum())}
            row["middle size, px"] = round(float(np.median(sides[mine])), 1)
            row |= {f"IoU ≥ {positive:g}": f"{(fit[mine] >= positive).mean():.0%}"}
            row |= {f"IoU ≤ {negative:g}": f"{(fit[mine] <= negative).mean():.0%}"}
            row |= {f"proposed: IoU ≥ {positive:g}": f"{(better[mine] >= positive).mean():.0%}"}
            rows.append(row)
    content["rows"]["boxes and their best anchor"] = rows
    content["summary"] = f"{share:.0%} of the boxes have an anchor at IoU ≥ {positive:g}"
    content["facts"] |= {"now": now, "share_positive": share, "mean_iou": float(fit.mean())}
    if gained <= share:
        return
    override = " ".join(
        f"{ANCHORS}.{name}=[{','.join(f'{value:g}' for value in values)}]"
        for name, values in (("scale", scales), ("ratio", ratios))
    )
    content["facts"]["proposed"] = {
        "scale": scales,
        "ratio": ratios,
        "share_positive": gained,
        "mean_iou": float(better.mean()),
        "override": override,
    }
    content["summary"] += f"; {gained:.0%} with those below"
    if gained - share >= WORTH:
        findings.warn(
            "other anchors fit these boxes better",
            where=ANCHORS,
            found=f"{share:.0%} of the boxes at IoU ≥ {positive:g}, {gained:.0%} with as many others",
            hint="fix=anchors writes settings with them",
        )


def _look_at_weights(app: App, folder: Path, findings: Findings, content: dict[str, Any]) -> FasterRCNN:
    locate_weights(app)
    resumed = checkpoint_to_resume(app, folder)
    if resumed is not None:
        content["facts"]["resume"] = check_resume(app, resumed)
        content["summary"] = f"{resumed}: {content['facts']['resume'][0]}"
    begin = start(app, resumed)
    if begin.report is None:
        content["summary"] = (
            content["summary"] or app.training_config.retrain_pruned_model or "none: from scratch"
        )
        return begin.detector
    report = begin.report
    content["facts"] |= {"source": report.source, "layers": len(report.rows), "loaded": len(report.loaded)}
    content["facts"]["unused"] = list(report.unused)
    content["summary"] = f"{len(report.loaded)} of {len(report.rows)} layers load from {report.source}"
    for row in report.rows:
        if row.status == "No":
            findings.warn("a layer does not load", where=row.name, found=row.note)
    return begin.detector


def _without_weights(app: App) -> FasterRCNN:
    """The network of settings whose weights cannot be had."""
    training = replace(app.training_config, pretrained_weights="", retrain_pruned_model="")
    return build.build_detector(replace(app, training_config=training))


def _input(app: App) -> str:
    height, width = build.largest_size(app)
    varies = app.model_config.input_image_config.size_height_width is None
    return (
        f"input {'up to ' if varies else ''}{width}x{height}, batch {app.training_config.batch_size_per_gpu}"
    )

"""Our networks against what the original's graph computed, as `scripts/check_reference.py` offers it."""

import argparse
import gzip
import json
import logging
import math
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor

from frcnn.errors import DataError, FrcnnError, WeightsError
from frcnn.model.backbones import build_backbone
from frcnn.model.detector import DetectionSettings, FasterRCNN, ProposalSettings
from frcnn.model.roi_head import RoiOutput
from frcnn.model.rpn import Proposals, RpnOutput
from frcnn.report.tables import render, rows_table
from frcnn.status import StatusFile
from frcnn.weights.hdf5 import MAX_BYTES
from frcnn.weights.importer import import_detector, look
from frcnn.weights.keras_hdf5 import read_hdf5

log = logging.getLogger(__name__)

SUFFIX = ".json.gz"
TOLERANCE = {"of scale": 1e-4, "px": 0.01}

NETWORK = ("use_bias", "all_projections", "use_pooling", "pool_size", "pool_size_2x")
UNUSED = ("freeze_bn", "freeze_blocks", "dropout_rate", "drop_connect_rate", "roi_mini_batch", "rpn_stride")
"""Options of a case that change nothing in inference."""

DETECTION = {
    "object_confidence_thres": "score_threshold",
    "classifier_nms_overlap_threshold": "nms_iou",
    "classifier_nms_max_boxes": "max_detections",
}
PROPOSAL = {
    "rpn_pre_nms_top_N": "pre_nms_top_n",
    "rpn_nms_max_boxes": "post_nms_top_n",
    "rpn_nms_overlap_threshold": "nms_iou",
}
NEEDED = ("arch", "scale", "ratio", "num_classes_with_background")
OTHERS = (*NEEDED, "activation", "activation_type", "classifier_regr_std", "std_scaling")

ARRAYS = (
    *("image", "rois", "feature_map", "rpn_out_class", "rpn_out_regress", "proposals", "crop"),
    *("dense_class", "dense_regress", "det_boxes", "det_scores", "det_classes", "det_count"),
)
"""What the original's graph was given and what it computed."""


class Stage(NamedTuple):
    """How far one stage of one case is from the original.

    Attributes:
        case, stage: their names.
        difference: the largest absolute one; relative to the largest value where the unit is "of scale".
        unit: "of scale" or "px".
        note: what else differs, such as the number of boxes; empty if nothing does.
    """

    case: str
    stage: str
    difference: float
    unit: str
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether it is as near as the original's weights deserve; what is no number is not."""
        return self.difference <= TOLERANCE[self.unit] and not self.note


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `check_reference`; returns the exit code: 1 where a stage is off, 2 on broken input."""
    parser = argparse.ArgumentParser(
        prog="check_reference",
        description="Run the cases of a folder, NAME.json.gz with NAME.npz, through import and our network, "
        "and compare every stage with what the original's graph computed.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("-r", "--results_dir", metavar="DIR", type=Path, help="for status.json")
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr)
    status = StatusFile(arguments.results_dir / "status.json") if arguments.results_dir else None
    if status:
        status.write("STARTED", "Starting comparison.")
    code, stages = _check(arguments.folder)
    if status:
        words = ("Every stage holds.", "A stage is off.", "A case is broken.")
        kpi = {"stages": len(stages), "stages_that_hold": sum(stage.holds for stage in stages)}
        status.write("FAILURE" if code else "SUCCESS", words[code], kpi=kpi)
    return code


def _check(folder: Path) -> tuple[int, list[Stage]]:
    """Compare all cases of a folder; returns the exit code too."""
    cases = sorted(folder.glob(f"*{SUFFIX}"))
    if not cases:
        found = "no such file in it" if folder.is_dir() else "no such folder"
        found = "a file, not a folder" if folder.is_file() else found
        sys.stderr.write(
            f"{DataError('there are no cases', where=folder, found=found, allowed='*.json.gz')}\n"
        )
        return 2, []
    stages: list[Stage] = []
    broken = False
    for case in cases:
        try:
            stages += check_case(case)
        except FrcnnError as error:
            broken = True
            sys.stderr.write(f"{error}\n")
    if stages:
        sys.stdout.write(_table(stages) + "\n")
    return (2 if broken else int(not all(stage.holds for stage in stages))), stages


def check_case(path: Path) -> list[Stage]:
    """Import a case's weights and compare the stages.

    Raises:
        FrcnnError: the case is broken, or its weights cannot be imported.
    """
    name = path.name.removesuffix(SUFFIX)
    case, expected = _read(path, path.with_name(f"{name}.npz"))
    options = case["options"]
    if unknown := options.keys() - {*NETWORK, *UNUSED, *DETECTION, *PROPOSAL, *OTHERS}:
        log.warning("%s: options that are not known here: %s", path, ", ".join(sorted(unknown)))
    detector = _detector(path, case, in_channels=expected["image"].shape[1])
    try:
        with torch.no_grad():
            compared = list(_compare(detector.eval(), expected, options))
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise _broken(path.with_name(f"{name}.npz"), error) from error
    return [Stage(name, *stage) for stage in compared]


def _detector(path: Path, case: Mapping[str, Any], *, in_channels: int) -> FasterRCNN:
    """The network of a case, imported from a file as the original would have written it."""
    with tempfile.TemporaryDirectory() as folder:
        hdf5 = Path(folder) / "case.hdf5"
        try:
            _check_size(path, case)
            write_hdf5(case, hdf5)
            file = replace(read_hdf5(hdf5), path=path)
            arch = case["options"]["arch"]
            make, known = _maker(case["options"], in_channels, look(file, arch)[1])
            return import_detector(file, make, arch=arch, expected=known).detector
        except (MemoryError, OSError) as error:
            found = f"{type(error).__name__}: {error}"
            raise DataError("its weights cannot be written out", where=path, found=found) from error
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise _broken(path, error) from error
        except FrcnnError as error:
            # The settings that hints are about do not exist here, nor does the file for long.
            where = str(error.where or path).replace(str(hdf5), str(path))
            raise WeightsError(
                error.message, where=where, found=error.found, allowed=error.allowed
            ) from error


def _check_size(path: Path, case: Mapping[str, Any]) -> None:
    """Stop at shapes that no network has before anything of that size is made."""
    size = sum(4 * math.prod(shape) for _, weights in case["layers"] for _, shape in weights)
    if size > MAX_BYTES:
        found, allowed = f"weights of {size:,} bytes", f"{MAX_BYTES:,}"
        raise DataError("holds too much", where=path, found=found, allowed=allowed)


def write_hdf5(case: Mapping[str, Any], path: Path) -> None:
    """The Keras model file that a case belongs to: its names and shapes, with weights by a seeded rule."""
    with h5py.File(path, "w") as file:
        for key, value in case["attrs"].items():
            file.attrs[key] = np.bytes_(value) if len(value) < 60000 else value
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [np.bytes_(layer) for layer, _ in case["layers"]]
        for layer, weights in case["layers"]:
            member = group.create_group(layer)
            member.attrs["weight_names"] = [np.bytes_(name) for name, _ in weights]
            for name, shape in weights:
                values = seeded_weight(layer, name, tuple(shape), scale=case["scales"].get(layer, 0.8))
                member.create_dataset(name, data=values)


def seeded_weight(layer: str, name: str, shape: tuple[int, ...], *, scale: float) -> np.ndarray:
    """A tensor of a case, float32 in Keras' axes: random numbers whose seed is its name."""
    random = np.random.RandomState(zlib.crc32(f"{layer}|{name}".encode()) & 0x7FFFFFFF)
    last = name.rsplit("/", 1)[-1]
    if last.startswith(("gamma", "moving_variance")):
        values = 0.5 + random.rand(*shape)
    elif last.startswith(("beta", "moving_mean", "bias")):
        values = 0.2 * random.randn(*shape)
    elif last.startswith("scaling_factor"):  # of a quantised output, and positive
        values = abs(random.randn(*shape) * scale)
    else:
        fan = shape[0] * shape[1] if last.startswith("depthwise") else np.prod(shape[:-1])
        values = random.randn(*shape) * np.sqrt(2.0 / fan) * scale
    return np.asarray(values, dtype=np.float32)


def _read(path: Path, arrays: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as text:
            case = json.load(text)
    except (OSError, ValueError, EOFError, RecursionError, zlib.error) as error:
        raise _broken(path, error) from error
    parts = {"attrs": dict, "layers": list, "scales": dict, "options": dict}
    if not isinstance(case, dict) or not all(isinstance(case.get(k), kind) for k, kind in parts.items()):
        raise DataError("is no case", where=path, allowed=f"an object with {', '.join(parts)}")
    if missing := [name for name in NEEDED if name not in case["options"]]:
        found = f"no {', '.join(missing)}"
        raise DataError("lacks options", where=path, found=found, allowed=", ".join(NEEDED))
    try:
        with np.load(arrays) as file:
            expected = {name: torch.from_numpy(file[name]) for name in file.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise _broken(arrays, error) from error
    if missing := [name for name in ARRAYS if name not in expected]:
        found = f"no {', '.join(missing)}"
        raise DataError("lacks arrays", where=arrays, found=found, allowed=", ".join(ARRAYS))
    if (image := expected["image"]).ndim != 4:
        found = f"shape {tuple(image.shape)}"
        raise DataError("image is no batch of images", where=arrays, found=found, allowed="(B, C, H, W)")
    return case, expected


def _broken(path: Path, error: Exception) -> DataError:
    found = str(error).strip() or "it ends too early"
    return DataError("is broken", where=path, found=f"{type(error).__name__}: {found.splitlines()[0]}")


def _maker(
    options: Mapping[str, Any], in_channels: int, shown: Mapping[str, Any]
) -> tuple[Callable[[Mapping[str, int]], FasterRCNN], dict[str, object]]:
    """What makes the detector of a case from a channel plan, and what its file should show.

    Args:
        options: of the case.
        in_channels: of its image.
        shown: what its file shows.
    """
    network = {name: options[name] for name in NETWORK if name in options} | {"in_channels": in_channels}
    classes = options["num_classes_with_background"] - 1
    activation = options.get("activation") or options.get("activation_type")
    if isinstance(activation, Mapping):
        activation = activation.get("activation_type")
    activation = activation or shown.get("activation", "")
    stds = options.get("classifier_regr_std", (10.0, 10.0, 5.0, 5.0))
    heads = {
        "num_classes": classes,
        "anchor_scales": options["scale"],
        "anchor_ratios": options["ratio"],
        "roi_stds": [stds[key] for key in "xywh"] if isinstance(stds, Mapping) else stds,
        "rpn_std_scaling": options.get("std_scaling", 1.0),
    }

    def make(channels: Mapping[str, int]) -> FasterRCNN:
        backbone = build_backbone(options["arch"], **network, activation=activation, channels=channels)
        return FasterRCNN(backbone=backbone, channels=channels, **heads)

    anchors = len(options["scale"]) * len(options["ratio"])
    known = {"activation": activation or "swish", "num_classes": classes, "num_anchors": anchors}
    return make, network | known


def _compare(
    model: FasterRCNN, expected: Mapping[str, Tensor], options: Mapping[str, Any]
) -> Iterator[tuple[str, float, str, str]]:
    """Each stage. What ranks boxes takes the original's inputs: a last bit may swap two of them."""
    relative = partial(_relative, expected)
    image, rois = expected["image"], _xyxy(expected["rois"])
    input_size = (image.shape[2], image.shape[3])
    sizes = torch.tensor([input_size], dtype=torch.float32).expand(len(image), 2)
    features = model.feature_map(image)
    yield relative("feature map", "feature_map", features)
    output = model.rpn(features)
    yield relative("RPN class", "rpn_out_class", output.logits.sigmoid())
    yield relative("RPN box", "rpn_out_regress", output.deltas)

    # Proposals depend on the order of the scores alone; ranks keep it to the last bit, and ties too.
    ranks = torch.unique(expected["rpn_out_class"], return_inverse=True)[1].float()
    original = RpnOutput(8 * ranks / ranks.max().clamp(min=1) - 4, expected["rpn_out_regress"])
    settings = ProposalSettings(**_named(options, PROPOSAL))
    found = model.propose(original, model.anchors(features), sizes, settings=settings)
    boxes = _xyxy(expected["proposals"])
    yield "proposals", *_boxes(found.boxes, boxes, found.valid.sum(1), boxes.any(-1).sum(1))

    some = rois[:, : expected["crop"].shape[1]]
    yield relative("crop", "crop", model.crop(features, some, input_size=input_size))
    head = model.head(model.crop(features, rois, input_size=input_size))
    yield relative("head class", "dense_class", head.logits.softmax(-1))
    yield relative("head box", "dense_regress", head.deltas)

    scores, deltas = (expected[name].flatten(0, 1) for name in ("dense_class", "dense_regress"))
    detections = model.postprocess(
        RoiOutput(scores.log(), deltas),
        Proposals(rois, torch.ones(rois.shape[:2], dtype=torch.bool)),
        sizes,
        settings=DetectionSettings(**_named(options, DETECTION)),
    )
    count, used = expected["det_count"].flatten(), detections.labels >= 0
    difference, unit, note = _boxes(detections.boxes, _xyxy(expected["det_boxes"]), used.sum(1), count)
    if not note and not torch.equal(detections.labels[used], expected["det_classes"][used].long()):
        note = "other classes or another order"
    yield "detections", difference, unit, note
    yield relative("detection scores", "det_scores", detections.scores)


def _relative(
    expected: Mapping[str, Tensor], stage: str, name: str, found: Tensor
) -> tuple[str, float, str, str]:
    """The largest difference over the largest value."""
    values = expected[name]
    difference = (found.reshape(values.shape) - values).abs().max() / values.abs().max().clamp(min=1e-30)
    return stage, float(difference), "of scale", ""


def _boxes(found: Tensor, expected: Tensor, count: Tensor, expected_count: Tensor) -> tuple[float, str, str]:
    """The largest difference of two lists of boxes (B, N, 4) in the same order, unused ones 0."""
    if count.tolist() != expected_count.tolist():
        return float("nan"), "px", f"{int(count.sum())} boxes, {int(expected_count.sum())} expected"
    return float((found - expected).abs().max()), "px", ""


def _named(options: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {ours: options[name] for name, ours in names.items() if name in options}


def _xyxy(boxes: Tensor) -> Tensor:
    """TAO's y1 x1 y2 x2 in our order."""
    return boxes[..., [1, 0, 3, 2]]


def _table(stages: Sequence[Stage]) -> str:
    rows = [
        {
            "case": stage.case,
            "stage": stage.stage,
            "max difference": f"{stage.difference:.1e} {stage.unit}",
            "allowed": f"{TOLERANCE[stage.unit]:g}",
            "holds": stage.holds,
            "note": stage.note or None,
        }
        for stage in stages
    ]
    return render(rows_table(rows))

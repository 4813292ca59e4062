"""The work of `export`: a checkpoint in; an ONNX file, and all that runs it, out."""

import copy
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from frcnn import __version__, build, results
from frcnn.bridge.files import write_text
from frcnn.deploy import bundle
from frcnn.deploy.bundle import ModelCard
from frcnn.deploy.calibration_cache import calibration_cache, scales_json
from frcnn.deploy.graph import DetectionGraph, within_limits
from frcnn.deploy.needs import need
from frcnn.deploy.tensorrt import EngineSettings, build_engine
from frcnn.encryption import SUFFIX, needed_key, sealed
from frcnn.errors import RunError, SpecError
from frcnn.model.detector import FasterRCNN
from frcnn.ops.nms import NmsForm
from frcnn.parity import compare_models, refuse_parting, validation_batches, write_parity
from frcnn.quantization import Images, pictures, quantize_trained, training_images
from frcnn.spec.model import ImageSizeConfigHeightWidth
from frcnn.spec.run import App
from frcnn.spec.values import class_names
from frcnn.weights.checkpoint import Checkpoint

log = logging.getLogger(__name__)

FORMS: dict[str, NmsForm] = {"matrix": "matrix", "standard": "operator"}


def export_model(app: App, folder: Path) -> dict[str, Any]:
    """Export `run.model_path` as `export` says; detections are made as `inference_config` says.

    Args:
        app: settings; the size that the model is exported with becomes the model's own in them.
        folder: of the run.

    Returns:
        The content of results.json; `parity` in it says whether the file agrees with the checkpoint.

    Raises:
        WeightsError: the checkpoint cannot be used.
        SpecError: settings that cannot be exported, or a file that is there already.
        RunError: the export failed.
    """
    need("onnx", "onnxscript", "onnxruntime")
    options = app.export
    target = Path(options.output_file or folder / "model.onnx")
    if target.suffix != ".onnx":
        raise SpecError(
            "is no place for the model", where="export.output_file", found=target, allowed="NAME.onnx"
        )
    ending = SUFFIX if options.encrypt else ""
    if options.encrypt:
        needed_key(app.enc_key, where="export.encrypt")
    written = target.with_name(target.name + ending)
    if options.output_file and written.exists() and not app.run.overwrite:
        hint = "another name, or run.overwrite=true"
        raise SpecError("is there already", where="export.output_file", found=written, hint=hint)
    for field in ("cal_cache_file", "cal_json_file"):
        named_file = getattr(options, field)
        if named_file and Path(named_file).exists() and not app.run.overwrite:
            hint = "another name, or run.overwrite=true"
            raise SpecError("is there already", where=f"export.{field}", found=named_file, hint=hint)
    rounded = options.data_type == "int8"
    stored = Checkpoint(app.run.model_path)
    as_float = not rounded or options.force_ptq or "quantized" not in stored.traits
    detector = build.build_detector(app, plan=stored.channels)
    stored.load_into(detector, as_float=as_float)
    fix_size(app)
    loader = validation_batches(app) if options.parity else None
    settings, notices = within_limits(asked := build.detection_settings(app.inference_config))
    for notice in notices:
        log.warning("%s", notice)
    if rounded and as_float:
        calibrate(
            app, detector, ranges={} if options.force_ptq else stored.traits.get("activation_scales", {})
        )
    graph = DetectionGraph(
        detector,
        settings=settings,
        size=build.usual_size(app),
        channels=build.channels(app),
        pixels=build.pixels(app) if options.preprocess else None,
        half=options.data_type == "fp16",
        nms_form=FORMS[options.nms],
    )
    from frcnn.deploy import int8, onnx_file

    facts = {
        "size": list(graph.size),
        "channels": graph.channels,
        "batch": options.batch_size,
        "input": "pixels" if options.preprocess else "network",
        "data_type": options.data_type,
        "nms": options.nms,
        "opset": options.opset,
        "detections": asdict(settings),
        "asked": asdict(asked),
        "epochs": stored.epochs,
    }
    texts, card = results.stored_texts(app), model_card(app, target.name)
    log.info("exporting %s; this takes a while", app.run.model_path)
    model = onnx_file.export_onnx(graph, opset=options.opset, images=options.batch_size)
    named, beside = {target.name: (model, facts)}, dict[Path, str]()
    if rounded:
        plain, scales = int8.without_rounding(model)
        named = {target.name: (plain, facts | {"data_type": "fp32"}), _rounded(target).name: (model, facts)}
        cache, ranges = Path(options.cal_cache_file or "cal.bin"), Path(options.cal_json_file or "cal.json")
        beside = {cache: calibration_cache(scales, version=options.cal_version)}
        beside |= {ranges: scales_json(scales)}
        card = replace(card, cache=str(cache))
    results.store_settings(app, folder)
    with _together(target.parent) as made:
        for name, (graph_made, known) in named.items():
            metadata = {**texts, "graph": json.dumps(known), "version": __version__}
            content = onnx_file.with_metadata(graph_made, metadata).SerializeToString()
            if options.encrypt:
                content = sealed(content, app.enc_key, where=target.parent / name)
            (made / f"{name}{ending}").write_bytes(content)
        for name, text in bundle.files(card).items():
            write_text(made / name, text)
        for place, text in beside.items():
            write_text(made / place, text)  # an absolute place is its own
        write_text(made / "spec.txt", texts["spec"])
    log.info("%s and what belongs to it in %s", written.name, target.parent)
    compared: dict[str, Any] = {}
    if options.parity:
        pair = [app.run.model_path, str(written)]
        compared["parity"] = compare_models(app, pair, loader=loader, as_float=True)
        write_parity(compared["parity"], target.parent)
    if options.parity and rounded:
        pair = [app.run.model_path, f"{_rounded(target)}{ending}"]
        compared["parity_int8"] = compare_models(app, pair, loader=loader, as_float=as_float)
        write_parity(compared["parity_int8"], target.parent, stem="parity_int8")
    if options.engine_file and all(found["agree"] for found in compared.values()):
        _build_engine(app, Path(f"{_rounded(target) if rounded else target}{ending}"))
    parameters = sum(
        tensor.numel() for tensor in detector.state_dict().values() if tensor.is_floating_point()
    )
    return {
        "schema": 1,
        "command": "export",
        "model": app.run.model_path,
        "exported": [str(target.parent / f"{name}{ending}") for name in named],
        "graph": facts,
        "notices": notices,
        "parity": compared.get("parity"),
        "parity_int8": compared.get("parity_int8"),
        "kpi": {"param_count": parameters / 1e6, "size": written.stat().st_size / 2**20},
        "versions": results.versions() | onnx_file.versions(),
    }


def refuse_parted(found: Mapping[str, Any], folder: Path) -> None:
    """Stop if an exported graph parts from its checkpoint.

    Args:
        found: of `export_model`.
        folder: of the export.

    Raises:
        RunError: it does.
    """
    for name in ("parity", "parity_int8"):
        if found[name] is not None:
            refuse_parting(found[name], folder, stem=name)


def _build_engine(app: App, graph: Path) -> None:
    options = app.export
    settings = EngineSettings(
        precision=options.data_type,
        workspace=options.max_workspace_size,
        min_batch=options.min_batch_size,
        opt_batch=options.opt_batch_size,
        max_batch=options.max_batch_size,
        strict_types=options.strict_type_constraints,
    )
    log.info("building %s", options.engine_file)
    record = build_engine(graph, options.engine_file, settings=settings, key=app.enc_key)
    log.info("built with %s %s in %.0f s", record.library, record.version, record.seconds)


def calibrate(app: App, detector: FasterRCNN, *, ranges: Mapping[str, float]) -> None:
    """Quantise a detector in place with the images that the settings name: a tensorfile, a folder, or those
    of the training.

    Args:
        app: settings; of one input size.
        detector: in float.
        ranges: those that are known.

    Raises:
        DataError: there are no such images.
        SpecError: as `frcnn.quantization.quantize_trained`.
    """
    from frcnn.deploy import int8

    options = app.export
    app = copy.deepcopy(app)
    app.quantize.batches, app.quantize.image_dir = options.batches, options.cal_image_dir
    app.training_config.batch_size_per_gpu = options.cal_batch_size
    app.training_config.enable_augmentation = False
    stored = Path(options.cal_data_file) if options.cal_data_file else None

    def drawn() -> Iterator[Images]:
        if options.cal_image_dir:
            return pictures(app, detector)
        build.locate_data(app, app.run)
        return training_images(app, build.build_data(app, app.run, num_workers=0))

    def filed(path: Path) -> Iterator[Images]:
        for images in islice(int8.read_tensorfile(path), options.batches):
            yield images, torch.tensor([[float(side) for side in images.shape[-2:]]]).repeat(len(images), 1)

    if stored is not None and not stored.exists():
        log.info("writing %s", stored)
        images = torch.cat([images for images, _ in drawn()])
        int8.write_tensorfile(stored, torch.split(images, min(options.cal_batch_size, len(images))))
    batches = drawn if stored is None else partial(filed, stored)
    rows = quantize_trained(app, detector, batches, ranges=ranges)
    log.info("rounding costs most in %s", ", ".join(str(row["layer"]) for row in rows[:3]))


def check_settings(app: App) -> None:
    """Stop now if an export at the end of a long training would.

    Raises:
        SpecError: as `fix_size`.
        RunError: a package is missing.
    """
    need("onnx", "onnxscript", "onnxruntime")
    fix_size(copy.deepcopy(app))


def fix_size(app: App) -> None:
    """Give a model of varying input the one size that `export.height` and `export.width` name.

    Raises:
        SpecError: they are missing, or name a size that the model does not have.
    """
    image, options, pre = (
        app.model_config.input_image_config,
        app.export,
        app.augmentation_config.preprocessing,
    )
    asked = (options.height, options.width)
    if own := image.size_height_width:
        if any(asked) and asked != (own.height, own.width):
            found, allowed = "x".join(map(str, asked)), f"{own.height}x{own.width}, or nothing"
            raise SpecError("the model has another size", where="export.height", found=found, allowed=allowed)
        return
    if min(asked) < 128:
        raise SpecError(
            "the model takes images of any size, an exported graph of one",
            where="export.height and export.width",
            found=f"{options.height} and {options.width}",
            allowed="at least 128 each",
            hint="the size of most images, such as export.height=384 export.width=1248",
        )
    image.size_min, image.size_height_width = None, ImageSizeConfigHeightWidth(*asked)
    app.augmentation_config.preprocessing = replace(
        pre, output_image_height=asked[0], output_image_width=asked[1], enable_auto_resize=True,
        output_image_min=0, output_image_max=0,
    )  # fmt: skip
    log.warning("images will be stretched to %dx%d, whatever their shape", asked[1], asked[0])


def model_card(app: App, name: str) -> ModelCard:
    """What the files beside the model say of it."""
    image, pre = app.model_config.input_image_config, app.augmentation_config.preprocessing
    means, bgr = build.means(app), build.is_bgr(app)
    moved = (pre.scale_height, pre.scale_width, pre.crop_left, pre.crop_top)
    return ModelCard(
        name=name,
        class_names=class_names(app.dataset_config),
        size=build.usual_size(app),
        means=means[::-1] if bgr else means,
        scale=image.image_scaling_factor,
        colours="gray" if build.channels(app) == 1 else "bgr" if bgr else "rgb",
        batch=app.export.batch_size,
        data_type=app.export.data_type,
        pixels=app.export.preprocess,
        threshold=app.inference_config.bbox_visualize_threshold,
        stretched=pre.enable_auto_resize and not any(moved),
    )


def _rounded(target: Path) -> Path:
    return target.with_name(f"{target.stem}_int8.onnx")


@contextmanager
def _together(folder: Path) -> Iterator[Path]:
    """A folder whose files all come to another once they are all there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as made:
            yield Path(made)
            for file in Path(made).iterdir():
                file.replace(folder / file.name)
    except OSError as error:
        raise RunError("cannot be written", where=folder, found=error.strerror or error) from error

"""The work of `export`: a checkpoint in; an ONNX file, and all that runs it, out."""

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from frcnn import __version__, build, results
from frcnn.bridge.files import write_text
from frcnn.deploy import bundle
from frcnn.deploy.bundle import ModelCard
from frcnn.deploy.graph import DetectionGraph, within_limits
from frcnn.deploy.needs import need
from frcnn.errors import RunError, SpecError
from frcnn.ops.nms import NmsForm
from frcnn.parity import compare_models, write_parity
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
    if options.output_file and target.exists() and not app.run.overwrite:
        hint = "another name, or run.overwrite=true"
        raise SpecError("is there already", where="export.output_file", found=target, hint=hint)
    stored = Checkpoint(app.run.model_path)
    detector = build.build_detector(app, plan=stored.channels)
    stored.load_into(detector)
    fix_size(app)
    asked = build.detection_settings(app.inference_config)
    settings, notices = within_limits(asked)
    for notice in notices:
        log.warning("%s", notice)
    graph = DetectionGraph(
        detector,
        settings=settings,
        size=build.usual_size(app),
        channels=build.channels(app),
        pixels=build.pixels(app) if options.preprocess else None,
        half=options.data_type == "fp16",
        nms_form=FORMS[options.nms],
    )
    from frcnn.deploy import onnx_file

    texts, card = results.stored_texts(app), model_card(app, target.name)
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
    metadata = {**texts, "graph": json.dumps(facts), "version": __version__}
    log.info("exporting %s; this takes a while", app.run.model_path)
    model = onnx_file.export_onnx(graph, opset=options.opset, images=options.batch_size, metadata=metadata)
    results.store_settings(app, folder)
    with _together(target.parent) as made:
        (made / target.name).write_bytes(model.SerializeToString())
        for name, text in bundle.files(card).items():
            write_text(made / name, text)
        write_text(made / "spec.txt", texts["spec"])
    log.info("%s and what belongs to it in %s", target.name, target.parent)
    compared = None
    if options.parity:
        compared = compare_models(app, [app.run.model_path, str(target)])
        write_parity(compared, target.parent)
    parameters = sum(
        tensor.numel() for tensor in detector.state_dict().values() if tensor.is_floating_point()
    )
    return {
        "schema": 1,
        "command": "export",
        "model": app.run.model_path,
        "exported": str(target),
        "graph": facts,
        "notices": notices,
        "parity": compared,
        "kpi": {"param_count": parameters / 1e6, "size": target.stat().st_size / 2**20},
        "versions": results.versions() | onnx_file.versions(),
    }


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

"""Import of a whole TAO detector, as `scripts/import_weights.py` offers it."""

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from frcnn import build, results
from frcnn.bridge.assign import assign
from frcnn.bridge.convert import read_spec
from frcnn.bridge.document import Document
from frcnn.encryption import SUFFIX, VARIABLE, model_suffix, needed_key
from frcnn.errors import SpecError
from frcnn.exits import exit_code
from frcnn.model.backbones import BACKBONES
from frcnn.spec.check import check
from frcnn.spec.fields import REQUIRED, settings_of
from frcnn.spec.fields import build as build_message
from frcnn.spec.model import ImageSizeConfigHeightWidth, ModelConfig
from frcnn.spec.run import App, Run
from frcnn.spec.values import class_names
from frcnn.status import reported
from frcnn.weights.checkpoint import Checkpoint, save_detector
from frcnn.weights.importer import Imported, guess, import_detector, look
from frcnn.weights.keras_hdf5 import SUFFIXES, KerasFile, read_hdf5
from frcnn.weights.sources import is_name, load_pretrained

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `import_weights`; returns the exit code."""
    arguments = _parser().parse_intermixed_args(argv)
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.INFO)
    logging.getLogger("frcnn").setLevel(logging.INFO)
    return exit_code(lambda: _run(arguments), debug=arguments.verbose, hint="-v shows where this came from")


def _run(arguments: argparse.Namespace) -> None:
    items = [item for item in arguments.overrides if not item.startswith("spec=")]
    specs = [item.removeprefix("spec=") for item in arguments.overrides if item.startswith("spec=")]
    specs += [arguments.spec] if arguments.spec else []
    if len(specs) > 1:
        raise SpecError("one spec at a time", where="command line", found=", ".join(specs))
    if arguments.key:
        os.environ[VARIABLE] = arguments.key
        if SUFFIX not in (Path(arguments.source).suffix, Path(arguments.target).suffix):
            log.info("the key is not used: it is for .ckpt.enc, and TAO's own files have to be decoded first")
    with reported(
        arguments.results_dir, start="Starting import.", end="Import finished successfully."
    ) as kpi:
        imported = import_weights(
            arguments.source,
            arguments.target,
            spec=next(iter(specs), ""),
            items=items,
            overwrite=arguments.overwrite,
        )
        parameters = sum(parameter.numel() for parameter in imported.detector.parameters())
        # TAO: millions and MiB, as its prune and export report them.
        kpi |= {"param_count": parameters / 1e6, "size": Path(arguments.target).stat().st_size / 2**20}
    sys.stdout.write(imported.report.table() + "\n")
    log.info("written: %s", arguments.target)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="import_weights",
        description="Make a checkpoint of a whole TAO detector (.hdf5, or a .h5 of weights alone), or of a "
        "backbone's weights: .pth, .pt, .safetensors, torchvision:NAME, timm:NAME, or a checkpoint. "
        "The network's settings that the file shows have to agree with the spec's; classes, anchors and the "
        "normalisation of the input are the spec's.",
        epilog="example: import_weights model.epoch_12.hdf5 model.ckpt spec=their_spec.txt, "
        "then evaluate.py model_path=model.ckpt",
    )
    parser.add_argument("source", metavar="IN", help="model file")
    parser.add_argument(
        "target",
        metavar="OUT.ckpt",
        help="checkpoint to write; OUT.ckpt.enc: encrypted",
    )
    parser.add_argument("-e", "--spec", metavar="FILE", help="experiment spec; spec=FILE is the same")
    parser.add_argument("-k", "--key", metavar="KEY", help="of an encrypted checkpoint, to read or to write")
    parser.add_argument("-r", "--results_dir", metavar="DIR", type=Path, help="for status.json")
    parser.add_argument("-v", "--verbose", action="store_true", help="stack traces of errors")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.ckpt if it is there")
    parser.add_argument("overrides", nargs="*", default=[], metavar="path=value", help="settings to change")
    return parser


def import_weights(
    source: str, target: str, *, spec: str, items: Sequence[str] = (), overwrite: bool = False
) -> Imported:
    """Read a detector's file, build its network and write both as a checkpoint.

    Args:
        source: a Keras file of TAO's, or whatever `load_pretrained` takes.
        target: .ckpt file to write, or .ckpt.enc.
        spec: experiment that the network belongs to; arch, crop size and input size may be left out where
            the file shows them. A checkpoint has its own, which is taken where this is empty.
        items: `path=value` over the spec.
        overwrite: replace `target` if it is there.

    Raises:
        SpecError: no spec, or one that cannot be used; or a target that cannot be written or is there.
        WeightsError: the file cannot be used, or says otherwise than the spec.
        RunError: the checkpoint cannot be written.
    """
    _check_target(source, Path(target), overwrite=overwrite)
    suffix = "" if is_name(source) else model_suffix(source)
    if suffix == ".ckpt":
        return _import_checkpoint(source, target, spec=spec, items=items)
    if suffix not in SUFFIXES:
        return _import_start(source, target, spec=spec, items=items)
    file = read_hdf5(source)
    if not spec:
        raise _spec_needed(file)
    app = _checked(read_spec(spec), items, file)
    model = app.model_config
    expected = {
        "use_bias": model.use_bias,
        "all_projections": model.all_projections,
        "use_pooling": model.use_pooling,
        "pool_size": model.roi_pooling_config.pool_size,
        "pool_size_2x": model.roi_pooling_config.pool_size_2x,
        "activation": (model.activation.activation_type if model.activation else "") or "swish",
        "in_channels": build.channels(app),
        "num_classes": len(class_names(app.dataset_config)),
        "num_anchors": len(model.anchor_box_config.scale) * len(model.anchor_box_config.ratio),
    }
    imported = import_detector(
        file, lambda plan: build.build_detector(app, plan=plan), arch=model.arch, expected=expected
    )
    if imported.pruned:
        log.info("%s is pruned: its channel plan is kept", source)
    if file.relu6:
        log.warning(
            "%s was trained for quantisation: its activations end at 6, here too, and nothing is quantised. "
            "%d activation scales are kept with the checkpoint",
            *(source, len(file.activation_scales)),
        )
    return _saved(imported, target, app)


def _check_target(source: str, target: Path, *, overwrite: bool) -> None:
    """Stop before the work where its result could not be kept."""
    where = "OUT.ckpt"
    if model_suffix(target) != ".ckpt":
        allowed = "NAME.ckpt or NAME.ckpt.enc"
        raise SpecError("is no name of a checkpoint", where=where, found=target, allowed=allowed)
    if target.suffix == SUFFIX:
        needed_key(where=target)
    if not is_name(source) and Path(source).resolve() == target.resolve():
        raise SpecError("IN and OUT.ckpt are the same file", where=where, found=target)
    if target.is_dir():
        raise SpecError("is a folder", where=where, found=target, allowed="a file name")
    if target.exists() and not overwrite:
        hint = "another name, or --overwrite to replace it"
        raise SpecError("is there already", where=where, found=target, hint=hint)
    nearest = next(folder for folder in target.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        found = f"{target}: {error.strerror}"
        raise SpecError("cannot be written", where=where, found=found, hint="choose another place") from None


def _saved(imported: Imported, target: str, app: App) -> Imported:
    stored = {**results.stored_texts(app), "imported": imported.report.to_dict(), **imported.traits}
    save_detector(imported.detector, target, stored=stored)
    return imported


def _import_checkpoint(source: str, target: str, *, spec: str, items: Sequence[str]) -> Imported:
    """Make a checkpoint of one of ours, whose settings are its own or those of a spec."""
    stored = Checkpoint(source)
    own = stored.document()
    document = read_spec(spec) if spec else own
    app = _checked(document, items)
    if spec:
        app.run.stride_on_3x3 = bool(own.extra["run"].get("stride_on_3x3"))
    else:
        app.run = build_message(Run, own.extra["run"])
    detector = build.build_detector(app, plan=stored.channels)
    return _saved(Imported(detector, stored.load_into(detector), False, stored.traits), target, app)


def _import_start(source: str, target: str, *, spec: str, items: Sequence[str]) -> Imported:
    """Make a checkpoint of weights that are no detector's: what they lack starts as in a training."""
    if not spec:
        raise SpecError("needs a spec: these are weights of a backbone", where=source, hint="spec=FILE")
    app = _checked(read_spec(spec), items)
    torch.manual_seed(app.random_seed)
    detector = build.build_detector(app)
    report = load_pretrained(detector, source, target=build.imagenet_target(app))
    return _saved(Imported(detector, report, pruned=False, traits={}), target, app)


def _spec_needed(file: KerasFile) -> SpecError:
    archs = guess(file)
    shown = {"arch": " or ".join(archs) or "unknown", **(look(file, archs[0])[1] if archs else {})}
    return SpecError(
        "needs a spec: the file knows neither the classes' names nor how its input is normalised, and its "
        "anchor ratios are roots of the true ones",
        where=file.path,
        found=", ".join(f"{name} {value}" for name, value in shown.items()),
        hint="spec=FILE, the one that the network was trained with, or another with its "
        "anchor_box_config, image_channel_mean and target_class_mapping",
    )


def _fill_in(model: ModelConfig, file: KerasFile) -> None:
    """Take from the file what the spec leaves open, and say so."""
    if model.arch == REQUIRED:
        archs = guess(file)
        if len(archs) != 1:
            found = " or ".join(archs) or "none"
            raise SpecError("which one?", where="model_config.arch", found=f"{found} fits {file.path}")
        model.arch = archs[0]
        log.info("model_config.arch is %s by the file's layers", model.arch)
    if model.arch not in BACKBONES:
        return  # the check names it
    shown, pool, image = look(file, model.arch)[1], model.roi_pooling_config, model.input_image_config
    if pool.pool_size == REQUIRED and "pool_size" in shown:
        pool.pool_size, pool.pool_size_2x = shown["pool_size"], shown.get("pool_size_2x", pool.pool_size_2x)
        log.info("model_config.roi_pooling_config is %s by the file", pool)
    if "input_size" not in shown:
        return
    height, width = shown["input_size"]
    size = image.size_height_width
    if size is None and image.size_min is None:
        image.size_height_width = ImageSizeConfigHeightWidth(height=height, width=width)
        log.info("model_config.input_image_config.size_height_width is %s by %s by the file", height, width)
    elif size is not None and (size.height, size.width) != (height, width):
        log.warning(
            "the file is of a network for %s x %s, the spec says %s x %s",
            height,
            width,
            size.height,
            size.width,
        )


def _checked(document: Document, items: Sequence[str], file: KerasFile | None = None) -> App:
    """The settings of an import: a spec, `path=value` over it, and what a file shows of the rest."""
    changed = [assign(document.spec, item) for item in items]
    if file is not None:
        _fill_in(document.spec.model_config, file)
    check(document.spec, locate=_locator(document, changed))
    return _app(document)


def _locator(document: Document, changed: Sequence[str]) -> Callable[[str], str]:
    def locate(path: str) -> str:
        typed = any(path == key or path.startswith(f"{key}.") for key in changed)
        return f"command line: {path}" if typed else document.locate(path)

    return locate


def _app(document: Document) -> App:
    """The spec as a run has it; paths in it are relative to its folder."""
    spec, source = document.spec, Path(document.source).resolve()
    run = Run(source=source.stem, spec_folder=str(source.parent))
    return App(**{field.name: getattr(spec, field.name) for field in settings_of(type(spec))}, run=run)

"""Conversion of a data set to TFRecords, as `scripts/convert_dataset.py` offers it."""

import argparse
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from frcnn.bridge import prototxt, yaml
from frcnn.bridge.assign import assign
from frcnn.bridge.convert import format_of, read_spec_as
from frcnn.bridge.files import write_text
from frcnn.errors import RunError, SpecError
from frcnn.exits import exit_code
from frcnn.folder import logged
from frcnn.paths import PathFinder, load_mounts
from frcnn.spec.check import check_export
from frcnn.spec.dataset_export import COCOConfig, DatasetExportConfig, KITTIConfig
from frcnn.spec.fields import walk
from frcnn.status import reported

if TYPE_CHECKING:
    from frcnn.data.convert.pipeline import Plan, Summary
    from frcnn.data.convert.sample_modifier import SampleModifier

log = logging.getLogger(__name__)

START, END = "Starting conversion.", "Conversion finished successfully."

OPTIONS = {
    "run.allow_label_scores=true": "--allow-scores",
    "run.mounts={/workspace/tao-experiments: /data/tao}": "--mount /workspace/tao-experiments=/data/tao",
}
"""How other commands spell our options, as their messages do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `convert_dataset`; returns the exit code."""
    arguments = _parser().parse_intermixed_args(argv)
    return exit_code(lambda: _run(arguments), debug=arguments.verbose, wording=_in_our_words)


def _in_our_words(text: str) -> str:
    for other, ours in OPTIONS.items():
        text = text.replace(other, ours)
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convert_dataset",
        description="Convert a KITTI or COCO data set to the TFRecords of TAO's dataset_convert.",
        epilog="example: convert_dataset -d kitti.txt -o records/train kitti_config.val_split=20, "
        "then train with tfrecords_path: 'records/train*'",
    )
    add = parser.add_argument
    spec = ("-d", "--dataset_spec", "--dataset_export_spec")
    add(*spec, dest="spec", metavar="SPEC", required=True, help="dataset_convert spec, prototxt or YAML")
    add(
        "-o",
        "--output_filename",
        dest="output",
        metavar="OUT",
        required=True,
        help="folder and stem of the files",
    )
    fold = "fold that the sample modifier leaves as it is"
    add("-f", "--validation_fold", dest="fold", metavar="N", type=int, help=fold)
    add("-r", "--results_dir", dest="results", metavar="DIR", type=Path, help="folder for the report")
    add("-v", "--verbose", action="store_true", help="tell more, with stack traces of errors")
    add("--allow-missing-labels", action="store_true", help="images without a label file have no objects")
    add("--allow-scores", action="store_true", help="accept labels with a 16th column, a detector's output")
    add("--mount", action="append", default=[], metavar="FROM=TO", help="where a container's path is here")
    add("--processes", type=_positive, default=os.cpu_count() or 1, metavar="N", help="default: one per core")
    add("overrides", nargs="*", metavar="path=value", help="settings to change, kitti_config.val_split=20")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number


def _run(arguments: argparse.Namespace) -> None:
    spec, locate = _read(arguments.spec, arguments.overrides)
    check_export(spec, locate=locate)
    output = Path(arguments.output)
    if not output.name or output.name == ".." or arguments.output.endswith("/"):
        hint = f"{Path(arguments.output) / 'train'}"
        raise SpecError("needs a file name, not a folder", where="-o", found=arguments.output, hint=hint)
    _check_fold(spec, arguments.fold)
    finder = _finder(arguments)
    with _logging(arguments.results, verbose=arguments.verbose):
        for path, field, value in walk(spec):
            if field.inert and value != field.default:
                log.info("%s has no effect: %s", path, field.inert)
        _convert(spec, output, finder, arguments)


def _convert(
    spec: DatasetExportConfig, output: Path, finder: PathFinder, arguments: argparse.Namespace
) -> None:
    """Plan, write, report."""
    from frcnn.data.convert.pipeline import write_set

    start = time.perf_counter()
    plan = _plan(spec, finder, arguments)
    modifier = _modifier(spec, arguments.fold)
    with _progress(sum(map(len, plan.partitions))) as advance:
        summary = write_set(plan, output, modifier=modifier, processes=arguments.processes, advance=advance)
    warnings = _report(spec, plan, summary, output, arguments.fold)
    if arguments.results is not None:
        _store(arguments, spec, plan, summary, warnings, output, time.perf_counter() - start)


def _read(path: str, overrides: Sequence[str]) -> tuple[DatasetExportConfig, Callable[[str], str]]:
    """The spec with the settings of the command line, and where its values stand."""
    document = read_spec_as(DatasetExportConfig, path)
    changed = [assign(document.spec, item) for item in overrides]

    def locate(path: str) -> str:
        typed = any(path == key or path.startswith(f"{key}.") for key in changed)
        return f"command line: {path}" if typed else document.locate(path)

    return document.spec, locate


def _check_fold(spec: DatasetExportConfig, fold: int | None) -> None:
    data = spec.kitti_config or spec.coco_config
    count = max(data.num_partitions, 1) if data else 1
    if fold is not None and not 0 <= fold < count:
        raise SpecError("there is no such fold", where="-f", found=fold, allowed=f"0 to {count - 1}")
    if fold is not None and count == 1 and spec.sample_modifier_config.max_training_samples:
        where, hint = "sample_modifier_config.max_training_samples", "leave out -f"
        raise SpecError("limits the training folds, and -f names the only one", where=where, hint=hint)


def _finder(arguments: argparse.Namespace) -> PathFinder:
    mounts = {}
    for item in arguments.mount:
        source, equals, target = item.partition("=")
        if not (source and equals and target):
            allowed = "FROM=TO, such as /workspace/tao-experiments=/data/tao"
            raise SpecError("is no mount", where="--mount", found=item, allowed=allowed)
        mounts[source] = target
    return PathFinder(spec_folder=str(Path(arguments.spec).parent), mounts=load_mounts(mounts))


def _plan(spec: DatasetExportConfig, finder: PathFinder, arguments: argparse.Namespace) -> "Plan":
    """The images of each file; importing the readers takes longer than a refusal should."""
    kitti, coco = spec.kitti_config, spec.coco_config
    if kitti is not None:
        return _plan_kitti(kitti, finder, arguments)
    if coco is None:
        raise SpecError("there is no data set to convert", where="kitti_config")
    from frcnn.data.convert.coco import plan_coco

    shards = coco.num_shards * (coco.num_partitions if len(coco.num_shards) == 1 else 1)
    return plan_coco(
        root=finder.find(_root(coco), field="coco_config.root_directory_path"),
        folders=coco.img_dir_names,
        files=coco.annotation_files,
        partitions=coco.num_partitions,
        shards=shards,
    )


def _plan_kitti(kitti: KITTIConfig, finder: PathFinder, arguments: argparse.Namespace) -> "Plan":
    from frcnn.data.convert.kitti import KittiReader, plan_random, plan_sequences

    extension = kitti.image_extension or ".png"
    reader = KittiReader(
        root=finder.find(_root(kitti), field="kitti_config.root_directory_path"),
        images=kitti.image_dir_name,
        labels=kitti.label_dir_name,
        extension=extension if extension.startswith(".") else f".{extension}",
        point_clouds=kitti.point_clouds_dir,
        calibrations=kitti.calibrations_dir,
        allow_missing=arguments.allow_missing_labels,
        allow_scores=arguments.allow_scores,
    )
    if kitti.partition_mode == "random":
        return plan_random(reader, val_split=kitti.val_split, shards=kitti.num_shards)
    return plan_sequences(
        reader,
        file=kitti.kitti_sequence_to_frames_file,
        partitions=kitti.num_partitions,
        shards=kitti.num_shards,
    )


def _root(data: KITTIConfig | COCOConfig) -> str:
    """TAO: an empty root is the folder that relative ones start from."""
    return data.root_directory_path or os.environ.get("DATA_BASE_PATH") or "."


def _modifier(spec: DatasetExportConfig, fold: int | None) -> "SampleModifier":
    from frcnn.data.convert.sample_modifier import SampleModifier

    config, data = spec.sample_modifier_config, spec.kitti_config or spec.coco_config
    limit = None
    if config.max_training_samples and data is not None:
        limit = config.max_training_samples // (data.num_partitions - (fold is not None))
    return SampleModifier(
        class_mapping=config.source_to_target_class_mapping,
        filter_only=config.filter_samples_containing_only,
        dominant=config.dominant_target_classes,
        imbalance=config.minimum_target_class_imbalance,
        num_duplicates=config.num_duplicates,
        limit=limit,
        validation_fold=fold,
    )


def _report(
    spec: DatasetExportConfig, plan: "Plan", summary: "Summary", output: Path, fold: int | None
) -> list[str]:
    """Log the table and everything that the user should know; returns the warnings."""
    from frcnn.data.readers.shards import WARNING_SUFFIX
    from frcnn.report.conversion import conversion_table
    from frcnn.report.tables import render

    title = f"{output}: {sum(f.images for f in summary.folds):,} images in {summary.files:,} record files"
    log.info("%s", render(conversion_table(summary, title=title)))
    validates = 0 if fold is None else fold
    if len(summary.folds) == 2 and validates < 2:
        trains = 1 - validates
        log.info(
            "validation_fold: %d trains on fold %03d and validates on fold %03d", validates, trains, validates
        )
    log.info("tfrecords_path: '%s'", f"{output.absolute()}{'-*' if plan.folds or any(plan.shards) else ''}")
    if summary.skipped:
        log.info("objects without area are listed in %s%s", output, WARNING_SUFFIX)
    warnings = list(plan.warnings)
    if summary.empty_files:
        warnings.append(
            f"{summary.empty_files} of {summary.files} files are empty: there are more shards than records, "
            "and the original cannot train where the first file is empty. Lower num_shards"
        )
    if plan.missing_labels:
        names = ", ".join(plan.missing_labels[:10]) + ", ..." * (len(plan.missing_labels) > 10)
        warnings.append(f"{len(plan.missing_labels)} images have no label file and so no objects: no {names}")
    if foreign := [name for name in summary.classes if not name.isascii()]:
        warnings.append(
            f"class names with other letters than ASCII are kept as they are: {', '.join(foreign)}. "
            "The original fails on them or leaves letters out"
        )
    if lost := [number for number, found in enumerate(summary.folds) if not found.records]:
        warnings.append(f"no records are left in fold {', '.join(f'{number:03d}' for number in lost)}")
    changed = [f.copies or f.filtered or f.cut for f in summary.folds]
    if fold is None and len(changed) > 1 and any(changed):
        warnings.append(
            "the sample modifier changed every fold, also the one to validate on; -f 0 spares fold 000"
        )
    modifier = spec.sample_modifier_config
    targets = {*modifier.source_to_target_class_mapping.values()}
    if unknown := [name for name in modifier.minimum_target_class_imbalance if name not in targets]:
        warnings.append(f"minimum_target_class_imbalance of {', '.join(unknown)} is of no target class")
    if fold is not None and fold >= len(summary.folds):
        warnings.append(f"-f {fold}: no file is of fold {fold:03d}, so no fold was left as it is")
    elif fold is not None and len(summary.folds) < plan.folds:
        warnings.append(
            f"-f {fold}: a partition is empty and has no number, so fold {fold:03d} may be training data; "
            "the sample modifier left it as it is"
        )
    for warning in warnings:
        log.warning("warning: %s", warning)
    return warnings


def _store(
    arguments: argparse.Namespace,
    spec: DatasetExportConfig,
    plan: "Plan",
    summary: "Summary",
    warnings: list[str],
    output: Path,
    seconds: float,
) -> None:
    """results.json and the settings in the results folder."""
    from frcnn.report.conversion import to_dict

    results = {
        "schema": 1,
        "command": "convert_dataset",
        "output": str(output.absolute()),
        **to_dict(summary),
        "missing_labels": plan.missing_labels,
        "warnings": warnings,
        "seconds": seconds,
        "versions": {"python": platform.python_version(), "frcnn": version("frcnn")},
    }
    folder = arguments.results
    write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
    is_text = format_of(arguments.spec) == "prototxt"
    write_text(folder / ("spec.txt" if is_text else "spec.yaml"), (prototxt if is_text else yaml).dumps(spec))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal; yields what advances it by an image."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    task = bar.add_task("converting", total=total)

    def advance() -> None:
        if not bar.live.is_started:  # after the readers were started, which threads would disturb
            bar.start()
        bar.advance(task)

    try:
        yield advance if console.is_terminal else lambda: None
    finally:
        bar.stop()


@contextmanager
def _logging(folder: Path | None, *, verbose: bool) -> Iterator[None]:
    """Messages on the console and, with a results folder, in its log.txt and status.json."""
    if folder is None:
        package, console = logging.getLogger("frcnn"), logging.StreamHandler()
        package.setLevel(logging.DEBUG if verbose else logging.INFO)
        package.addHandler(console)
        try:
            yield
        finally:
            package.removeHandler(console)
        return
    if (folder / "config.yaml").exists():
        raise SpecError("the folder holds a training run", where=folder, hint="-r ANOTHER_FOLDER")
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(logged(folder, debug=verbose))
        except OSError as error:
            raise RunError("the results cannot be written", where=folder, found=error.strerror) from error
        stack.enter_context(reported(folder, start=START, end=END))
        yield

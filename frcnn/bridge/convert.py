"""Conversion of a spec between prototxt and YAML, as `scripts/convert_spec.py` offers it."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from frcnn.bridge import prototxt, yaml
from frcnn.bridge.document import Document, Parsed, Root, root_of
from frcnn.bridge.files import read_text, write_text
from frcnn.errors import FrcnnError, SpecError
from frcnn.spec.check import check, check_export
from frcnn.spec.dataset_export import DatasetExportConfig
from frcnn.spec.experiment import Experiment
from frcnn.spec.fields import Message
from frcnn.status import reported

log = logging.getLogger(__name__)

FORMATS = {**dict.fromkeys(prototxt.SUFFIXES, "prototxt"), **dict.fromkeys(yaml.SUFFIXES, "yaml")}
CHECKS: dict[type[Message], Callable[..., None]] = {Experiment: check, DatasetExportConfig: check_export}
OTHER = {"prototxt": "yaml", "yaml": "prototxt"}


def read_spec(path: str | Path) -> Document:
    """Read an experiment of either format, told apart by the file's suffix.

    Raises:
        SpecError: an unknown suffix, or what the format's reader refuses.
    """
    return read_spec_as(Experiment, path)


def read_spec_as(root: type[Root], path: str | Path) -> Parsed[Root]:
    """`read_spec` for any kind of spec."""
    return _parse_as(root, read_text(path), format_of(path), str(path))


def write_spec(spec: Experiment, path: str | Path) -> None:
    """Write an experiment in the format that the file's suffix names.

    Raises:
        SpecError: an unknown suffix.
        RunError: the file cannot be written.
    """
    write_text(path, prototxt.dumps(spec) if format_of(path) == "prototxt" else yaml.dumps(spec))


def format_of(path: str | Path) -> str:
    """`prototxt` or `yaml`, by the suffix of a file name."""
    try:
        return FORMATS[Path(path).suffix.lower()]
    except KeyError:
        raise SpecError("is no spec file", where=path, allowed=f"a suffix of {', '.join(FORMATS)}") from None


def convert(source: str, target: str, *, full: bool = False, validate: bool = True) -> None:
    """Convert an experiment or a dataset_convert spec, told apart by their blocks.

    The suffixes choose the formats, and `-` is standard input or output.

    Args:
        source: file to read.
        target: file to write.
        full: write every value to YAML, not only those that differ from the defaults.
        validate: refuse what `train` or `convert_dataset` would refuse, paths aside.

    Raises:
        SpecError: the spec cannot be read or, with `validate`, not be used.
        RunError: the target cannot be written.
    """
    if source == target == "-":
        raise SpecError("one side needs a file name, whose suffix tells the formats apart", found="- -")
    to = OTHER[format_of(source)] if target == "-" else format_of(target)
    fmt, name = (OTHER[to], "<stdin>") if source == "-" else (format_of(source), source)
    text = sys.stdin.read() if source == "-" else read_text(source)
    root = _root_of(text, fmt, name)
    document = _parse_as(root, text, fmt, name)
    if validate:
        CHECKS[root](document.spec, locate=document.locate)
    if document.comments:
        log.warning("comments are not kept: %s", document.source)
    for section in document.extra:
        log.warning("left out: %s, which is no part of a TAO spec", section)
    text = prototxt.dumps(document.spec) if to == "prototxt" else yaml.dumps(document.spec, full=full)
    if target == "-":
        sys.stdout.write(text)
    else:
        write_text(target, text)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `convert_spec`; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="convert_spec",
        description="Convert a TAO spec, FasterRCNN experiment or dataset_convert, from prototxt "
        "(.txt, .prototxt, .pbtxt) to YAML or back.",
        epilog="example: convert_spec their_spec.txt ours.yaml && python scripts/train.py spec=ours.yaml",
    )
    parser.add_argument("source", metavar="IN", help="spec file, or - for standard input")
    parser.add_argument("target", metavar="OUT", help="spec file, or - for standard output")
    parser.add_argument("--full", action="store_true", help="write every value to YAML, defaults too")
    parser.add_argument("--no-check", action="store_true", help="convert whatever parses")
    parser.add_argument("-r", "--results_dir", metavar="DIR", type=Path, help="for status.json")
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr)
    start, end = "Starting conversion.", "Conversion finished successfully."
    try:
        with reported(arguments.results_dir, start=start, end=end):
            convert(arguments.source, arguments.target, full=arguments.full, validate=not arguments.no_check)
    except FrcnnError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _root_of(text: str, fmt: str, source: str) -> type[Message]:
    """Whether a text is an experiment or a dataset_convert spec."""
    names = prototxt.top_level_names(text) if fmt == "prototxt" else yaml.top_level_names(text, source=source)
    return root_of(names) or Experiment


def _parse_as(root: type[Root], text: str, fmt: str, source: str) -> Parsed[Root]:
    parse = prototxt.parse_as if fmt == "prototxt" else yaml.parse_as
    return parse(root, text, source=source)

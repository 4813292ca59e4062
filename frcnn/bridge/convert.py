"""Conversion of a spec between prototxt and YAML, as `scripts/convert_spec.py` offers it."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from frcnn.bridge import prototxt, yaml
from frcnn.bridge.document import Document
from frcnn.bridge.files import read_text, write_text
from frcnn.errors import FrcnnError, SpecError
from frcnn.spec.check import check

log = logging.getLogger(__name__)

FORMATS = {**dict.fromkeys(prototxt.SUFFIXES, "prototxt"), **dict.fromkeys(yaml.SUFFIXES, "yaml")}
OTHER = {"prototxt": "yaml", "yaml": "prototxt"}


def read_spec(path: str | Path) -> Document:
    """Read a spec file of either format, told apart by its suffix.

    Raises:
        SpecError: an unknown suffix, or what the format's reader refuses.
    """
    return _parse(read_text(path), format_of(path), str(path))


def format_of(path: str | Path) -> str:
    """`prototxt` or `yaml`, by the suffix of a file name."""
    try:
        return FORMATS[Path(path).suffix.lower()]
    except KeyError:
        raise SpecError("is no spec file", where=path, allowed=f"a suffix of {', '.join(FORMATS)}") from None


def convert(source: str, target: str, *, full: bool = False, validate: bool = True) -> None:
    """Convert a spec; the suffixes choose the formats and `-` is standard input or output.

    Args:
        source: file to read.
        target: file to write.
        full: write every value to YAML, not only those that differ from the defaults.
        validate: refuse what `train` would refuse, paths aside.

    Raises:
        SpecError: the spec cannot be read or, with `validate`, not be trained.
        RunError: the target cannot be written.
    """
    if source == target == "-":
        raise SpecError("one side needs a file name, whose suffix tells the formats apart", found="- -")
    to = OTHER[format_of(source)] if target == "-" else format_of(target)
    document = _parse(sys.stdin.read(), OTHER[to], "<stdin>") if source == "-" else read_spec(source)
    if validate:
        check(document.spec, locate=document.locate)
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
        description="Convert a TAO FasterRCNN spec from prototxt (.txt, .prototxt, .pbtxt) to YAML or back.",
        epilog="example: convert_spec their_spec.txt ours.yaml && python scripts/train.py spec=ours.yaml",
    )
    parser.add_argument("source", metavar="IN", help="spec file, or - for standard input")
    parser.add_argument("target", metavar="OUT", help="spec file, or - for standard output")
    parser.add_argument("--full", action="store_true", help="write every value to YAML, defaults too")
    parser.add_argument("--no-check", action="store_true", help="convert whatever parses")
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        convert(arguments.source, arguments.target, full=arguments.full, validate=not arguments.no_check)
    except FrcnnError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _parse(text: str, fmt: str, source: str) -> Document:
    parse = prototxt.parse if fmt == "prototxt" else yaml.parse
    return parse(text, source=source)

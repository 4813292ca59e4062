"""The command check: settings, data and weights looked at on one screen, with an exit code for scripts."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from frcnn.bridge import prototxt, yaml
from frcnn.bridge.convert import format_of, read_spec
from frcnn.bridge.document import Document
from frcnn.bridge.files import write_text
from frcnn.entry import main as entry
from frcnn.entry import overrides
from frcnn.errors import FrcnnError, SpecError
from frcnn.exits import exit_code
from frcnn.spec.run import App

if TYPE_CHECKING:
    from frcnn.check import Findings

FIXES = ("anchors",)


def main(argv: Sequence[str] | None = None) -> int:
    """Check what `train` would be given.

    Args:
        argv: the arguments of train, and `--json` and `fix=anchors`; those of the process if None.

    Returns:
        Exit code: 0 fine, 1 warnings, 2 errors, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        return entry.main("check", arguments)
    as_json = "--json" in arguments
    fixes = [item.partition("=")[2] for item in arguments if item.startswith("fix=")]
    rest = [item for item in arguments if item != "--json" and not item.startswith("fix=")]
    codes: list[int] = []
    debug = overrides.CommandLine(overrides=rest).debug
    hint = "run.debug=true shows where this came from"
    done = exit_code(lambda: codes.append(_run(rest, fixes, as_json=as_json)), debug=debug, hint=hint)
    return codes[0] if codes else (done if done == 130 else 2)


def _run(arguments: Sequence[str], fixes: Sequence[str], *, as_json: bool) -> int:
    if unknown := set(fixes) - set(FIXES):
        raise SpecError("cannot be fixed", where="fix", found=", ".join(unknown), allowed=", ".join(FIXES))
    problems: list[FrcnnError] = []
    app, folder, read_error = None, Path(), None
    try:
        app, folder = entry.settings_of("check", arguments, problems)
    except FrcnnError as error:
        read_error = error
    from frcnn.check import Findings, check

    findings = Findings(debug=overrides.CommandLine(overrides=[*arguments]).debug)
    if app is None or read_error is not None:
        with findings.section("settings") as content:
            content["summary"] = "cannot be read, so nothing else was looked at"
            findings.error(read_error or SpecError("cannot be read"))
    else:
        check(app, folder, problems, findings)
    written = _fix(app, arguments, findings) if fixes and app is not None else None
    _show(findings, written, as_json=as_json)
    return findings.exit_code


def _show(findings: "Findings", written: Path | None, *, as_json: bool) -> None:
    result = findings.to_dict()
    if as_json:
        written_to = None if written is None else str(written)
        sys.stdout.write(json.dumps(result | {"written": written_to}, indent=2, allow_nan=False) + "\n")
        return
    from rich.console import Console

    from frcnn.report.check import check_screen

    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(check_screen(result), crop=False)
    if written is not None:
        console.print(f"written: {written}; train with spec={written}", soft_wrap=True)


def _fix(app: App, arguments: Sequence[str], findings: "Findings") -> Path | None:
    """Write settings with the anchors that were found: of a spec a copy beside it, else the whole tree."""
    from frcnn.check.run import take_anchors

    paths = overrides.parse(arguments).values.get("spec", [])
    document = read_spec(paths[0]) if paths else None
    spec = document.spec if document is not None else app
    written: list[Path] = []
    with findings.section("anchors"):
        if not take_anchors(spec, findings):
            findings.warn("fix=anchors wrote nothing: no better anchors were found")
            return None
        source = Path(paths[0]) if paths else Path("check.yaml")
        target = source.with_stem(f"{source.stem}_anchors")
        if target.exists() and not app.run.overwrite:
            hint = "remove it, or run.overwrite=true"
            raise SpecError("the file that fix=anchors writes exists", where=target, hint=hint)
        write_text(target, _text(app, document, target))
        written.append(target)
    return written[0] if written else None


def _text(app: App, document: Document | None, target: Path) -> str:
    if document is None:
        from frcnn.results import stored_texts

        return stored_texts(app)["config"]
    if format_of(target) == "prototxt":
        return prototxt.dumps(document.spec)
    return yaml.dump_tree(yaml.tree(document.spec) | document.extra)

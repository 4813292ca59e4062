"""The console command: `frcnn train -e spec.txt -r results -k key --gpus 2`."""

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from frcnn import __version__
from frcnn.cli.flags import Flag, Typed, overrides, parse
from frcnn.cli.launch import launched, output_to
from frcnn.cli.verbs import VERBS, Verb, find
from frcnn.errors import FrcnnError, SpecError
from frcnn.exits import exit_code

HYDRA = ("-m", "--multirun", "--cfg", "-c", "--package", "-p", "--info")
"""Hydra's flags, where a verb has none of that name; what follows one is not ours to read."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb.

    Args:
        argv: arguments; those of the process if None.

    Returns:
        Exit code: 0 done, 1 failed while running, 2 wrong input, 130 interrupted. `check` ends with 1 for
        warnings.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        from frcnn.cli.help import overview

        sys.stdout.write(overview())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        sys.stdout.write(f"frcnn {__version__}\n")
        return 0
    codes: list[int] = []
    done = exit_code(lambda: codes.append(_verb(arguments[0], arguments[1:])), debug=False)
    return codes[0] if codes else done


def _verb(name: str, arguments: list[str]) -> int:
    if name == "completion":
        return _completion(arguments)
    verb = find(name)
    if verb is None:
        names = [*(item for known in VERBS for item in (known.name, *known.aliases)), "completion"]
        near = difflib.get_close_matches(name, names, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else "frcnn --help"
        raise SpecError("is no command", where="frcnn", found=name, allowed=", ".join(names), hint=hint)
    typed = parse(arguments, verb.all_flags, passed_on=HYDRA if verb.command else ())
    if typed.help:
        from frcnn.cli.help import page

        sys.stdout.write(page(verb, called=name))
        return 0
    if not verb.tao:
        return _run(verb, _arguments(verb, typed))
    with output_to(typed.value("--log_file")):
        try:
            code = _run(verb, _arguments(verb, typed))
        except FrcnnError as error:
            sys.stderr.write(f"{error}\n")
            code = error.exit_code
        if typed.flags:  # TAO: the last line of its wrapper; here the exit code says the same
            sys.stdout.write(f"Execution status: {'FAIL' if code else 'PASS'}\n")
    return code


def _arguments(verb: Verb, typed: Typed) -> list[str]:
    """What the function behind a verb is given: its own flags, then settings, those typed last."""
    settings, own = launched(verb, typed), []
    for flag, values in typed.flags:
        if flag.sets:
            settings += overrides(flag, _with_suffix(flag, values))
        elif flag in verb.flags and not flag.inert and "--enc_key" not in flag.names:
            own += [flag.names[0], *values]
    return [*own, *settings, *typed.rest]


def _with_suffix(flag: Flag, values: list[str]) -> list[str]:
    """The values of a flag; files that the original gave a suffix of its own get ours."""
    if not flag.suffix or Path(values[0]).suffix == flag.suffix:
        return values
    target = str(Path(values[0]).with_suffix(flag.suffix))
    sys.stderr.write(f"{values[0]} becomes {target}\n")
    return [target]


def _run(verb: Verb, arguments: list[str]) -> int:
    try:
        if verb.command:
            from frcnn.entry.main import main as entry

            return entry(verb.command, arguments)
        return int(import_module(verb.module).main(arguments))
    except SystemExit as error:  # argparse, which has said why
        return error.code if isinstance(error.code, int) else 1


def _completion(arguments: list[str]) -> int:
    from frcnn.cli.completion import SHELLS

    shell = next(iter(arguments), "")
    if shell not in SHELLS or len(arguments) != 1:
        allowed = "bash or zsh"
        hint = 'eval "$(frcnn completion bash)" in ~/.bashrc'
        raise SpecError(
            "for which shell?",
            where="completion",
            found=" ".join(arguments) or None,
            allowed=allowed,
            hint=hint,
        )
    sys.stdout.write(SHELLS[shell]())
    return 0

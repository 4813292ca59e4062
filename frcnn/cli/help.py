"""The pages of --help, printed in a blink: neither torch nor Hydra is imported for them."""

from collections.abc import Iterable
from textwrap import wrap

from frcnn.cli.flags import Flag
from frcnn.cli.verbs import LAUNCH, VERBS, Verb

WIDTH = 100
OVERVIEW = """frcnn: Faster R-CNN experiments that speak NVIDIA TAO

usage: frcnn COMMAND [flags] [group=choice ...] [setting=value ...]

TAO's commands, with their flags:
{tao}

ours:
{ours}
  completion             print completion for a shell: eval "$(frcnn completion bash)"

frcnn COMMAND --help says what each takes. Settings are TAO's own tree (docs/spec-reference.md); what stands
on the command line counts last. Exit codes: 0 done, 1 failed while running, 2 wrong input, 130 interrupted.
"""

HYDRA = (
    Flag(("--multirun",), "sweep: every combination of comma-separated values"),
    Flag(("--cfg",), "job: print the settings and stop", "job"),
    Flag(("-h", "--help"), "this page"),
)


def overview() -> str:
    """The page of all verbs."""
    lines = {tao: "\n".join(_verb_lines(tao)) for tao in (True, False)}
    return OVERVIEW.format(tao=lines[True], ours=lines[False])


def _verb_lines(tao: bool) -> Iterable[str]:
    for verb in VERBS:
        if verb.tao == tao:
            names = ", ".join((verb.name, *verb.aliases))
            yield f"  {names:<22} {verb.doc}" if len(names) < 23 else f"  {names}\n{' ' * 25}{verb.doc}"


def page(verb: Verb, *, called: str) -> str:
    """The page of one verb, under the name that it was called by."""
    own = [*verb.flags, *(HYDRA if verb.command else HYDRA[-1:])]
    if verb.command == "train":
        own = [Flag(("-m", "--multirun"), HYDRA[0].doc) if flag is HYDRA[0] else flag for flag in own]
    flags = f"flags:\n{_table(own)}"
    if verb.tao:
        flags += f"\n\nflags of TAO's launcher:\n{_table(LAUNCH)}"
    if verb.command:
        from frcnn.entry.help import page as groups
        from frcnn.paths import conf_dir

        return groups(verb.command, conf_dir(), program=f"frcnn {called}", flags=flags)
    return f"{verb.doc}\n\nusage: frcnn {called} [flags] {verb.usage}\n\n{flags}\n"


def _table(flags: Iterable[Flag]) -> str:
    lines = []
    for flag in flags:
        doc = flag.doc + (f"; no effect: {flag.inert}" if flag.inert else "")
        doc += f"; not here: {flag.refused}" if flag.refused else ""
        lines.append(f"  {', '.join(flag.names)} {flag.value}".rstrip())
        lines += wrap(doc, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)

"""Completion for shells, as a script that needs nothing of ours while somebody types."""

from collections.abc import Callable

from frcnn.cli.help import HYDRA
from frcnn.cli.verbs import VERBS

SCRIPT = r"""# completion of frcnn; made by `frcnn completion`
_frcnn() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" key=""
    COMPREPLY=()
    if [[ "$COMP_CWORD" == 1 ]]; then
        COMPREPLY=($(compgen -W "{verbs}" -- "$word"))
        return
    fi
    # bash splits group=choice at the sign, zsh does not
    case "$word" in
        =) key="$before"; word="" ;;
        *=*) key="${{word%%=*}}" ;;
        *) [[ "$before" == "=" ]] && key="${{COMP_WORDS[COMP_CWORD-2]}}" ;;
    esac
    if [[ -n "$key" ]]; then
        local choices="" prefix=""
        [[ "$word" == *=* ]] && prefix="$key="
        case "$key" in
{choices}
        esac
        local choice all=""
        for choice in $choices; do all="$all $prefix$choice"; done
        COMPREPLY=($(compgen -W "$all" -- "$word"))
        [[ -z "$choices" ]] && COMPREPLY=($(compgen -f -- "${{word#*=}}"))
        return
    fi
    local flags=""
    case "${{COMP_WORDS[1]}}" in
{flags}
    esac
    if [[ "$word" == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$word"))
    else
        COMPREPLY=($(compgen -f -- "$word") $(compgen -W "{groups}" -- "$word"))
    fi
}}
"""

KEYS = ("spec", "model_path", "images")


def bash() -> str:
    """The script for bash."""
    return _script() + "complete -o default -o nospace -F _frcnn frcnn\n"


def zsh() -> str:
    """The script for zsh, which has a stand-in for bash's way."""
    return "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n" + bash()


def _script() -> str:
    from frcnn.entry.overrides import choices
    from frcnn.paths import conf_dir

    groups = choices(conf_dir())
    names = [name for verb in VERBS for name in (verb.name, *verb.aliases)]
    flags = [
        f'        {"|".join((verb.name, *verb.aliases))}) flags="'
        + " ".join(
            name
            for flag in (*verb.all_flags, *(HYDRA if verb.command else HYDRA[-1:]))
            for name in flag.names
        )
        + '" ;;'
        for verb in VERBS
    ]
    return SCRIPT.format(
        verbs=" ".join([*names, "completion"]),
        groups=" ".join(f"{name}=" for name in (*groups, *KEYS)),
        choices="\n".join(
            f'            {group}) choices="{" ".join(all_)}" ;;' for group, all_ in groups.items()
        ),
        flags="\n".join(flags),
    )


SHELLS: dict[str, Callable[[], str]] = {"bash": bash, "zsh": zsh}

"""Help pages and completion: what is in them, and that they come in a blink."""

import resource
import subprocess
import sys

import pytest

from frcnn.cli.main import main
from frcnn.cli.verbs import VERBS

NAMES = [name for verb in VERBS for name in (verb.name, *verb.aliases)]


def run(*arguments):
    """The finished process and the processor time it took: the wall clock knows how busy the machine is."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "frcnn", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["completion", "bash"]])
def test_help_is_quick(arguments):
    runs = [run(*arguments) for _ in range(3)]
    assert {done.returncode for done, _ in runs} == {0}
    assert min(seconds for _, seconds in runs) < 0.3


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from frcnn.cli.main import main; main(['train', '--help']); main(['--help']);"
        "print([name for name in ('torch', 'hydra', 'omegaconf', 'google.protobuf', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_overview_names_every_verb(capsys):
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    assert all(name in page for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_every_flag(name, capsys):
    assert main([name, "--help"]) == 0
    page = capsys.readouterr().out
    verb = next(verb for verb in VERBS if name in (verb.name, *verb.aliases))
    assert all(spelling in page for flag in verb.all_flags for spelling in flag.names)
    assert f"usage: frcnn {name} " in page
    assert "python scripts/" not in page


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("frcnn ")


def complete(*words):
    """What bash offers for the last of some words; it splits at = before a function sees them."""
    script = run("completion", "bash")[0].stdout
    typed = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _frcnn; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_verbs_flags_groups_and_choices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert complete("frcnn", "eval") == ["evaluate"]
    assert complete("frcnn", "train", "--gpu") == ["--gpus", "--gpu_index"]
    assert complete("frcnn", "prune", "-e") == ["-e", "-eq", "-el"]
    assert complete("frcnn", "train", "back") == ["backbone="]
    assert complete("frcnn", "train", "optimizer", "=") == ["adam", "rmsprop", "sgd"]
    assert complete("frcnn", "train", "optimizer", "=", "s") == ["sgd"]
    assert complete("frcnn", "train", "optimizer=s") == ["optimizer=sgd"]
    (tmp_path / "their.txt").write_text("")
    assert complete("frcnn", "train", "-e", "the") == ["their.txt"]
    assert complete("frcnn", "train", "spec", "=", "the") == ["their.txt"]


def test_zsh_gets_the_same_by_way_of_bashcompinit():
    script = run("completion", "zsh")[0].stdout
    assert "bashcompinit" in script
    assert script.endswith(run("completion", "bash")[0].stdout)


def test_other_shells_are_refused(capsys):
    assert main(["completion", "fish"]) == 2
    assert "bash or zsh" in capsys.readouterr().err

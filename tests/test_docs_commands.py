"""Every command and every piece of Python in README and docs, run as it stands.

Trainings only describe their network, unless the test is the slow one. What cannot run here has a comment above its
block, `<!-- not run: REASON -->`, or `<!-- not run WORD: REASON -->` for its lines with that word.
"""

import os
import re
import shlex
import shutil
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

import docs_world
import pytest
import runs
from project import ROOT

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"((?:^<!-- not run.*?-->\n)*)^```(\w*)\n(.*?)^```", re.M | re.S)
REASON = re.compile(r"<!-- not run ?([^:]*?): (.+?) -->", re.S)
STARTS = (
    "frcnn ",
    "python scripts/",
    "make ",
    "pip ",
    "docker ",
    "trtexec ",
    "git ",
    "torchrun ",
    "srun ",
    "eval ",
)
ENTRY = (
    "train",
    "evaluate",
    "export",
    "infer",
    "inference",
    "parity",
    "prune",
    "quantize",
    "preview_augmentation",
)


@dataclass
class Command:
    """A command of a page, or a block of Python.

    Attributes:
        text: as it stands, continued lines joined.
        language: of its block.
        reason: why it is not run here, or "".
    """

    text: str
    language: str
    reason: str


def commands(page):
    for comments, language, body in BLOCK.findall((ROOT / page).read_text()):
        reasons = dict(REASON.findall(comments))
        if language == "python":
            yield Command(body, language, reasons.get("", ""))
            continue
        for line in body.replace("\\\n", " ").splitlines():
            if line.startswith(STARTS) or re.match(r"[A-Z_]+=\S+ .*train", line):
                reason = next((why for word, why in reasons.items() if word in line), "")
                yield Command(line, language, reason or own_reason(line))


def own_reason(line):
    """Reasons that hold on every page."""
    if line.startswith("make "):
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert line.split()[1] in targets, line
        return "sets up a virtual environment of its own; what it starts is run elsewhere in the tests"
    if line.startswith("git "):
        return "fetches this repository"
    return "downloads weights from elsewhere" if "=torchvision:" in line else ""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    place, before = tmp_path_factory.mktemp("world"), Path.cwd()
    os.chdir(place)
    try:
        yield docs_world.build(place)
    finally:
        os.chdir(before)


@pytest.fixture
def there(world, monkeypatch):
    monkeypatch.chdir(world)
    monkeypatch.setenv("FRCNN_CACHE", str(world / "cache"))
    monkeypatch.setenv("FRCNN_ENC_KEY", "a key")
    return world


def sized(verb, arguments, *, out, real):
    """A command line with what makes it small."""
    if {"--help", "-h", "--cfg"} & {*arguments}:
        return arguments
    if verb == "check":
        return [*arguments, "run.check_steps=0", "run.overwrite=true"]
    if verb not in ENTRY:
        return [item.replace("=/data/tao", f"={out.parents[1]}/data/tao") for item in arguments]
    named = {item.partition("=")[0] for item in arguments}
    if verb == "preview_augmentation" and "dataset" in named:
        return [*arguments, f"hydra.run.dir={out}", "run.natural.height=128", "run.natural.width=192"]
    more = ["run.num_workers=0"] if verb in ("train", "evaluate") else []
    if not {"hydra.run.dir", "-r", "--results_dir", "hydra.sweep.dir"} & named:
        more += [f"hydra.run.dir={out}", f"hydra.sweep.dir={out}"]
    else:
        more += ["run.overwrite=true"] if verb != "train" or "run.resume" not in named else []
    if verb == "train" and not real:
        return [*arguments, *more, "run.dry_run=true"]
    if verb == "train" and not {"spec", "-e", "run.resume", "training_config.resume_from_model"} & named:
        small = [item for item in runs.SMALL if item.partition("=")[0] not in {*named, "run.num_workers"}]
        more += ["training_config.num_epochs=1", *small[:1], *small[2:]]
        more += ["run.natural.height=128", "run.natural.width=192", "trainer.limit_train_batches=1"]
        more += ["trainer.limit_val_batches=1", "run.natural.scale=[16,32,64]"]
    return [*arguments, *more]


def run(words, *, out, real):
    """The exit code of a command."""
    from frcnn.cli.main import main as frcnn
    from frcnn.entry.main import main as entry

    if words[0] == "frcnn":
        return frcnn([words[1], *sized(words[1], words[2:], out=out, real=real)])
    verb = Path(words[1]).stem
    arguments = sized(verb, words[2:], out=out, real=real)
    if verb in ENTRY:
        return entry(verb, arguments)
    return frcnn([verb, *arguments])


def outcome(command, scope, *, out, real):
    """What went wrong, or ""."""
    try:
        if command.language == "python":
            exec(compile(command.text, "page", "exec"), scope)
            return ""
        words = shlex.split(command.text, comments=True)
        code = run(words, out=out, real=real)
        for made in out.glob("*.ckpt"):  # the pages call the folder of such a run OUT
            shutil.copy(made, "OUT")
        if (out / "model.onnx").is_file():
            shutil.copytree(out, "EXPORT", dirs_exist_ok=True)
    except Exception:  # noqa: BLE001  (told with the command)
        return traceback.format_exc()
    fine = (0, 1) if "check" in words[1] else (0,)  # 1: warnings
    return "" if code in fine else f"{code}"


def said(command):
    """A command in the words of the console command, so that each is run once."""
    words = re.sub(r"^python scripts/(\w+)\.py", r"frcnn \1", command.text.partition(" #")[0])
    return command.text if command.language == "python" else " ".join(words.split())


def run_page(page, place, *, real, done):
    scope, failures = {"__name__": "page"}, []
    for number, command in enumerate(commands(page)):
        if not command.reason and (command.language == "python" or said(command) not in done):
            done.add(said(command))
            out = place / "out" / f"{Path(page).stem}-{real}-{number}"
            problem = outcome(command, scope, out=out, real=real)
            failures += [f"{command.text}\n{problem}"] if problem else []
    assert failures == [], "\n\n".join(failures)


LONG = ("docs/configuration.md", "docs/deploying.md", "docs/export.md", "docs/sweeps.md")
WITH_COMMANDS = [page for page in PAGES if any(not command.reason for command in commands(page))]


@pytest.fixture(scope="module")
def done():
    """What was run before, on whichever page. Exports take long and are left to the slow pages."""
    return {
        said(command)
        for page in PAGES
        if page not in LONG
        for command in commands(page)
        if "export" in said(command)
    }


@pytest.mark.parametrize("page", [page for page in WITH_COMMANDS if page not in LONG])
def test_commands(page, there, done):
    run_page(page, there, real=False, done=done)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in WITH_COMMANDS if page in LONG])
def test_commands_that_take_long(page, there):
    run_page(page, there, real=False, done=set())


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md"])
def test_trainings(page, there):
    run_page(page, there, real=True, done=set())


def test_what_is_not_run_has_a_reason():
    """With -s, the list."""
    left = [(page, command) for page in PAGES for command in commands(page) if command.reason]
    for page, command in left:
        sys.stdout.write(f"{page}: {command.text.splitlines()[0]}\n    {command.reason}\n")
        assert len(command.reason.split()) > 2
        assert all((ROOT / name).exists() for name in re.findall(r"tests/[\w/.]*\w", command.reason)), command
    assert len(left) < 45

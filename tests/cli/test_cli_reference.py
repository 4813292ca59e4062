"""docs/tao-words.md: complete, current, and every row with a test or a reason."""

import re
from functools import cache

import pytest
import tao_words
from project import ROOT

from frcnn.cli import reference
from frcnn.cli.verbs import LAUNCH, VERBS
from frcnn.spec.dataset_export import DatasetExportConfig
from frcnn.spec.experiment import Experiment
from frcnn.spec.fields import messages_below, settings_of

FIELDS = {
    f"{message.__name__}.{field.name}": (message, field)
    for root in (Experiment, DatasetExportConfig)
    for message in messages_below(root)
    for field in settings_of(message)
}


@cache
def code():
    """The text of everything that acts on settings."""
    files = (path for path in (ROOT / "frcnn").rglob("*.py") if path.parent.name not in ("bridge", "cli"))
    return "\n".join(path.read_text() for path in files if path.parent.name != "spec") + "".join(
        (ROOT / "frcnn" / "spec" / name).read_text() for name in ("values.py", "check.py")
    )


def section(title):
    page = (ROOT / "docs" / "tao-words.md").read_text()
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", page, re.M | re.S)[1]


def test_the_page_is_current():
    assert (ROOT / "docs" / "tao-words.md").read_text() == reference.page()


@pytest.mark.parametrize("verb", tao_words.FLAGS)
def test_every_flag_of_the_facts_is_on_the_page(verb):
    """And so, by test_cli_flags.py, has a test of what it becomes."""
    there = set(re.findall(r"`(-[^`]+)`", section(f"Flags of {verb}")))
    wanted = {word for line in tao_words.FLAGS[verb] for word in line.split() if word.startswith("-")}
    launcher = {name for flag in LAUNCH for name in flag.names}
    assert wanted - launcher - {"-1"} <= there


def test_every_flag_of_the_launcher_is_on_the_page():
    there = set(re.findall(r"`(-[^`]+)`", section("Flags of the launcher")))
    wanted = {word for line in tao_words.LAUNCHER for word in line.split() if word.startswith("-")}
    assert wanted - {"-1", "-x"} <= there


def test_the_facts_have_every_verb_of_the_original():
    assert set(tao_words.FLAGS) == {verb.name for verb in VERBS if verb.tao}


def test_every_row_has_a_test_or_a_reason():
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    rows = (*reference.WRAPPER, *reference.FILES)
    assert {row.proof for row in rows} <= tests
    assert all(row.here for row in rows)
    for verb in VERBS:
        assert all(flag.doc for flag in verb.all_flags)


@pytest.mark.parametrize("path", FIELDS)
def test_a_field_does_something_or_says_why_not(path):
    """What is accepted and looked at nowhere would be silence, which the page does not allow."""
    message, field = FIELDS[path]
    assert field.doc
    if not reference.idle(message, field):
        assert re.search(rf"\b{field.name}\b", code()), f"{path} is looked at nowhere"


def test_what_is_better_is_a_field_that_works():
    assert set(reference.BETTER) <= set(FIELDS)
    assert not [path for path in reference.BETTER if FIELDS[path][1].inert]

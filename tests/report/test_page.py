"""The page of a run: what it says, that it needs nothing else, and that names cannot break it."""

import re

import pytest
from html_reader import Reader
from pages import NAMES, full_page

from frcnn.report.page import RunPage, render_page

SECTIONS = [
    *("Curves", "Classes", "Precision and recall", "COCO", "Confusion", "Calibration", "Time"),
    *("Worst images", "Best images", "Validation images", "Training images"),
    *("Data", "Model", "Settings", "Environment"),
]


@pytest.fixture(scope="module")
def text():
    return render_page(full_page())


@pytest.fixture(scope="module")
def read(text):
    return Reader(text)


def words(read, end):
    return [text for place, text in read.texts if place.endswith(end)]


def test_every_section_is_there_and_linked(read):
    assert words(read, "section/h2") == words(read, "nav/a") == SECTIONS
    targets = {value for _, name, value in read.attributes if name == "href"}
    ids = [value for _, name, value in read.attributes if name == "id"]
    assert targets == {f"#{name}" for name in ids}
    assert len(set(ids)) == len(ids)


def test_it_is_one_file_of_a_sane_size_that_loads_nothing(text, read):
    assert len(text) < 5_000_000
    assert not {"script", "link", "iframe", "object"} & set(read.tags)
    sources = [value for _, name, value in read.attributes if name in ("src", "srcset", "xlink:href")]
    assert len(sources) == 36
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    style = "".join(words(read, "style"))
    assert "url(" not in style
    assert "@import" not in style
    assert not [value for _, name, value in read.attributes if name.startswith("on")]


def test_names_are_text_and_never_markup(read):
    shown = " ".join(text for _, text in read.texts)
    for name in (*NAMES, "resnet_18-<data>", "<dontcare>", "<0>.png", "{'a': '<b>'}"):
        assert name in shown
    assert words(read, "title")[0] == "resnet_18-<data>"


def test_figures_of_classes(read):
    rows = words(read, "tbody/tr/td")
    start = rows.index(" " + NAMES[0])
    assert rows[start + 1 : start + 11] == [
        *("0.8000", "0.8000", "0.5000", "–", "0.6667", "1.0000", "0.3000", "0.2500", "2", "1"),
    ]
    assert any(text.startswith("after epoch 3: 1,234 images, IoU from 0.5 to 0.75") for _, text in read.texts)


def test_settings_say_where_they_come_from(read):
    rows = [text for place, text in read.texts if "details" in place or place.endswith("td/code")]
    assert "spec their.txt:12" in rows
    assert words(read, "details/summary/small") == ["0 of 1 given", "1 of 1 given", "1 of 1 given"]


def test_a_run_that_failed_before_it_began_says_so_on_top():
    read = Reader(render_page(RunPage(title="t", command="train", state="failed", reason="no <memory>")))
    assert words(read, "header/p/span") == ["failed"]
    assert "no <memory>" in words(read, "header/p")
    assert "section" not in read.tags


def test_dark_and_light_colours_are_the_same_set(text):
    blocks = re.findall(r":root \{([^}]*)\}", text)
    light, dark = (set(re.findall(r"(--\w+):", block)) for block in blocks)
    assert light == dark

"""The documentation as pages: links, the picture of the layers, and TAO's words in the search."""

import importlib.util
import json
import re
import subprocess
import sys

import pytest
import test_layers
from project import ROOT


def test_the_picture_shows_the_layers_of_the_code():
    command = [sys.executable, str(ROOT / "docs" / "draw_layers.py")]
    drawn = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kept = (ROOT / "docs" / "images" / "layers.svg").read_text()
    boxes = [set(re.findall(r">(\w+)</text>", text)) for text in (drawn, kept)]
    assert boxes[0] == boxes[1], "make docs draws it anew"
    tops = {name.split(".")[0] for name, _ in test_layers.modules()} - {"__init__"}
    assert tops <= boxes[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("pip install -e '.[docs]' for the pages")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_pages_fetch_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        found = re.findall(r'(?:src|href)="(https?://[^"]+)"', page.read_text())
        assert [url for url in found if "squidfunk.github.io" not in url and "mkdocs" not in url] == []


@pytest.mark.parametrize(
    "word",
    [
        *(
            "dataset_convert",
            "gen_trt_engine",
            "tao-converter",
            "pruning_threshold",
            "equalization_criterion",
        ),
        *("roi_mini_batch", "rotate_rad_max", "hdf5", "etlt", "enc_key", "mpirun-arg", "nvinfer_config.txt"),
    ],
)
def test_the_words_of_tao_are_found(site, word):
    index = json.loads((site / "search" / "search_index.json").read_text())
    assert any(word in page["text"] or word in page["title"] for page in index["docs"])

"""The page of a run in a real browser; skipped where there is no Chromium or Chrome."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest
from pages import full_page
from PIL import Image

from frcnn.report.page import render_page

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PROBE = """<script>addEventListener("load", () => {
  document.querySelectorAll("details").forEach(d => d.open = true);
  const box = e => e.getBoundingClientRect();
  parent.postMessage({
    width: document.documentElement.scrollWidth, window: innerWidth,
    broken: [...document.images].filter(i => !i.naturalWidth).length, images: document.images.length,
    charts: [...document.querySelectorAll(".chart > svg")].map(s => [box(s).width, box(s).height]),
    outside: [...document.querySelectorAll(".chart text")].filter(
      t => box(t).left < 0 || box(t).right > innerWidth).length,
    loaded: performance.getEntriesByType("resource").map(r => r.name).filter(n => !n.startsWith("data:")),
    ground: getComputedStyle(document.body).backgroundColor, bold: document.querySelectorAll("td b").length,
  }, "*");
});</script>"""
FRAME = """<!DOCTYPE html><body><iframe style="border:0;height:900px;width:{width}px" src="page.html"></iframe>
<script>addEventListener("message", e => document.body.textContent = JSON.stringify(e.data))</script>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")


def chromium(folder, *arguments):
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def look(folder, *, width, flags=()):
    """What a script finds in the page, which has to be let in: the page's own policy forbids scripts."""
    text, closed = render_page(full_page()), "default-src &#x27;none&#x27;"
    assert closed in text
    text = text.replace(closed, f"{closed}; script-src &#x27;unsafe-inline&#x27;", 1)
    (folder / "page.html").write_text(text.replace("</body>", PROBE + "</body>"))
    (folder / "frame.html").write_text(FRAME.format(width=width))
    address = (folder / "frame.html").as_uri()
    dumped = chromium(folder, *flags, "--virtual-time-budget=5000", "--dump-dom", address)
    return json.loads(unescape(re.search(r"\{.*\}", dumped)[0]))


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_a_desk_and_a_phone(tmp_path, width):
    seen = look(tmp_path, width=width)
    assert seen["window"] == width
    assert seen["width"] <= width  # nothing to scroll sideways, tables apart
    assert (seen["images"], seen["broken"]) == (36, 0)
    assert len(seen["charts"]) == 6
    assert all(chart[0] > min(width, 500) * 0.7 and chart[1] > 150 for chart in seen["charts"])
    assert seen["outside"] == 0
    assert seen["loaded"] == []
    assert seen["bold"] == 0  # a class called <b>car</b>


def test_it_is_dark_where_the_reader_likes_it_dark(tmp_path):
    light = look(tmp_path, width=800)["ground"]
    dark = look(tmp_path, width=800, flags=["--blink-settings=preferredColorScheme=0"])["ground"]
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (light, dark)]
    assert brightness[0] > 600 > 200 > brightness[1]


def test_a_screenshot_is_a_picture_of_something(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(render_page(full_page()))
    target = tmp_path / "shot.png"
    chromium(tmp_path, "--window-size=1280,1600", f"--screenshot={target}", page.as_uri())
    with Image.open(target) as image:
        assert image.size == (1280, 1600)
        assert len(image.convert("RGB").getcolors(1 << 24)) > 100

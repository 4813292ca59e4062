"""Markup: escaped, well formed, and numbers where they belong."""

import base64
import io

from html_reader import Reader
from PIL import Image

from frcnn.report.html import Html, definitions, element, joined, page, picture, table


def test_texts_and_attributes_are_escaped_and_markup_is_not():
    made = element("p", 'a < b & "c"', element("b", "<i>"), None, title='"><script>', class_="x", id=None)
    assert made == ('<p title="&quot;&gt;&lt;script&gt;" class="x">a &lt; b &amp; "c"<b>&lt;i&gt;</b></p>')
    assert Reader(made).texts == [("p", 'a < b & "c"'), ("p/b", "<i>")]


def test_tables():
    rows = [{"name": "a", "count": 1234, "share": 0.123456}, {"name": "b", "share": None}]
    read = Reader(table(rows, caption="Title", total=True))
    assert [text for _, text in read.texts] == [
        "Title",
        "name",
        "count",
        "share",
        "a",
        "1,234",
        "0.1235",
        "b",
        "–",
        "–",
    ]
    assert [value for tag, name, value in read.attributes if (tag, name) == ("td", "class")] == ["number"] * 4
    assert ("tr", "class", "total") in read.attributes
    assert ">0.12<" in table(rows, decimals=2)


def test_a_picture_is_made_smaller_and_carried_along():
    read = Reader(picture(Image.new("RGBA", (4000, 1000), "red"), alt="<x>", caption="<x>"))
    source = next(value for tag, name, value in read.attributes if name == "src")
    kind, data = source.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (1265, 316)  # 400,000 pixels, 4 to 1
        assert image.getpixel((0, 0))[0] > 250
    assert ("img", "alt", "<x>") in read.attributes


def test_a_page_loads_nothing():
    read = Reader(
        page("T <1>", joined([definitions({"a": True}), Html("<hr></hr>")]), style="p > a { color: red }")
    )
    assert ("html/head/title", "T <1>") in read.texts
    assert ("html/head/style", "p > a { color: red }") in read.texts  # as it is: style is raw text
    assert ("html/body/dl/div/dd", "yes") in read.texts
    policy = next(value for _, name, value in read.attributes if name == "content" and "src" in value)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

"""Markup that is well formed and escaped by construction."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from PIL import Image

VOID = ("img", "meta")
PIXELS, BYTES = 400_000, 100_000  # of a picture in a page
DASH = "–"


class Html(str):
    """Text that is markup already and must not be escaped."""

    __slots__ = ()


def element(name: str, *children: object, **attributes: object) -> Html:
    """`<name attributes>children</name>`; whatever is not `Html` is escaped.

    Args:
        name: of the element; those in `VOID` have no end tag.
        children: contents; None is left out.
        attributes: `class_` is written class, `stroke_width` stroke-width; None leaves one out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{joined(children)}</{name}>")


def joined(children: Iterable[object]) -> Html:
    """Elements and texts after each other."""
    return Html(
        "".join(c if isinstance(c, Html) else escape(str(c), quote=False) for c in children if c is not None)
    )


def table(
    rows: Sequence[Mapping[str, object]],
    *,
    caption: str | None = None,
    total: bool = False,
    decimals: int | None = None,
) -> Html:
    """One row per mapping; columns are the keys in the order of their first appearance.

    Numbers are set right-aligned, missing values and None as a dash.

    Args:
        rows: values may be `Html`.
        caption: above the table.
        total: whether the last row sums up the others.
        decimals: of floats; by default four digits that count.
    """
    keys = list(dict.fromkeys(key for row in rows for key in row))
    numeric = {
        key: "number" for key in keys if all(isinstance(row.get(key), int | float | None) for row in rows)
    }
    head = [element("th", key, scope="col", class_=numeric.get(key)) for key in keys]
    body = [
        element(
            "tr",
            *(element("td", _cell(row.get(key), decimals), class_=numeric.get(key)) for key in keys),
            class_="total" if total and row is rows[-1] else None,
        )
        for row in rows
    ]
    inner = element(
        "table",
        None if caption is None else element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", *body),
    )
    return element("div", inner, class_="scrolls", tabindex=0)


def _cell(value: object, decimals: int | None = None) -> object:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if decimals is None else f"{value:.{decimals}f}"
    return value


def definitions(facts: Mapping[str, object]) -> Html:
    """Names with their values."""
    pairs = [
        element("div", element("dt", name), element("dd", _cell(value))) for name, value in facts.items()
    ]
    return element("dl", *pairs)


def picture(image: Image.Image, *, alt: str, caption: str) -> Html:
    """An image as a figure that is part of the page, made smaller if need be."""
    shrink = min(1.0, (PIXELS / (image.width * image.height)) ** 0.5)
    size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
    small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    for quality in (82, 60, 30):
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= BYTES:
            break
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    tag = element("img", src=source, alt=alt, width=size[0], height=size[1])
    return element("figure", tag, element("figcaption", caption))


def page(title: str, body: Html, *, style: str) -> str:
    """A whole document that loads nothing: its policy forbids it to."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = joined(
        [
            element("meta", charset="utf-8"),
            element("meta", **{"http-equiv": "Content-Security-Policy", "content": policy}),
            element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name_="color-scheme", content="light dark"),
            element("title", title),
            element("style", Html(style)),
        ]
    )
    html = element("html", element("head", head), element("body", body), lang="en")
    return f"<!DOCTYPE html>\n{html}\n"

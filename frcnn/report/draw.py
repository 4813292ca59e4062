"""Boxes on images: ground truth dashed white, areas to ignore hatched grey, detections in class colours."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from frcnn.report.colours import class_colour

READABLE_SIDE = 360  # pixels; smaller images are enlarged so that captions do not cover them
LONGEST_SIDE = 2000  # pixels; which a narrow image is not enlarged beyond
BACKGROUND, CAPTION, TRUTH, SHADOW = "#1b1b1b", "#e8e8e8", "#ffffff", "#000000"
IGNORED = "#9a9a9a"
_AREA = -1  # the legend's class id of areas to ignore

Rectangle = tuple[float, float, float, float]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_boxes(
    image: NDArray[np.uint8],
    *,
    class_names: Sequence[str],
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    gt_boxes: NDArray[np.floating] | None = None,
    gt_labels: NDArray[np.integer] | None = None,
    gt_difficult: NDArray[np.bool_] | None = None,
    gt_ignored: NDArray[np.floating] | None = None,
    min_score: float = 0.5,
    captions: bool = True,
    scale: int | None = None,
) -> Image.Image:
    """Draw one image.

    Args:
        image: (H, W, 3) RGB.
        class_names: names by class id.
        boxes: (N, 4) xyxy pixels of `image`.
        scores: (N,).
        labels: (N,); -1 marks an unused slot.
        gt_boxes: (G, 4).
        gt_labels: (G,); -1 marks padding.
        gt_difficult: (G,); difficult objects are dotted.
        gt_ignored: (I, 4) areas to ignore; empty ones are padding.
        min_score: detections below it are left out.
        captions: whether to write class and score at a detection.
        scale: integer magnification; by default as much as a small image needs to be readable.
    """
    height, width = image.shape[:2]
    readable = math.ceil(READABLE_SIDE / min(height, width, READABLE_SIDE))
    scale = scale or min(readable, max(LONGEST_SIDE // max(height, width), 1))
    canvas = Image.fromarray(image).resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    line = max(2, round(min(canvas.size) / 250))
    for box in [] if gt_ignored is None else gt_ignored * scale:
        if (box[2:] > box[:2]).all():
            _hatched(draw, _rectangle(box), width=max(1, line // 2), gap=line * 5)
    if gt_boxes is not None and gt_labels is not None:
        difficult = np.zeros(len(gt_labels), np.bool_) if gt_difficult is None else gt_difficult
        for box, label, hard in zip(gt_boxes * scale, gt_labels, difficult, strict=True):
            if label >= 0:
                _dashed(draw, _rectangle(box), width=line, dash=line * (1.5 if hard else 5))

    visible = (labels >= 0) & (scores >= min_score) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    shown = [i for i in np.argsort(-scores, kind="stable") if visible[i]]
    for i in reversed(shown):  # the surest on top
        draw.rectangle(_rectangle(boxes[i] * scale), outline=class_colour(labels[i]), width=line)
    if captions:
        font = ImageFont.load_default(max(12, round(min(canvas.size) / 28)))
        obstacles = [_rectangle(boxes[i] * scale) for i in shown]
        taken: list[Rectangle] = []
        for i, box in zip(shown, obstacles, strict=True):
            # In a crowd the score alone, as the colour names the class; without room even for that, nothing.
            texts = (f"{class_names[labels[i]]} {scores[i]:.2f}", f"{scores[i]:.2f}")
            _caption(draw, texts, box, class_colour(labels[i]), font, obstacles, taken)
    return canvas


def image_grid(
    images: Sequence[Image.Image],
    *,
    titles: Sequence[str],
    class_names: Sequence[str],
    columns: int | None = None,
    truth: bool = True,
    areas: bool = False,
) -> Image.Image:
    """Drawn images side by side with their titles, and a legend below: classes, and ground truth and areas
    to ignore if asked.
    """
    columns = columns or min(len(images), 4 if len(images) > 6 else 3 if len(images) > 4 else 2)
    cell_width, cell_height = max(i.width for i in images), max(i.height for i in images)
    size = max(14, round(cell_width / 30))
    font, gap = ImageFont.load_default(size), size
    rows = math.ceil(len(images) / columns)
    width = columns * (cell_width + gap) + gap
    entries = _legend_rows(class_names, font, width - 2 * gap, size, truth=truth, areas=areas)
    grid_height = rows * (cell_height + gap + round(1.6 * size)) + gap
    grid = Image.new("RGB", (width, grid_height + round(len(entries) * 1.8 * size) + gap), BACKGROUND)
    draw = ImageDraw.Draw(grid)
    for index, (image, title) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(index, columns)
        x, y = gap + column * (cell_width + gap), gap + row * (cell_height + gap + round(1.6 * size))
        draw.text((x, y), _shorten(title, font, cell_width), fill=CAPTION, font=font)
        grid.paste(image, (x + (cell_width - image.width) // 2, y + round(1.6 * size)))
    for row, entry in enumerate(entries):
        y = grid_height + round(row * 1.8 * size)
        for offset, text, label in entry:
            left = gap + offset
            swatch = (left, y, left + 2 * size, y + size)
            if label is None:
                _dashed(draw, swatch, width=2, dash=size / 3)
            elif label == _AREA:
                _hatched(draw, swatch, width=1, gap=size / 3)
            else:
                draw.rectangle(swatch, outline=class_colour(label), width=max(2, size // 6))
            draw.text((left + 2.6 * size, y - size * 0.1), text, fill=CAPTION, font=font)
    return grid


def _caption(
    draw: ImageDraw.ImageDraw,
    texts: Sequence[str],
    box: Rectangle,
    colour: str,
    font: Font,
    obstacles: Sequence[Rectangle],
    taken: list[Rectangle],
) -> None:
    """Write the first text that finds room above its box, below it or inside, and add its place to `taken`.

    Room is where it meets no other caption and hides no box; failing that, where it meets no caption.
    """
    canvas_width, canvas_height = draw.im.size
    choices: list[tuple[str, Rectangle]] = []
    for text in texts:
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        pad = _padding(bottom - top)
        width, height = right - left + 2 * pad, bottom - top + 2 * pad
        x = min(max(box[0], 0.0), canvas_width - width)
        for y in (box[1] - height, box[3], box[1], box[3] - height):
            place = (x, y, x + width, y + height)
            free = not any(_shared_area(place, other) for other in taken)
            if free and y >= 0 and y + height <= canvas_height:
                choices.append((text, place))
    if not choices:
        return
    clear = [
        (text, place)
        for text, place in choices
        if not any(_shared_area(place, other) > _shared_area(other, other) / 3 for other in obstacles)
    ]
    text, place = (clear or choices)[0]
    taken.append(place)
    red, green, blue = ImageColor.getrgb(colour)[:3]
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"
    left, top, _, bottom = draw.textbbox((0, 0), text, font=font)
    pad = _padding(bottom - top)
    draw.rectangle(place, fill=colour)
    draw.text((place[0] + pad - left, place[1] + pad - top), text, fill=ink, font=font)


def _padding(text_height: float) -> float:
    return max(3.0, round(text_height / 5))


def _dashed(draw: ImageDraw.ImageDraw, box: Sequence[float], *, width: int, dash: float) -> None:
    """A dashed white rectangle with a dark shadow, to be seen on any ground."""
    x1, y1, x2, y2 = box
    for start, end in (
        ((x1, y1), (x2, y1)),
        ((x2, y1), (x2, y2)),
        ((x2, y2), (x1, y2)),
        ((x1, y2), (x1, y1)),
    ):
        (ax, ay), (bx, by) = start, end
        length = math.hypot(bx - ax, by - ay)
        draw.line((ax, ay, bx, by), fill=SHADOW, width=width + 1)
        for at in np.arange(0, length, 2 * dash):
            until = min(at + dash, length)
            (sx, sy), (ex, ey) = (
                (ax + (bx - ax) * t / length, ay + (by - ay) * t / length) for t in (at, until)
            )
            draw.line((sx, sy, ex, ey), fill=TRUTH, width=width)


def _hatched(draw: ImageDraw.ImageDraw, box: Rectangle, *, width: int, gap: float) -> None:
    """A grey rectangle filled with rising lines, `gap` apart along its sides."""
    x1, y1, x2, y2 = box
    for at in np.arange(x1 + y1 + gap, x2 + y2, gap).tolist():  # the line x + y = at
        start, end = max(x1, at - y2), min(x2, at - y1)
        draw.line((start, at - start, end, at - end), fill=IGNORED, width=width)
    draw.rectangle(box, outline=IGNORED, width=width + 1)


def _rectangle(box: NDArray[np.floating]) -> Rectangle:
    x1, y1, x2, y2 = box.tolist()
    return x1, y1, x2, y2


def _shared_area(a: Rectangle, b: Rectangle) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _shorten(text: str, font: Font, width: float) -> str:
    """Cut the beginning of a long title: the end of an id tells images apart."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text


def _legend_rows(
    class_names: Sequence[str],
    font: Font,
    width: float,
    size: int,
    *,
    truth: bool,
    areas: bool,
) -> list[list[tuple[float, str, int | None]]]:
    """Legend entries as (x, text, class id, `_AREA` or None for truth), broken into rows of `width`."""
    rows: list[list[tuple[float, str, int | None]]] = [[]]
    x = 0.0
    named: list[tuple[str, int | None]] = [("ground truth (dotted: difficult)", None)] if truth else []
    named += [("area to ignore", _AREA)] if areas else []
    named += [(name, i) for i, name in enumerate(class_names)]
    for text, label in named:
        needed = 2.6 * size + font.getlength(text) + 2 * size
        if rows[-1] and x + needed > width:
            rows.append([])
            x = 0.0
        rows[-1].append((x, text, label))
        x += needed
    return rows

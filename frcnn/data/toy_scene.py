"""Street scenes drawn from chance alone: cars, pedestrians and cyclists before houses and trees."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Draw = ImageDraw.ImageDraw

_OVERSAMPLING = 2  # shapes are drawn at twice the size, so edges are smooth and boxes end on half pixels
_REFERENCE_SIZE = (192, 128)  # width and height of the image that the object sizes below are meant for
_SKIN = [(244, 208, 177), (224, 172, 130), (180, 120, 80), (120, 78, 50)]


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene; the box is xyxy pixels, clipped to the image."""

    name: str
    box: tuple[float, float, float, float]
    truncated: float  # share of the box outside the image
    hidden: float  # share of the shape covered by nearer objects


def draw_scene(rng: Generator, *, width: int, height: int) -> tuple[Image.Image, list[SceneObject]]:
    """Draw a scene of one to six objects, back to front."""
    canvas = _street(rng, width * _OVERSAMPLING, height * _OVERSAMPLING)
    placed = _place(rng, width * _OVERSAMPLING, height * _OVERSAMPLING)
    owner = np.full((canvas.height, canvas.width), -1, np.int8)
    shape_sizes = []
    for i, (name, x, y, w, h) in enumerate(placed):
        shape = Image.new("RGBA", (w, h))
        _SHAPES[name](ImageDraw.Draw(shape), rng, w, h)
        if rng.random() < 0.5:
            shape = shape.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        _shadow(canvas, x, y, w, h)
        canvas.paste(shape, (x, y), shape)
        mask = Image.new("1", canvas.size)
        mask.paste(1, (x, y), shape.getchannel("A").point(lambda alpha: 255 * (alpha > 0)))
        covered = np.asarray(mask)
        owner[covered] = i
        shape_sizes.append(int(covered.sum()))
    visible = np.bincount(owner[owner >= 0], minlength=len(placed))
    objects = []
    for i, (name, x, y, w, h) in enumerate(placed):
        x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, canvas.width), min(y + h, canvas.height)
        box = (x1 / _OVERSAMPLING, y1 / _OVERSAMPLING, x2 / _OVERSAMPLING, y2 / _OVERSAMPLING)
        truncated = 1 - (x2 - x1) * (y2 - y1) / (w * h)
        objects.append(SceneObject(name, box, truncated, hidden=1 - visible[i] / shape_sizes[i]))
    return _light(rng, canvas.reduce(_OVERSAMPLING)), objects


def _place(rng: Generator, width: int, height: int) -> list[tuple[str, int, int, int, int]]:
    """(class, x, y, width, height) of up to six objects, farthest first; few cover much of another."""
    placed: list[tuple[str, int, int, int, int]] = []
    unit = min(width / _REFERENCE_SIZE[0], height / _REFERENCE_SIZE[1])
    wanted = rng.integers(1, 7)
    for _ in range(5 * wanted):
        if len(placed) == wanted:
            break
        name = str(rng.choice(list(_SHAPES)))
        near = rng.random()  # 0 at the far end of the street, 1 beside the viewer
        # Sizes and proportions that no usual anchor fits well, so that boxes must be learnt.
        if name == "Pedestrian":
            h = rng.uniform(34, 40) + 8 * near
            w = max(15, h / rng.uniform(2.4, 2.9))
        elif name == "Cyclist":
            h = rng.uniform(22, 26) + 8 * near
            w = h * rng.uniform(0.75, 0.95)
        else:
            h = rng.uniform(16, 20) + 8 * near
            w = h * rng.uniform(2.7, 3.6)
        w, h = round(w * unit), round(h * unit)
        x = round(rng.uniform(-0.06 * w, width - 0.94 * w))
        y = round(height * (0.60 + 0.38 * near)) - h
        # One object right before another would hide it: few may.
        limit = 0.8 if rng.random() < 0.12 else 0.3
        if all(_shared(x, y, w, h, *other[1:]) < limit for other in placed):
            placed.append((name, x, y, w, h))
    return sorted(placed, key=lambda item: item[2] + item[4])


def _shared(x: int, y: int, w: int, h: int, x2: int, y2: int, w2: int, h2: int) -> float:
    """Intersection of two boxes over the smaller one."""
    across = max(0, min(x + w, x2 + w2) - max(x, x2))
    down = max(0, min(y + h, y2 + h2) - max(y, y2))
    return across * down / min(w * h, w2 * h2)


def _street(rng: Generator, width: int, height: int) -> Image.Image:
    """Sky, houses, trees and a road, with posts and bins that are nothing to detect."""
    horizon = round(height * rng.uniform(0.34, 0.46))
    sky = _gradient(width, horizon, (110, 160, 215), (205, 222, 235), rng, spread=18)
    ground = _gradient(width, height - horizon, (122, 122, 124), (88, 89, 92), rng, spread=6)
    canvas = Image.new("RGB", (width, height))
    canvas.paste(sky, (0, 0))
    canvas.paste(ground, (0, horizon))
    draw = ImageDraw.Draw(canvas)
    x = -round(rng.uniform(0, 0.1) * width)
    while x < width:
        w, h = round(rng.uniform(0.09, 0.24) * width), round(rng.uniform(0.12, 0.36) * height)
        if rng.random() < 0.75:
            _house(draw, rng, x, horizon - h, w, h)
        x += w + round(rng.uniform(0, 0.04) * width)
    pavement = horizon + round(0.08 * height)
    draw.rectangle((0, horizon, width, pavement), fill=_vary(rng, (150, 146, 138), 12))
    draw.line((0, pavement, width, pavement), fill=_vary(rng, (190, 186, 178), 10), width=3)
    for _ in range(rng.integers(0, 4)):
        _tree(draw, rng, round(rng.uniform(0, width)), pavement, round(rng.uniform(0.25, 0.42) * height))
    for _ in range(rng.integers(0, 4)):
        _post(draw, rng, round(rng.uniform(0, width)), pavement, round(rng.uniform(0.2, 0.4) * height))
    vanishing = round(rng.uniform(0.3, 0.7) * width)
    for foot in (rng.uniform(-0.3, 0.3), rng.uniform(0.7, 1.3)):
        _dashes(draw, vanishing, horizon, round(foot * width), pavement, height)
    return canvas


def _gradient(
    width: int, height: int, top: Colour, bottom: Colour, rng: Generator, *, spread: int
) -> Image.Image:
    """A vertical gradient with a little variation of both colours."""
    rows = np.linspace(_vary(rng, top, spread), _vary(rng, bottom, spread), height)
    return Image.fromarray(np.repeat(rows[:, None], width, axis=1).astype(np.uint8))


def _house(draw: Draw, rng: Generator, x: int, y: int, w: int, h: int) -> None:
    wall = _vary(
        rng, [(176, 140, 118), (158, 160, 165), (196, 184, 158), (140, 110, 100)][rng.integers(4)], 15
    )
    draw.rectangle((x, y, x + w, y + h), fill=wall)
    if rng.random() < 0.5:
        draw.polygon((x, y, x + w // 2, y - w // 5, x + w, y), fill=_shade(wall, 0.7))
    columns, rows = max(1, w // 22), max(1, h // 26)
    pane = (235, 214, 150) if rng.random() < 0.3 else _shade(wall, 0.55)
    for column in range(columns):
        for row in range(rows):
            left, top = x + w * (column + 0.3) / columns, y + h * (row + 0.25) / rows
            draw.rectangle((left, top, left + 0.4 * w / columns, top + 0.45 * h / rows), fill=pane)


def _tree(draw: Draw, rng: Generator, x: int, base: int, h: int) -> None:
    draw.rectangle((x - h // 20, base - h // 2, x + h // 20, base), fill=_vary(rng, (92, 70, 52), 10))
    leaf = _vary(rng, (72, 112, 62), 18)
    for _ in range(6):
        r = h * rng.uniform(0.14, 0.22)
        cx, cy = x + rng.uniform(-0.18, 0.18) * h, base - h * rng.uniform(0.55, 0.85)
        draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=_vary(rng, leaf, 14))


def _post(draw: Draw, rng: Generator, x: int, base: int, h: int) -> None:
    """A lamp, a sign or a bin."""
    kind = rng.integers(3)
    if kind == 2:
        draw.rectangle((x, base - h // 3, x + h // 4, base), fill=_vary(rng, (70, 90, 80), 20))
        draw.rectangle((x - 2, base - h // 3 - 4, x + h // 4 + 2, base - h // 3), fill=(50, 55, 55))
        return
    draw.rectangle((x - 2, base - h, x + 1, base), fill=(74, 76, 80))
    if kind == 0:
        draw.line((x, base - h, x + h // 5, base - h), fill=(74, 76, 80), width=3)
        draw.ellipse((x + h // 6, base - h - 3, x + h // 4, base - h + 4), fill=(248, 236, 190))
    else:
        r = h // 8
        draw.ellipse((x - r, base - h - r, x + r, base - h + r), fill=(200, 60, 55))
        draw.ellipse((x - r // 2, base - h - r // 2, x + r // 2, base - h + r // 2), fill=(240, 240, 240))


def _dashes(draw: Draw, top_x: int, top_y: int, foot_x: int, start: int, end: int) -> None:
    """A dashed line that runs from the vanishing point to the lower edge and grows on the way."""
    y = float(start + 8)
    while y < end:
        length = 0.16 * (y - top_y) + 2
        y2 = min(y + length, end)
        x, x2 = (top_x + (foot_x - top_x) * (at - top_y) / (end - top_y) for at in (y, y2))
        half = 0.012 * (y - top_y) + 1
        draw.polygon((x - half, y, x + half, y, x2 + half, y2, x2 - half, y2), fill=(206, 204, 196))
        y += 2.2 * length


def _shadow(canvas: Image.Image, x: int, y: int, w: int, h: int) -> None:
    """Darken the ground under an object."""
    depth = max(4, w // 7)
    shade = Image.new("L", (w + depth, depth))
    ImageDraw.Draw(shade).ellipse((0, 0, w + depth - 1, depth - 1), fill=110)
    canvas.paste((25, 26, 30), (x - depth // 2, y + h - depth // 2), shade)


def _car(draw: Draw, rng: Generator, w: int, h: int) -> None:
    """A side view: body, cabin with windows, wheels, lights; every edge of the box is touched."""
    paints = [(186, 40, 42), (38, 82, 160), (228, 228, 226), (58, 60, 66), (214, 170, 48), (60, 124, 92)]
    paint = _vary(rng, paints[rng.integers(len(paints))], 20)
    front, rear = w * rng.uniform(0.18, 0.3), w * rng.uniform(0.82, 0.95)
    belt, sill = h * 0.42, h * 0.84
    roof = ((front, belt), (front + 0.1 * w, 0), (rear - 0.08 * w, 0), (rear, belt))
    draw.polygon(roof, fill=_shade(paint, 0.85))
    middle = (front + rear) / 2
    glass = _vary(rng, (70, 92, 112), 12)
    for left, right in ((front + 0.06 * w, middle - 0.015 * w), (middle + 0.015 * w, rear - 0.05 * w)):
        top_left = max(left, front + 0.115 * w)
        top_right = min(right, rear - 0.095 * w)
        draw.polygon(((left, belt), (top_left, 0.09 * h), (top_right, 0.09 * h), (right, belt)), fill=glass)
    draw.rounded_rectangle((0, belt, w - 1, sill), radius=h * 0.14, fill=paint)
    draw.rectangle((0.02 * w, sill - 0.12 * h, 0.98 * w, sill - 0.02 * h), fill=_shade(paint, 0.6))
    draw.line((0.05 * w, belt + 0.1 * h, 0.95 * w, belt + 0.1 * h), fill=_shade(paint, 1.3), width=2)
    draw.line((middle, belt, middle, sill - 0.12 * h), fill=_shade(paint, 0.6), width=1)
    draw.rectangle((0, belt + 0.1 * h, 0.04 * w, belt + 0.22 * h), fill=(252, 238, 178))
    draw.rectangle((0.96 * w, belt + 0.1 * h, w - 1, belt + 0.22 * h), fill=(196, 30, 30))
    r = 0.19 * h
    for hub in (0.2 * w, 0.79 * w):
        cy = h - 1 - r
        draw.ellipse((hub - r, cy - r, hub + r, cy + r), fill=(26, 26, 28))
        draw.ellipse((hub - r / 2, cy - r / 2, hub + r / 2, cy + r / 2), fill=(158, 160, 164))


def _pedestrian(draw: Draw, rng: Generator, w: int, h: int) -> None:
    """A walker: the stride and the arms span the whole width."""
    coat, legs = (
        _vary(rng, _clothes(rng), 20),
        _vary(rng, [(44, 48, 66), (84, 72, 60), (34, 34, 36)][rng.integers(3)], 10),
    )
    skin = _SKIN[rng.integers(len(_SKIN))]
    middle, hip, limb = w / 2, 0.56 * h, max(3, round(0.16 * w))
    foot = h - 1 - limb / 2
    for end in (limb / 2, w - 1 - limb / 2):
        draw.line((middle, hip, end, foot), fill=legs, width=round(1.3 * limb))
        draw.ellipse((end - limb / 2, foot - limb / 2, end + limb / 2, foot + limb / 2), fill=(28, 26, 26))
        hand = 0.5 * h
        draw.line((middle, 0.24 * h, end, hand), fill=_shade(coat, 0.8), width=limb)
        draw.ellipse((end - limb / 2, hand - limb / 2, end + limb / 2, hand + limb / 2), fill=skin)
    draw.rounded_rectangle((0.24 * w, 0.17 * h, 0.76 * w, 0.6 * h), radius=0.14 * w, fill=coat)
    draw.line((middle, 0.2 * h, middle, 0.58 * h), fill=_shade(coat, 0.75), width=1)
    r = 0.085 * h
    draw.ellipse((middle - r, 0, middle + r, 2 * r), fill=skin)
    draw.pieslice((middle - r, 0, middle + r, 2 * r), 180, 360, fill=_shade(_SKIN[rng.integers(2, 4)], 0.45))


def _cyclist(draw: Draw, rng: Generator, w: int, h: int) -> None:
    """A rider leaning over a bicycle whose wheels span the whole width."""
    shirt, frame = _vary(rng, _clothes(rng), 20), _vary(rng, (200, 60, 40), 50)
    r = min(0.26 * h, 0.27 * w)
    axle = h - 1 - r
    rear, front, saddle = (r, axle), (w - 1 - r, axle), (0.36 * w, 0.52 * h)
    line = max(2, round(0.035 * w))
    for cx, cy in (rear, front):
        draw.ellipse((cx - r, cy - r, cx + r, cy + r), outline=(24, 24, 26), width=max(3, round(0.16 * r)))
        for spoke in (0.3, 1.3, 2.3):
            dx, dy = r * np.cos(spoke), r * np.sin(spoke)
            draw.line((cx - dx, cy - dy, cx + dx, cy + dy), fill=(120, 122, 126), width=1)
    bar, pedal = (0.76 * w, 0.46 * h), (0.5 * w, axle)
    for tube in ((rear, saddle), (saddle, bar), (bar, front), (saddle, pedal), (pedal, rear), (pedal, bar)):
        draw.line(tube, fill=frame, width=line)
    limb = max(3, round(0.1 * w))
    knee, shoulder = (0.58 * w, 0.62 * h), (0.56 * w, 0.22 * h)
    draw.line((saddle, knee, pedal), fill=(44, 46, 58), width=limb, joint="curve")
    draw.line((saddle, shoulder), fill=shirt, width=round(2 * limb))
    draw.line((shoulder, (0.7 * w, 0.38 * h), bar), fill=_shade(shirt, 0.8), width=limb, joint="curve")
    head = 0.1 * h
    cx = 0.62 * w
    draw.ellipse((cx - head, 0, cx + head, 2 * head), fill=_SKIN[rng.integers(len(_SKIN))])
    draw.pieslice((cx - head, 0, cx + head, 2 * head), 170, 370, fill=_vary(rng, (60, 130, 200), 60))


_SHAPES: dict[str, Callable[[Draw, Generator, int, int], None]] = {
    "Car": _car,
    "Pedestrian": _pedestrian,
    "Cyclist": _cyclist,
}


def _light(rng: Generator, image: Image.Image) -> Image.Image:
    """Time of day, a light from one side, and sensor noise."""
    pixels = np.asarray(image, np.float32)
    tint = rng.uniform(0.65, 1.15) * (1 + rng.uniform(-0.08, 0.08) * np.array([1, 0, -1]))
    side = np.linspace(1, rng.uniform(0.8, 1.2), image.width)[None, :, None]
    noise = rng.normal(0, rng.uniform(1, 5), (image.height, image.width, 1))
    return Image.fromarray((pixels * tint * side + noise).clip(0, 255).astype(np.uint8))


def _clothes(rng: Generator) -> Colour:
    colours = [(196, 58, 60), (52, 98, 178), (232, 190, 64), (70, 140, 90), (150, 80, 150), (220, 220, 214)]
    return colours[rng.integers(len(colours))]


def _vary(rng: Generator, colour: Colour, spread: int) -> Colour:
    red, green, blue = np.clip(np.array(colour) + rng.integers(-spread, spread + 1, 3), 0, 255).tolist()
    return red, green, blue


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(value * factor)) for value in colour)
    return red, green, blue

"""Draw the layers of the package from its code: `python docs/draw_layers.py > docs/images/layers.svg`.

A row is a level of tests/test_layers.py, imports point down; a box is a package or module.
"""

import sys
from collections import Counter
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from test_layers import LEVELS, imports, level, modules  # noqa: E402

WIDTH, LEFT, ROW, BOX, GAP = 1100, 20, 62, 34, 6
COLOURS = ("#0b4f6c", "#146c8c", "#1f8a8c", "#3a9d7c", "#6aa84f", "#a3a635", "#c9952b", "#cf7a2f", "#c25b3a")
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">
<style>text{{font-size:12px;fill:#fff}}.side{{fill:#666;font-size:11px}}.line{{stroke:#888;stroke-opacity:.22;fill:none}}
</style>"""


def unit(name: str) -> str:
    """The box of a module: its top package; report's modules by their level."""
    top = name.split(".")[0]
    return f"report {level(name)}" if top == "report" else top


def main() -> None:
    """Write the picture to standard output."""
    lines: Counter[str] = Counter()
    levels: dict[str, int] = {}
    edges: set[tuple[str, str]] = set()
    for name, file in modules():
        number = level(name)
        if number is None:
            continue
        box = unit(name)
        lines[box] += len(file.read_text().splitlines())
        levels[box] = number
        for target in imports(file):
            inner = target.removeprefix("frcnn.")
            if target.startswith("frcnn.") and level(inner) is not None and unit(inner) != box:
                edges.add((box, unit(inner)))
    height = len(LEVELS) * ROW + 40
    parts, places = [], {}
    for number in range(len(LEVELS)):
        row = sorted((box for box in levels if levels[box] == number), key=lambda box: -lines[box])
        room = WIDTH - 2 * LEFT - GAP * (len(row) - 1)
        least = {box: 7.2 * len(label(box)) + 12 for box in row}
        extra = max(room - sum(least.values()), 0) / max(sum(lines[box] for box in row), 1)
        wides = {box: least[box] + min(extra, 0.1) * lines[box] for box in row}
        x = (WIDTH - sum(wides.values()) - GAP * (len(row) - 1)) / 2
        y = height - 20 - (number + 1) * ROW + (ROW - BOX)
        for box in row:
            wide = wides[box]
            places[box] = (x + wide / 2, y)
            title = f"<title>{escape(label(box))}: {lines[box]:,} lines</title>"
            colour = COLOURS[number % len(COLOURS)]
            shape = f'x="{x:.0f}" y="{y}" width="{wide:.0f}" height="{BOX}" rx="5" fill="{colour}"'
            parts.append(
                f"<rect {shape}>{title}</rect>"
                f'<text x="{x + wide / 2:.0f}" y="{y + 21}" text-anchor="middle">{escape(label(box))}</text>'
            )
            x += wide + GAP
    paths = [
        '<path class="line" d="M{:.0f} {} L{:.0f} {}"/>'.format(places[a][0], places[a][1] + BOX, *places[b])
        for a, b in sorted(edges)
        if a in places and b in places and levels[a] > levels[b]
    ]
    said = "imports point down; wide boxes have many lines"
    note = f'<text class="side" x="{LEFT}" y="{height - 6}">{said}</text>'
    sys.stdout.write(
        "\n".join([HEAD.format(width=WIDTH, height=height), *paths, *parts, note, "</svg>"]) + "\n"
    )


def label(box: str) -> str:
    """The name on a box."""
    return box.split(" ")[0]


if __name__ == "__main__":
    main()

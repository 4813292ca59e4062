"""Charts: where points lie, what is left out, what the legend says."""

import re

import numpy as np
import pytest
from html_reader import Reader
from hypothesis import given
from hypothesis import strategies as st

from frcnn.report.charts import ACROSS, BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Line, line_chart


def line(y, x=None, name="a", **options):
    x = np.arange(1, len(y) + 1) if x is None else x
    return Line(name, np.array(x, dtype=float), np.array(y, dtype=float), **options)


def polylines(chart):
    drawn = re.findall(r'<polyline points="([^"]*)"', chart)
    return [[tuple(map(float, point.split(","))) for point in points.split()] for points in drawn]


def test_points_lie_where_the_axes_say():
    chart = line_chart([line([0, 1, 0.5])], title="T", x_label="epoch", y_range=(0.0, 1.0))
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    assert polylines(chart) == [[(LEFT, bottom), ((LEFT + right) / 2, TOP), (right, (TOP + bottom) / 2)]]
    texts = [text for place, text in Reader(chart).texts if place.endswith("svg/text")]
    assert texts == ["0", "0.2", "0.4", "0.6", "0.8", "1", "1", "2", "3", "epoch"]


def test_decades_are_equally_far_apart_on_a_logarithmic_axis():
    chart = line_chart([line([1, 10, 100])], title="T", x_label="step", log=True)
    heights = [y for _, y in polylines(chart)[0]]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.11)


def test_the_legend_names_lines_with_their_last_value_and_not_the_faint_ones():
    lines = [
        line([3, 2], name="<b>"),
        line([1, 2], name="x", faint=True),
        line([1], name="y", label="AP 0.1"),
    ]
    texts = Reader(line_chart(lines, title="T", x_label="step")).texts
    legend = [text for place, text in texts if place.startswith("figure/ul")]
    assert legend == [" <b> ", "2", " y ", "AP 0.1"]


def test_what_is_no_number_is_left_out():
    chart = line_chart([line([1, float("nan"), float("inf"), 2])], title="T", x_label="step")
    assert len(polylines(chart)[0]) == 2
    assert len(polylines(line_chart([line([0, 1, -2])], title="T", x_label="s", log=True))[0]) == 1
    assert "No values." in line_chart([line([float("nan")])], title="T", x_label="step")
    assert "No values." in line_chart([], title="T", x_label="step")


def test_a_long_line_is_thinned_and_keeps_its_ends():
    points = polylines(line_chart([line(np.arange(10_000) % 7)], title="T", x_label="step"))[0]
    assert len(points) <= ACROSS + 2
    assert (points[0][0], points[-1][0]) == (LEFT, WIDTH - RIGHT)


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=5), st.booleans())
def test_any_values_stay_inside_the_picture(values, log):
    for points in polylines(line_chart([line(values)], title="T", x_label="step", log=log)):
        for x, y in points:
            assert LEFT <= x <= WIDTH
            assert 0 <= y <= HEIGHT

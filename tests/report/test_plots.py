"""Figures hold the data they are given, and their labels do not run into each other."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import result

from frcnn.metrics import ClassResult, EvaluationResult, OperatingPoint
from frcnn.metrics.confusion import Confusion
from frcnn.report.plots import (
    Series,
    calibration_figure,
    confusion_figure,
    map_figure,
    precision_recall_figure,
    smooth,
    spread,
    training_figure,
)


@pytest.fixture
def metrics():
    def series(epoch, value):
        return Series(np.arange(1.0, len(value) + 1), np.array(epoch), np.array(value))

    return {
        "train/loss": series([1, 1, 2], [4.0, 2.0, 1.0]),
        "lr": series([1, 1, 2], [0.1, 0.2, 0.3]),
        "val/mAP": series([1, 2], [0.25, 0.5]),
        "val/AP/car": series([1, 2], [0.5, 0.625]),
        "val/AP/van": series([1, 2], [0.0, 0.375]),
    }


def drawn(figure):
    """Render, so that layout and fonts are exercised."""
    figure.canvas.draw()
    return figure


def test_training_figure(metrics):
    losses, rates = drawn(training_figure(metrics)).axes
    assert losses.get_yscale() == "log"
    assert losses.lines[-1].get_ydata().tolist() == [4, 2, 1]
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ["total"]
    assert rates.lines[0].get_ydata().tolist() == [0.1, 0.2, 0.3]


def test_map_figure_counts_epochs_from_one_and_names_every_line(metrics):
    axes = drawn(map_figure(metrics)).axes[0]
    assert axes.lines[0].get_xdata().tolist() == [1, 2]
    assert {text.get_text() for text in axes.texts} == {"car 0.625", "van 0.375", "mAP 0.500"}
    assert axes.get_title(loc="right") == "best mAP 0.500 in epoch 2"


@pytest.mark.parametrize("draw", [training_figure, map_figure])
def test_a_run_that_logged_nothing_is_an_empty_figure(draw):
    assert not drawn(draw({})).axes[0].lines


def test_precision_recall_figure_leaves_out_what_is_undefined():
    curve = (np.array([1.0, 0.5, 2 / 3]), np.array([0.5, 0.5, 1.0]))
    common = {"precision": None, "recall": None, "rpn_recall": None, "ground_truth": 2, "difficult": 0}
    common |= {"ignored": 0, "calibration": None}
    car = ClassResult(
        AP=0.8,
        AP_per_iou=(0.8,),
        best_f1=OperatingPoint(0.3, 2 / 3, 1.0),
        detections=3,
        curves=(curve,),
        **common,
    )
    empty = (np.zeros(0), np.zeros(0))
    van = ClassResult(AP=None, AP_per_iou=(None,), best_f1=None, detections=0, curves=(empty,), **common)
    bus = ClassResult(AP=0.0, AP_per_iou=(0.0,), best_f1=None, detections=0, curves=(empty,), **common)
    result = EvaluationResult(
        mAP=0.8,
        mAP_per_iou=(0.8,),
        metric="area",
        iou_thresholds=(0.5,),
        score_threshold=0.0,
        images=1,
        per_class={"car": car, "van": van, "bus": bus},
        coco={},
        confusion=Confusion(((0,) * 4,) * 4, (0.5,) * 3),
    )
    axes = drawn(precision_recall_figure(result)).axes[0]
    envelope, best = axes.lines
    assert envelope.get_label() == "car  AP 0.800"
    assert envelope.get_xdata().tolist() == [0, 0.5, 0.5, 1]
    assert envelope.get_ydata() == pytest.approx([1, 1, 2 / 3, 2 / 3])
    assert (best.get_xdata(), best.get_ydata()) == ([1.0], [2 / 3])


def test_smooth_keeps_short_curves_and_the_mean_of_constant_ones():
    assert smooth(np.array([3.0, 1.0, 2.0])).tolist() == [3, 1, 2]
    assert smooth(np.full(100, 7.0)) == pytest.approx(7)
    noise = np.random.default_rng(0).normal(size=400)
    assert smooth(noise).std() < noise.std() / 3


def test_spread_moves_only_what_is_too_close():
    assert spread([0.2, 0.8], gap=0.1) == [0.2, 0.8]
    assert spread([0.5, 0.5], gap=0.1) == pytest.approx([0.45, 0.55])
    assert spread([1.0, 0.98, 0.1], gap=0.1) == pytest.approx([1.0, 0.9, 0.1])


@given(st.lists(st.floats(0, 1), max_size=20))
def test_spread_keeps_order_distance_and_bounds(heights):
    placed = spread(heights, gap=0.05)
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    assert all(placed[b] - placed[a] >= 0.05 - 1e-6 for a, b in pairwise(order))
    assert all(-1e-6 <= height <= 1 + 1e-6 for height in placed)


def test_calibration_and_confusion_show_every_class():
    found = result()
    axes, below = drawn(calibration_figure(found)).axes
    assert [line.get_label() for line in axes.lines[1:]] == [
        "<b>car</b>  error 0.100",
        'a "van" & co  error 0.100',
    ]
    assert sum(bar.get_height() for bar in below.patches) == 16
    axes = drawn(confusion_figure(found)).axes[0]
    assert [int(text.get_text()) for text in axes.texts] == [5, 1, 0, 2, 0, 3, 0, 1, 0, 0, 0, 0, 2, 1, 0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["<b>car</b>", 'a "van" & co', "x" * 23 + "…", "background"]

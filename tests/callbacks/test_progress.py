"""What a terminal and a log file show of a training."""

import io
import logging
import re

import pytest
from rich.console import Console

from frcnn.callbacks import TrainingProgress, ValidationMap
from frcnn.callbacks.progress import time_left


def test_time_left_follows_the_pace_so_far():
    assert time_left(elapsed=60, done=30, left=90) == "0:03:00"
    assert time_left(elapsed=1, done=0, left=90) == "?"
    assert time_left(elapsed=1, done=1, left=float("inf")) == "?"


def console(*, terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


@pytest.fixture
def lines(caplog):
    """Our own log lines so far."""
    name = "frcnn.callbacks.progress"
    with caplog.at_level(logging.INFO, logger=name):
        yield lambda: [record.getMessage() for record in caplog.records if record.name == name]


def test_a_log_gets_one_plain_line_per_epoch(fit, detector, lines):
    target = console(terminal=False)
    fit(detector(), ValidationMap(["car"]), TrainingProgress(console=target))
    first, second = lines()
    pattern = (
        r"epoch 1/2: loss 4\.000 · rpn class 2\.000 · rpn box 1\.000 · rcnn class 0\.500 · rcnn box 0\.500"
        r" · \d+\.\d img/s · ETA 0:00:\d\d · mAP 1\.000"
    )
    assert re.fullmatch(pattern, first)
    assert second.startswith("epoch 2/2: loss 3.000")
    assert "ETA 0:00:00" in second
    assert target.file.getvalue() == ""


def test_a_log_gets_lines_between_when_an_epoch_is_long(fit, detector, lines):
    fit(detector(), TrainingProgress(console=console(terminal=False), log_seconds=0), epochs=1)
    places = [line.split(":")[0] for line in lines()]
    assert places == ["epoch 1/1 step 1/3", "epoch 1/1 step 2/3", "epoch 1/1 step 3/3", "epoch 1/1"]


def test_a_terminal_gets_bars(fit, detector, lines):
    target = console(terminal=True)
    fit(detector(), ValidationMap(["car"]), TrainingProgress(console=target))
    shown = target.file.getvalue()
    for part in ("epoch 2/2", "3/3", "img/s", "ETA 0:00:00", "mAP 1.000", "loss 3.000", "rcnn box 0.375"):
        assert part in shown
    assert not lines()


def test_an_error_gives_the_terminal_back(fit, detector):
    target = console(terminal=True)
    with pytest.raises(ValueError, match="boom"):
        fit(detector(fail_at=(0, 1, ValueError("boom"))), TrainingProgress(console=target))
    assert target.file.getvalue().endswith("\x1b[?25h")  # the cursor is visible again


def test_lightning_can_switch_it_off(fit, detector, lines):
    progress = TrainingProgress(console=console(terminal=False), log_seconds=0)
    progress.disable()
    fit(detector(), progress, epochs=1)
    assert not lines()

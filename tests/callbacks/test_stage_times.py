"""Stages of an evaluation on a clock that we set."""

from types import SimpleNamespace

import pytest

from frcnn.callbacks import StageTimes


def test_medians_leave_the_first_batch_out_and_are_of_one_image(monkeypatch):
    # an image of the data set takes 1, 2, 3 s; batches of two: network 10, 4, 6 s, then 1, 1, 3 s
    clock = iter([0, 1, 1, 3, 3, 6, 10, 20, 21, 30, 34, 35, 40, 46, 49])
    monkeypatch.setattr("frcnn.callbacks.stage_times.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    times, module, batch = (
        StageTimes(),
        SimpleNamespace(backend=SimpleNamespace()),
        SimpleNamespace(ids=["a", "b"]),
    )
    trainer = SimpleNamespace(val_dataloaders=SimpleNamespace(dataset=[0, 0, 0]))
    times.on_validation_start(trainer, module)
    for number in range(3):
        times.on_validation_batch_start(trainer, module, batch, number)
        module.backend.after_network()
        times.on_validation_batch_end(trainer, module, None, batch, number)
    expected = {"pre-processing": 2500, "network": 2500, "post-processing": 1000}
    assert times.medians() == pytest.approx(expected)


def test_nothing_timed_is_nothing_said():
    assert StageTimes().medians() == {}

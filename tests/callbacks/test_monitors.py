"""Learning rate, throughput, first images and last words."""

import time

import pytest
from pytorch_lightning.callbacks import Callback

from frcnn.callbacks import FirstSamples, LastWords, LrMonitor, Throughput
from frcnn.errors import RunError


class Metrics(Callback):
    """What other callbacks and loggers can read after each step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})


class Halving(Callback):
    """Halves the rate after every step, as a schedule does."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.optimizers[0].param_groups[0]["lr"] /= 2


def test_the_rate_is_that_of_the_step_and_not_of_the_next(fit, detector):
    seen = Metrics()
    fit(detector(), LrMonitor(), Halving(), seen, epochs=1)
    assert [step["lr"] for step in seen.steps] == [0.25, 0.125, 0.0625]


def test_images_per_second(fit, detector, monkeypatch):
    # Start of the training and of its epoch, and after each of three steps of two images.
    clock = iter([9.0, 10.0, 11.0, 15.0, 16.0])
    monkeypatch.setattr("frcnn.callbacks.throughput.time.monotonic", lambda: next(clock, time.time()))
    seen = Metrics()
    fit(detector(), Throughput(), seen, epochs=1)
    name = "throughput/images_per_second"
    assert [step[name] for step in seen.steps] == [2.0, 0.5, 2.0]
    assert seen.steps[-1][f"{name}_epoch"] == 1.0
    assert "memory/gpu_GiB" not in seen.steps[-1]


@pytest.mark.parametrize(("count", "shown"), [(1, [1]), (3, [3]), (99, [6])])
def test_first_images_are_shown_once(fit, detector, count, shown):
    calls = []
    fit(detector(), FirstSamples(lambda samples: calls.append(len(samples)), count=count), epochs=2)
    assert calls == shown


def test_first_images_of_a_training_that_fails_are_shown(fit, detector):
    calls = []
    model = detector(fail_at=(0, 1, RuntimeError("no memory")))
    with pytest.raises(RuntimeError):
        fit(model, FirstSamples(lambda samples: calls.append(len(samples)), count=99))
    assert calls == [4]


def test_last_words_are_told_why(fit, detector, caplog):
    ends = []
    with pytest.raises(RuntimeError, match="no memory"):
        fit(detector(fail_at=(1, 0, RuntimeError("no memory"))), LastWords(ends.append))
    with pytest.raises(SystemExit):
        fit(detector(fail_at=(1, 0, KeyboardInterrupt())), LastWords(ends.append))
    assert [type(end) for end in ends] == [RuntimeError, KeyboardInterrupt]
    fit(detector(), LastWords(ends.append))
    assert len(ends) == 2

    def full(_):
        raise RunError("no space left")

    with pytest.raises(RuntimeError, match="no memory"):  # still the reason
        fit(detector(fail_at=(1, 0, RuntimeError("no memory"))), LastWords(full))
    assert "no report of the run: no space left" in caplog.text

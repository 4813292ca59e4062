"""The curves of a training, kept without any logger."""

import torch

from frcnn.callbacks import History, LrMonitor, Throughput, ValidationMap
from frcnn.callbacks import history as module
from frcnn.report.plots import map_figure, training_figure


def test_steps_and_epochs_count_from_one(fit, detector):
    history = History()
    model = detector(finds=(False, True))
    fit(model, ValidationMap(["car"]), LrMonitor(), Throughput(), history)
    series = history.series()
    assert series["train/loss"].value.tolist() == [4, 4, 4, 3, 3, 3]
    assert series["train/loss"].step.tolist() == [1, 2, 3, 4, 5, 6]
    assert series["train/loss"].epoch.tolist() == [1, 1, 1, 2, 2, 2]
    assert series["lr"].value.tolist() == [0.25] * 6
    assert series["train/loss_rpn_class_epoch"].value.tolist() == [2, 1.5]
    assert (series["val/mAP"].epoch.tolist(), series["val/mAP"].value.tolist()) == ([1, 2], [0, 1])
    assert series["val/AP/car"].step.tolist() == [3, 6]
    assert (series["throughput/images_per_second_epoch"].value > 0).all()
    assert map_figure(series).axes[0].lines
    assert training_figure(series).axes[1].lines


def test_an_epoch_without_validation_has_no_figures_of_an_earlier_one(fit, detector):
    history = History()
    fit(detector(), ValidationMap(["car"]), history, epochs=3, check_val_every_n_epoch=2)
    assert ["val/mAP" in row for row in history.epochs] == [False, True, False]


def test_a_validation_after_the_end_belongs_to_the_last_epoch(fit, detector, loader):
    history = History()
    trainer = fit(
        detector(finds=(True,) * 4), ValidationMap(["car"]), history, epochs=3, check_val_every_n_epoch=2
    )
    trainer.validate(trainer.lightning_module, loader(2), verbose=False)
    assert history.epochs[-1]["epoch"] == 3
    assert history.epochs[-1]["val/mAP"] == 1.0


def test_a_resumed_run_goes_on_with_the_curves_of_its_checkpoint(tmp_path, fit, detector):
    whole, first, second = History(), History(), History()
    fit(detector(), whole, epochs=3)
    fit(detector(), first, epochs=1).save_checkpoint(tmp_path / "one.ckpt")
    stored = torch.load(tmp_path / "one.ckpt", weights_only=True)
    assert stored["callbacks"]["History"]["epochs"][0]["epoch"] == 1
    fit(detector(), second, epochs=3, ckpt_path=tmp_path / "one.ckpt")
    for name in ("train/loss", "train/loss_epoch"):
        assert second.series()[name].value.tolist() == whole.series()[name].value.tolist()
        assert second.series()[name].step.tolist() == whole.series()[name].step.tolist()


def test_a_long_training_keeps_every_second_step_then_every_fourth(fit, detector, monkeypatch):
    monkeypatch.setattr(module, "POINTS", 2)
    history = History()
    fit(detector(losses=(8.0, 4.0, 2.0, 1.0)), history, epochs=4)  # 12 steps
    # Steps 1 to 4 become 2 and 4, 6 and 8 join them, and so on; a value is the mean of what it stands for.
    assert history.series()["train/loss"].step.tolist() == [4, 8, 12]
    assert history.series()["train/loss"].value.tolist() == [7.0, 3.0, 1.0]


def test_nothing_trained_is_nothing_to_show():
    assert History().series() == {}

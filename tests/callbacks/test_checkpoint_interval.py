"""Which checkpoint files a run leaves, what they hold, and how a resumed run goes on."""

import logging

import pytest
import torch

from frcnn.callbacks import CheckpointInterval, ValidationMap


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def epoch_of(path):
    """Epochs that the checkpoint has finished."""
    loops = torch.load(path, weights_only=True)["loops"]
    return loops["fit_loop"]["epoch_progress"]["total"]["processed"]


def test_names_and_contents(tmp_path, fit, detector):
    folder = tmp_path / "checkpoints"
    checkpoints = CheckpointInterval(folder, stem="frcnn_resnet_10", interval=2, total_epochs=3)
    fit(detector(finds=(False, True, False)), ValidationMap(["car"]), checkpoints, epochs=3)
    assert files(folder) == ["best.ckpt", "frcnn_resnet_10.epoch_2.ckpt", "last.ckpt"]
    assert epoch_of(folder / "last.ckpt") == 3
    assert epoch_of(folder / "best.ckpt") == 2
    assert checkpoints.best == {"epoch": 2, "mAP": 1.0, "checkpoint": "best.ckpt"}


def test_nothing_is_serialised_twice(tmp_path, fit, detector, monkeypatch):
    saved = []
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda *a, **k: (saved.append(1), save(*a, **k)))
    fit(detector(), ValidationMap(["car"]), CheckpointInterval(tmp_path / "c", total_epochs=1), epochs=1)
    assert len(saved) == 1
    inodes = {(tmp_path / "c" / name).stat().st_ino for name in files(tmp_path / "c")}
    assert len(files(tmp_path / "c")) == 3
    assert len(inodes) == 1


def test_without_validation_there_is_no_best(tmp_path, fit, detector):
    checkpoints = CheckpointInterval(tmp_path / "c", total_epochs=1)
    fit(detector(), checkpoints, epochs=1, limit_val_batches=0)
    assert files(tmp_path / "c") == ["frcnn_resnet_18.epoch_1.ckpt", "last.ckpt"]
    assert checkpoints.best is None


def test_the_first_validation_is_the_best_even_at_zero(tmp_path, fit, detector):
    checkpoints = CheckpointInterval(tmp_path / "c", total_epochs=2)
    fit(detector(finds=(False, False)), ValidationMap(["car"]), checkpoints, check_val_every_n_epoch=2)
    assert checkpoints.best == {"epoch": 2, "mAP": 0.0, "checkpoint": "best.ckpt"}


def test_an_interval_beyond_the_run_warns_and_still_saves(tmp_path, fit, detector, caplog):
    with caplog.at_level(logging.WARNING):
        fit(detector(), CheckpointInterval(tmp_path / "c", interval=5, total_epochs=1), epochs=1)
    assert "checkpoint_interval 5 is more than the 1 epochs" in caplog.text
    assert "last.ckpt" in files(tmp_path / "c")
    assert not [name for name in files(tmp_path / "c") if "epoch_" in name]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("boom")])
def test_an_interrupted_run_keeps_its_last_whole_epoch(tmp_path, fit, detector, error):
    model = detector(fail_at=(1, 1, error))
    with pytest.raises((SystemExit, ValueError)):
        fit(model, CheckpointInterval(tmp_path / "c", total_epochs=3), epochs=3)
    assert epoch_of(tmp_path / "c" / "last.ckpt") == 1


def test_a_resumed_run_does_the_rest_and_remembers_the_best(tmp_path, fit, detector):
    first = CheckpointInterval(tmp_path / "c", total_epochs=1)
    fit(detector(), ValidationMap(["car"]), first, epochs=1)

    second = CheckpointInterval(tmp_path / "c", total_epochs=3)
    trainer = fit(
        detector(finds=(True, False, False)),
        ValidationMap(["car"]),
        second,
        epochs=3,
        ckpt_path=tmp_path / "c" / "last.ckpt",
    )
    assert trainer.global_step == 3 * 3
    assert second.best == {"epoch": 1, "mAP": 1.0, "checkpoint": "best.ckpt"}
    assert epoch_of(tmp_path / "c" / "best.ckpt") == 1
    assert epoch_of(tmp_path / "c" / "last.ckpt") == 3


def test_a_best_that_is_not_in_the_folder_does_not_count(tmp_path):
    checkpoints = CheckpointInterval(tmp_path, total_epochs=1)
    checkpoints.load_state_dict({"best": {"epoch": 4, "mAP": 0.9, "checkpoint": "best.ckpt"}})
    assert checkpoints.best is None


def test_a_run_that_branches_off_before_its_best_looks_for_a_new_one(tmp_path, fit, detector):
    folder = tmp_path / "c"
    fit(detector(finds=(False, True)), ValidationMap(["car"]), CheckpointInterval(folder, total_epochs=2))
    assert epoch_of(folder / "best.ckpt") == 2
    branch = CheckpointInterval(folder, total_epochs=2)
    first = folder / "frcnn_resnet_18.epoch_1.ckpt"
    fit(detector(finds=(False, False)), ValidationMap(["car"]), branch, ckpt_path=first)
    assert branch.best == {"epoch": 2, "mAP": 0.0, "checkpoint": "best.ckpt"}
    assert torch.load(folder / "best.ckpt", weights_only=True) != {}
    assert (folder / "best.ckpt").samefile(folder / "last.ckpt")

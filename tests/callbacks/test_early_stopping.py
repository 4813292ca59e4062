"""Training ends once the mean training loss stops falling."""

import logging

import pytest

from frcnn.callbacks import CheckpointInterval, LossEarlyStopping


@pytest.mark.parametrize(
    ("losses", "min_delta", "patience", "epochs"),
    [
        ((4.0, 3.0, 2.0, 1.0, 0.5), 0.0, 1, 5),
        ((4.0, 4.0, 4.0, 4.0, 4.0), 0.0, 1, 2),
        ((4.0, 5.0, 3.0, 4.0, 2.5), 0.0, 2, 5),
        ((4.0, 3.75, 3.5, 3.25, 3.0), 1.0, 2, 3),  # falls, but not yet by more than min_delta
        ((4.0, 3.75, 3.5, 2.75, 2.0), 1.0, 3, 5),  # compared with the best, 4.0, not with the one before
    ],
)
def test_stops_after_patience(fit, detector, caplog, losses, min_delta, patience, epochs):
    stopping = LossEarlyStopping(patience=patience, min_delta=min_delta)
    with caplog.at_level(logging.INFO):
        trainer = fit(detector(losses=losses), stopping, epochs=5, limit_val_batches=0)
    assert trainer.current_epoch == epochs
    said = "did not improve in the last" in caplog.text
    assert said == (epochs < 5)


def test_a_resumed_run_goes_on_counting_with_the_patience_of_its_settings(tmp_path, fit, detector):
    falls_once = detector(losses=(4.0, 5.0, 5.0, 5.0, 5.0, 5.0))
    checkpoints = CheckpointInterval(tmp_path / "c", total_epochs=2)
    fit(falls_once, LossEarlyStopping(patience=2), checkpoints, epochs=2, limit_val_batches=0)
    for patience, epochs in ((2, 3), (4, 5)):  # one epoch of waiting was behind it
        trainer = fit(
            detector(losses=falls_once.losses),
            LossEarlyStopping(patience=patience),
            epochs=6,
            limit_val_batches=0,
            ckpt_path=tmp_path / "c" / "last.ckpt",
        )
        assert trainer.current_epoch == epochs

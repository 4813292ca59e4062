"""Training ends once the mean training loss stops falling."""

import logging

import pytest

from frcnn.callbacks import LossEarlyStopping


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

"""The figures of a run, from the callbacks through Lightning's CSVLogger to the curves."""

from pytorch_lightning.loggers import CSVLogger

from frcnn.callbacks import ValidationMap
from frcnn.report.plots import map_figure, read_metrics, training_figure


def test_a_run_can_be_plotted(tmp_path, fit, detector):
    logger = CSVLogger(tmp_path, name="", version="")
    fit(detector(finds=(False, True)), ValidationMap(["car"]), logger=logger)
    metrics = read_metrics(tmp_path / "metrics.csv")
    assert metrics["train/loss"].value.tolist() == [4, 4, 4, 3, 3, 3]
    assert metrics["train/loss"].step.tolist() == [0, 1, 2, 3, 4, 5]
    assert metrics["val/mAP"].epoch.tolist() == [0, 1]
    assert metrics["val/AP/car"].value.tolist() == [0, 1]
    assert map_figure(metrics).axes[0].lines
    assert training_figure(metrics).axes[0].lines

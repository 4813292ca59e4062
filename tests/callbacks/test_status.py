"""status.json, line by line."""

import json
import re

from frcnn.callbacks import LrMonitor, StatusWriter, ValidationMap

COMMON = {"date", "time", "status", "verbosity", "message"}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_training_from_start_to_end(tmp_path, fit, detector):
    path = tmp_path / "new" / "status.json"
    model = detector(finds=(True, False, True))
    fit(model, LrMonitor(), ValidationMap(["car"]), StatusWriter(path), epochs=3, check_val_every_n_epoch=2)
    start, first, second, third, end = lines(path)
    assert set(start) == COMMON
    assert (start["status"], start["message"]) == ("STARTED", "Starting Training Loop.")
    assert (end["status"], end["message"]) == ("RUNNING", "Training loop complete.")

    assert (first["status"], first["verbosity"]) == ("RUNNING", "INFO")
    assert first["message"] == "Training loop in progress"
    assert (first["epoch"], first["max_epoch"]) == (1, 3)
    assert re.fullmatch(r"0:00:\d\d(\.\d+)?", first["time_per_epoch"])
    assert re.fullmatch(r"0:00:\d\d(\.\d+)?", first["eta"])
    assert third["eta"] == "0:00:00"
    assert first["graphical"] == {
        "loss": "4.0",
        "rpn_out_class_loss": "2.0",
        "rpn_out_regress_loss": "1.0",
        "dense_class_td_loss": "0.5",
        "dense_regress_td_loss": "0.5",
        "learning_rate": "0.25",
    }
    assert "kpi" not in first  # these epochs were not validated
    assert "kpi" not in third
    assert "mean average precision" not in third["graphical"]
    assert second["kpi"] == {"mean average precision": "0.0"}
    assert second["graphical"]["mean average precision"] == "0.0"


def test_dates_and_times_are_not_padded(tmp_path, monkeypatch):
    from frcnn import status

    class Clock(status.datetime):
        @classmethod
        def now(cls):
            return cls(2026, 3, 4, 5, 6, 7)

    monkeypatch.setattr(status, "datetime", Clock)
    writer = StatusWriter(tmp_path / "status.json")
    writer.write("SUCCESS", "Evaluation finished successfully.", kpi={"mAP": 0.5})
    assert (tmp_path / "status.json").read_text() == (
        '{"date": "3/4/2026", "time": "5:6:7", "status": "SUCCESS", "verbosity": "INFO", '
        '"message": "Evaluation finished successfully.", "kpi": {"mAP": 0.5}}\n'
    )


def test_a_line_that_cannot_be_written_is_no_reason_to_stop(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    StatusWriter(tmp_path / "file" / "status.json").write("RUNNING", "on we go")
    assert "could not be written" in caplog.text

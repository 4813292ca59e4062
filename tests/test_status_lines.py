"""Lines of status.json."""

import json

from frcnn.status import StatusFile


def test_lines(tmp_path):
    path = tmp_path / "deep" / "status.json"
    StatusFile(path).write("STARTED", "begins")
    StatusFile(path).write("RUNNING", "runs", data={"epoch": 1}, graphical={"loss": "1.0"}, kpi={})
    first, second = map(json.loads, path.read_text().splitlines())
    assert [*first] == ["date", "time", "status", "verbosity", "message"]
    assert (first["status"], first["verbosity"]) == ("STARTED", "INFO")
    assert (second["epoch"], second["graphical"]) == (1, {"loss": "1.0"})
    assert "kpi" not in second


def test_a_file_that_cannot_be_written_ends_nothing(tmp_path, caplog):
    StatusFile(tmp_path).write("STARTED", "begins")
    assert "could not be written" in caplog.text

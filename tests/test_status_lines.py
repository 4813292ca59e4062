"""Lines of status.json."""

import json

import pytest
from specs import TINY

from frcnn.bridge.convert import main as convert_spec
from frcnn.reference import main as check_reference
from frcnn.status import StatusFile, reported


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


def statuses(folder):
    return [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]


def test_a_command_in_its_results_folder(tmp_path):
    with reported(tmp_path / "new", start="a", end="b") as kpi:
        kpi["mAP"] = 0.5
    lines = statuses(tmp_path / "new")
    assert [(line["status"], line["message"]) for line in lines] == [("STARTED", "a"), ("SUCCESS", "b")]
    assert lines[-1]["kpi"] == {"mAP": 0.5}


def test_a_command_that_fails(tmp_path):
    with pytest.raises(KeyboardInterrupt), reported(tmp_path, start="a", end="b"):
        raise KeyboardInterrupt
    last = statuses(tmp_path)[-1]
    assert (last["status"], last["message"], last["verbosity"]) == ("FAILURE", "KeyboardInterrupt", "ERROR")


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with reported(None, start="a", end="b"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_convert_spec(tmp_path):
    (tmp_path / "spec.txt").write_text(TINY)
    out = str(tmp_path / "spec.yaml")
    assert convert_spec([str(tmp_path / "spec.txt"), out, "-r", str(tmp_path / "good")]) == 0
    assert statuses(tmp_path / "good")[-1]["status"] == "SUCCESS"
    assert convert_spec([str(tmp_path / "missing.txt"), out, "-r", str(tmp_path / "bad")]) == 2
    assert "no such file" in statuses(tmp_path / "bad")[-1]["message"]


def test_check_reference(tmp_path):
    assert check_reference([str(tmp_path), "-r", str(tmp_path / "out")]) == 2
    last = statuses(tmp_path / "out")[-1]
    assert (last["status"], last["kpi"]) == ("FAILURE", {"stages": 0, "stages_that_hold": 0})

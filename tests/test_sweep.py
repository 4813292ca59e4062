"""The record of a sweep: its table, its plot, and what is known of jobs that ended in any way."""

import csv
import json
import os
import socket

import pytest
from PIL import Image

from frcnn import sweep
from frcnn.errors import RunError, SpecError


def make_job(
    root, number, *overrides, score=None, exit_code=0, metric="val/mAP", direction="maximize", **record
):
    folder = root / str(number)
    folder.mkdir(parents=True)
    whole = {
        "job": number,
        "overrides": list(overrides),
        "direction": direction,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "seconds": 1.25,
        "exit_code": exit_code,
        "message": "",
    }
    (folder / "job.json").write_text(json.dumps(whole | record))
    if score is not None:
        classes = {"car": {"AP": score + 0.1}, "van": {"AP": None}}
        found = {"mAP": score, "per_class": classes, "optimized": {"metric": metric, "value": score}}
        (folder / "results.json").write_text(json.dumps(found))
    return folder


def table(root):
    with (root / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_row_per_job_with_what_differs(tmp_path):
    make_job(tmp_path, 10, "random_seed=1", "lr=step", "optimizer=adam", score=0.25)
    make_job(tmp_path, 2, "random_seed=1", "lr=soft_start", "optimizer=adam", score=0.5)
    failed = {"exit_code": 1, "message": "no more memory\n  try: less"}
    make_job(tmp_path, 3, "random_seed=1", "lr=step", "optimizer=sgd", **failed)
    sweep.write_table(tmp_path)
    rows = table(tmp_path)
    assert [row["job"] for row in rows] == ["2", "3", "10"]
    columns = ["job", "status", "best", "lr", "optimizer", "mAP", "AP/car", "AP/van", "seconds", "folder"]
    assert list(rows[0]) == [*columns, "message"]
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert [row["best"] for row in rows] == ["best", "", ""]
    assert [row["mAP"] for row in rows] == ["0.5", "", "0.25"]
    assert (rows[0]["AP/car"], rows[0]["AP/van"], rows[0]["folder"]) == ("0.6", "", "2")
    assert rows[1]["message"] == "no more memory"
    with Image.open(tmp_path / "sweep.png") as image:
        assert min(image.size) > 300


def test_a_loss_is_best_where_it_is_smallest_and_has_a_column(tmp_path):
    for number, loss in enumerate((0.7, 0.3, 0.5)):
        make_job(
            tmp_path, number, f"a.lr={loss}", score=loss, metric="train/loss_epoch", direction="minimize"
        )
    jobs = sweep.write_table(tmp_path)
    assert sweep.best_job(jobs).number == 1
    assert [row["train/loss_epoch"] for row in table(tmp_path)] == ["0.7", "0.3", "0.5"]
    assert [row["job"] for row in sweep.console_rows(jobs)] == ["0", "1 best", "2"]


def test_without_a_score_there_is_nothing_to_draw(tmp_path):
    make_job(tmp_path, 0, exit_code=2)
    assert sweep.best_job(sweep.write_table(tmp_path)) is None
    assert not (tmp_path / "sweep.png").exists()
    assert len(table(tmp_path)) == 1


def test_a_job_without_an_end_runs_or_was_killed(tmp_path):
    make_job(tmp_path, 0, exit_code=None)
    make_job(tmp_path, 1, exit_code=None, pid=2**22 + 1)  # more than Linux gives
    make_job(tmp_path, 2, exit_code=None, pid=2**22 + 1, host="elsewhere")
    make_job(tmp_path, 3, exit_code=130)
    assert [job.status for job in sweep.read_jobs(tmp_path)] == [
        "running",
        "killed",
        "running",
        "interrupted",
    ]


def test_settings_have_the_shortest_name_that_is_their_own(tmp_path):
    make_job(tmp_path, 0, "lr=step", "a.adam.lr=1", "a.weight=1")
    make_job(tmp_path, 1, "lr=soft_start", "a.adam.lr=2", "a.weight=2")
    names = sweep.short_settings(sweep.read_jobs(tmp_path))
    assert names == {"lr": ["step", "soft_start"], "adam.lr": ["1", "2"], "weight": ["1", "2"]}


@pytest.mark.parametrize(
    ("error", "code"), [(SpecError("no such file"), 2), (RunError("lost"), 1), (KeyError("x"), 1)]
)
def test_a_record_says_how_a_job_ended(tmp_path, error, code):
    folder = tmp_path / "0"
    folder.mkdir()
    with (
        pytest.raises(type(error)),
        sweep.recorded(folder, tmp_path, number=0, overrides=["lr=step"], direction="maximize"),
    ):
        assert json.loads((folder / "job.json").read_text())["exit_code"] is None
        assert sweep.in_sweep(folder)
        raise error
    record = json.loads((folder / "job.json").read_text())
    assert (record["exit_code"], record["message"]) == (code, str(error))
    assert table(tmp_path)[0]["status"] == "failed"


def test_an_interrupted_job_is_no_failure(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        sweep.recorded(tmp_path, tmp_path, number=0, overrides=[], direction="maximize"),
    ):
        raise KeyboardInterrupt
    assert table(tmp_path)[0]["status"] == "interrupted"

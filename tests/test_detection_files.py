"""Detections in the formats of others, to the letter."""

import csv
import json

import numpy as np
import pytest

from frcnn.detection_files import DetectionFiles, image_ids, kitti_lines, label_names
from frcnn.predictor import Prediction

FOUND = Prediction(
    boxes=np.array([[1.234, 2, 30.5, 40.126], [0, 0, 10, 10]], np.float32),
    scores=np.array([0.98765432, 0.5], np.float32),
    labels=np.array([1, 0]),
    names=["traffic light", "car"],
    size=(48, 64),
)
NOTHING = Prediction(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), [], (1, 1))


def test_kitti_lines_have_sixteen_columns_as_the_original_writes_them():
    # Facts, eval-prune-export 3: %.2f boxes, %.7f score, zeros for what a detector does not know.
    assert kitti_lines(FOUND).split("\n") == [
        "trafficlight 0 0 0 1.23 2.00 30.50 40.13 0 0 0 0 0 0 0 0.9876543",
        "car 0 0 0 0.00 0.00 10.00 10.00 0 0 0 0 0 0 0 0.5000000",
        "",
    ]
    assert {len(line.split(" ")) for line in kitti_lines(FOUND).splitlines()} == {16}
    assert kitti_lines(NOTHING) == ""


def test_images_that_would_share_a_label_file_do_not():
    names = ["a.b.png", "c.jpg", "c.png", "in/c.png"]
    assert label_names(names) == {
        "a.b.png": "a.b.txt",
        "c.jpg": "c.jpg.txt",
        "c.png": "c.png.txt",
        "in/c.png": "in/c.txt",
    }


def test_image_ids_are_the_numbers_of_coco_s_file_names_or_places():
    assert image_ids(["000000000139.jpg", "000000000285.jpg"]) == {
        "000000000139.jpg": 139,
        "000000000285.jpg": 285,
    }
    assert image_ids(["7.jpg", "x.jpg"]) == {"7.jpg": 1, "x.jpg": 2}
    assert image_ids(["a/7.jpg", "b/7.jpg"]) == {"a/7.jpg": 1, "b/7.jpg": 2}


def test_coco_results_and_the_table(tmp_path):
    with DetectionFiles(tmp_path, tmp_path / "labels", ["17.png", "18.png"]) as files:
        files.add("17.png", NOTHING)
        files.add("18.png", FOUND)
    results = json.loads((tmp_path / "coco.json").read_text())
    assert results[0] == {
        "image_id": 18,
        "category_id": 2,
        "bbox": [1.234, 2.0, 29.266, 38.126],
        "score": 0.9876543,
        "file_name": "18.png",
        "category": "traffic light",
    }
    rows = list(csv.DictReader((tmp_path / "detections.csv").open()))
    assert len(rows) == len(results) == 2
    assert rows[0]["class"] == "traffic light"
    assert (rows[0]["x1"], rows[0]["y2"], rows[0]["image_width"]) == ("1.234", "40.126", "64")
    assert (tmp_path / "labels" / "17.txt").read_text() == ""


def test_files_are_whole_when_the_run_breaks_off(tmp_path):
    files = DetectionFiles(tmp_path, tmp_path / "labels", [])
    with pytest.raises(KeyboardInterrupt), files:
        files.add("film_000001.jpg", FOUND)
        raise KeyboardInterrupt
    assert [item["image_id"] for item in json.loads((tmp_path / "coco.json").read_text())] == [1, 1]


def test_no_detections_at_all(tmp_path):
    with DetectionFiles(tmp_path, tmp_path / "labels", ["a.png"]) as files:
        files.add("a.png", NOTHING)
    assert json.loads((tmp_path / "coco.json").read_text()) == []

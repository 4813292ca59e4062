"""The check command through the real entry point, on data that is fine and on data that is broken."""

import json
import shutil
import subprocess
import sys

import pytest
import runs
import tiny_data
from project import ROOT

from frcnn.bridge.convert import convert, read_spec
from frcnn.entry.check import main

SCALES = "model_config.anchor_box_config.scale=[70,80,90]"
QUICK = ("run.check_steps=0", "run.num_workers=0")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return runs.scenes(tmp_path_factory.mktemp("scenes"), train=6, val=3)


def checked(capsys, *arguments):
    """Exit code and the JSON object."""
    capsys.readouterr()
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def said(result, level=None):
    return {p["message"] for p in result["problems"] if level in (None, p["level"])}


def broken(root):
    """KITTI training and validation data with one of each problem."""
    lines = [tiny_data.label("car", 2, 2, 12, 12), tiny_data.label("car", 2, 2, 12, 12)]  # twice
    images = {
        "twice": lines,
        "beyond": [tiny_data.label("car", 10, 2, 60, 12)],
        "flat": [tiny_data.label("car", 5, 5, 5, 9), tiny_data.label("cyclist", 3, 3, 20, 12)],
        "slip": [tiny_data.label("pedestrain", 3, 3, 20, 12)],
        "short": ["car 0 0", tiny_data.label("car", 4, 4, 20, 12)],
        "ruined": [tiny_data.label("car", 4, 4, 20, 12)],
        "unlabelled": [],
        "crowd": [tiny_data.label("car", i, 2, i + 10, 12) for i in range(12)],
    }
    tiny_data.write_kitti(root / "training", images)
    tiny_data.write_kitti(root / "validation", {"held": lines})
    (root / "training" / "image_2" / "ruined.png").write_bytes(b"no picture")
    (root / "training" / "label_2" / "unlabelled.txt").unlink()
    shutil.copy(root / "training" / "image_2" / "slip.png", root / "validation" / "image_2" / "same.png")
    (root / "validation" / "label_2" / "same.txt").write_text(lines[0] + "\n")
    return root


def test_good_data_is_measured_and_fine(scenes, capsys):
    code, result = checked(capsys, *runs.data(scenes), *runs.SMALL, "run.check_steps=1")
    assert {p["level"] for p in result["problems"]} <= {"warning"}
    assert (code, result["exit_code"]) == (result["exit_code"], {"fine": 0, "warnings": 1}[result["verdict"]])
    facts = {name: section["facts"] for name, section in result["sections"].items()}
    assert facts["training data"]["images"] == 6
    assert facts["validation data"]["images"] == 3
    assert facts["overlap"]["validation_images_in_training"] == 0
    assert 0 <= facts["anchors"]["share_positive"] <= 1
    cost = facts["memory and time"]
    assert cost["steps_per_epoch"] == 3
    assert cost["step_bytes"] > 10**7
    assert cost["epoch_seconds"] > 0


def test_everything_wrong_is_said_at_once(tmp_path, capsys):
    root = broken(tmp_path / "data")
    limit = "model_config.input_image_config.max_objects_num_per_image=10"
    wrong = "training_config.num_epochs=0"
    code, result = checked(capsys, *runs.data(root), *runs.SMALL, *QUICK, limit, wrong)
    assert (code, result["verdict"]) == (2, "errors")
    errors, warnings = said(result, "error"), said(result, "warning")
    assert {
        "not a KITTI label",
        "the image cannot be read",
        "1 of 8 images have no label file",
        "an image holds more objects than there is room for",
    } <= errors
    assert any(
        p["section"] == "settings" and "num_epochs" in p["examples"][0]["where"] for p in result["problems"]
    )
    assert {
        "boxes have no area and are dropped",
        "boxes reach beyond their image and are clipped",
        "boxes are there twice, with the same class, and count twice",
        "validation images are training images, too: their figures say little",
        "'pedestrain' is not mapped, and close to 'pedestrian', which is",
    } <= warnings
    hints = [p["hint"] for p in result["problems"]]
    assert "+dataset_config.target_class_mapping.pedestrain=pedestrian" in hints
    rows = result["sections"]["training data"]["rows"]["classes"]
    assert {row["name in the data"]: row["objects"] for row in rows} == {
        "car": 17,
        "cyclist": 1,
        "pedestrain": 1,
    }


def test_the_screen_says_the_same(tmp_path, capsys):
    root = broken(tmp_path / "data")
    assert main([*runs.data(root), *runs.SMALL, *QUICK]) == 2
    screen = capsys.readouterr().out
    assert "this will not train" in screen
    for words in ("ruined.png", "close to pedestrian", "not looked at: run.check_steps is 0"):
        assert words in screen
    assert max(map(len, screen.splitlines())) <= 120


def test_missing_files_do_not_hide_missing_weights(tmp_path, capsys):
    more = ("training_config.pretrained_weights=nowhere.ckpt",)
    code, result = checked(capsys, *runs.data(tmp_path / "none"), *runs.SMALL, *QUICK, *more)
    assert code == 2
    sections = {p["section"] for p in result["problems"]}
    assert {"training data", "weights"} <= sections
    assert not result["sections"]["anchors"]["looked_at"]


def test_coco_sizes_and_boxes(tmp_path, capsys):
    content = tiny_data.coco(
        ["a.png", "b.png", "c.png"],
        [(10, "car", [2, 2, 10, 10], 0), (11, "car", [2, 2, 10, 10], 0), (12, "car", [2, 2, 0, 5], 0)],
    )
    content["annotations"].append({"id": 7, "image_id": 10, "category_id": 99, "bbox": [1, 1, 2, 2]})
    labels = tiny_data.write_coco(tmp_path / "set", content)
    tiny_data.write_image(tmp_path / "set" / "b.png", width=40, height=20)
    (tmp_path / "set" / "c.png").unlink()
    source = f"{{tfrecords_path: {labels}, image_directory_path: {tmp_path / 'set'}}}"
    overrides = [
        *runs.data(tmp_path),
        f"dataset_config.data_sources=[{source}]",
        "dataset_config.validation_data_source=null",
        "dataset_config.target_class_mapping={car: car}",
    ]
    code, result = checked(capsys, *overrides[:-4], *overrides[-3:], *runs.SMALL, *QUICK)
    assert code == 2
    assert {"category_id makes no sense", "1 of 3 images of the JSON have no image file"} <= said(
        result, "error"
    )
    assert {"the image is not of the size that its label says", "boxes have no area and are dropped"} <= said(
        result, "warning"
    )


def test_decoding_finds_what_headers_hide(tmp_path, capsys):
    root = tmp_path / "data"
    lines = {name: [tiny_data.label("car", 2, 2, 20, 12)] for name in "abc"}
    tiny_data.write_kitti(root / "training", lines)
    tiny_data.write_kitti(root / "validation", {"held": lines["a"]}, width=48)
    image = root / "training" / "image_2" / "b.png"
    image.write_bytes(image.read_bytes()[:200])
    arguments = (*runs.data(root), *runs.SMALL, *QUICK)
    assert "the image cannot be read" not in said(checked(capsys, *arguments)[1])
    code, result = checked(capsys, *arguments, "run.check_decode=true")
    assert code == 2
    assert "the image cannot be read" in said(result, "error")
    assert result["sections"]["training data"]["facts"]["images"] == 2


def test_fix_writes_settings_that_train_reads(scenes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = (*runs.data(scenes), *runs.SMALL, *QUICK, "run.natural.scale=[90,100,110]", "fix=anchors")
    code, result = checked(capsys, *arguments)
    assert code == 1
    proposed = result["sections"]["anchors"]["facts"]["proposed"]
    assert result["written"] == "check_anchors.yaml"
    written = read_spec("check_anchors.yaml").spec.model_config.anchor_box_config
    assert (written.scale, written.ratio) == (proposed["scale"], proposed["ratio"])
    code, again = checked(capsys, "spec=check_anchors.yaml", "run.check_steps=0")
    assert again["sections"]["anchors"]["facts"]["share_positive"] == proposed["share_positive"]
    convert("check_anchors.yaml", "spec.txt")  # and of a spec a copy of its kind
    code, again = checked(capsys, "spec=spec.txt", "run.check_steps=0", "fix=anchors", SCALES)
    assert again["written"] == "spec_anchors.txt"
    assert read_spec("spec_anchors.txt").spec.model_config.anchor_box_config.scale != [70, 80, 90]
    code, refused = checked(capsys, *arguments)
    assert code == 2
    assert "the file that fix=anchors writes exists" in said(refused, "error")


def test_a_spec_that_cannot_be_read_is_said_as_json(tmp_path, capsys):
    spec = tmp_path / "spec.txt"
    spec.write_text("random_seed: 1\nmodel_config { archh: 'x' }\n")
    code, result = checked(capsys, f"spec={spec}")
    assert code == 2
    assert result["problems"][0]["examples"][0]["where"].startswith(f"{spec}:2:")
    assert "did you mean arch" in result["problems"][0]["hint"]
    code, result = checked(capsys, "backbone=resnet19")
    assert (code, said(result)) == (2, {"no such choice"})


def test_a_part_that_fails_hides_no_other(scenes, monkeypatch, capsys):
    def burst(*args, **kwargs):
        raise MemoryError("no room")

    monkeypatch.setattr("frcnn.check.run.measure", burst)
    code, result = checked(capsys, *runs.data(scenes), *runs.SMALL)
    assert code == 2
    assert said(result, "error") == {"MemoryError: no room"}
    assert result["sections"]["weights"]["looked_at"]


def test_the_script(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "check.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "fix=anchors" in done.stdout
    command[-1:] = [*runs.data(tmp_path / "none"), *QUICK, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["verdict"] == "errors"
    assert list(tmp_path.iterdir()) == []

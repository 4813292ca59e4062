"""Contact sheets of the augmentation, as a user draws them."""

import json

import pytest
import runs
from PIL import Image

from frcnn.entry.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return runs.scenes(tmp_path_factory.mktemp("scenes"), train=3, val=1)


def preview(folder, out, *more):
    return main(
        "preview_augmentation", [*runs.data(folder), "backbone=resnet10", f"hydra.run.dir={out}", *more]
    )


def sheets(out):
    return {path.stem for path in out.glob("*.png")}


def test_a_sheet_for_each_step_of_the_settings_and_one_of_all(folder, tmp_path):
    assert preview(folder, tmp_path / "out") == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "status.json").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["STARTED", "SUCCESS"]
    steps = {"hflip", "translate", "zoom", "rotate", "brightness", "hue", "saturation", "contrast"}
    assert sheets(tmp_path / "out") == {*steps, "all"}
    # Three images of 192x128, drawn at three times their size, each plain and three times augmented.
    with Image.open(tmp_path / "out" / "zoom.png") as sheet:
        assert sheet.width > 4 * 3 * 192
        assert sheet.height > 3 * 3 * 128
        plain, first = sheet.crop((20, 60, 580, 420)), sheet.crop((616, 60, 1176, 420))
        assert plain.tobytes() != first.tobytes()


def test_steps_that_are_off_have_no_sheet_and_the_log_says_so(folder, tmp_path, caplog):
    out = tmp_path / "out"
    switch = "augmentation_config.spatial_augmentation.vflip_probability=1"
    with caplog.at_level("INFO"):
        assert preview(folder, out, "augmentation=none", switch) == 0
    assert sheets(out) == {"vflip", "all"}
    assert "no sheet of hue: color_augmentation.hue_rotation_max switches it on" in caplog.text


def test_a_second_preview_needs_another_folder(folder, tmp_path, capsys):
    assert preview(folder, tmp_path / "out", "augmentation=none") == 0
    assert preview(folder, tmp_path / "out", "augmentation=none") == 2
    assert "run.overwrite=true" in capsys.readouterr().err

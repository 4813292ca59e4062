import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from frcnn.data.readers.kitti import read_kitti, read_labels
from frcnn.data.toy import ensure_toy, kitti_line
from frcnn.data.toy_scene import _SHAPES, SceneObject, draw_scene
from frcnn.errors import DataError

SMALL = {"train": 6, "val": 3, "width": 96, "height": 64}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def draw_forever(root: Path) -> None:
    ensure_toy(root, train=5000, val=1)


def draw_small(root: Path) -> None:
    ensure_toy(root, **SMALL)


def test_folders_are_kitti_and_readable(tmp_path: Path) -> None:
    folder = ensure_toy(tmp_path / "cache", **SMALL)
    for split, count in (("training", 6), ("validation", 3)):
        source = read_kitti(image_root=folder / split, labels=folder / split / "label_2")
        assert len(source.index) == count
        assert source.index.sizes.tolist() == [[64, 96]] * count
        assert source.degenerate == {} and source.unused_labels == 0
        assert set(source.index.class_names) <= {"car", "pedestrian", "cyclist"}


def test_the_same_seed_draws_the_same_bytes(tmp_path: Path) -> None:
    one, same = ensure_toy(tmp_path / "1", **SMALL), ensure_toy(tmp_path / "2", **SMALL)
    assert files(one) == files(same)
    other = ensure_toy(tmp_path / "1", **SMALL, seed=1)
    assert other != one and files(other) != files(one)
    more = ensure_toy(tmp_path / "1", **{**SMALL, "train": 7})
    image = "training/image_2/000003.png"
    assert files(more)[image] == files(one)[image]  # each image has its own generator
    assert files(one)[image] != files(one)["validation/image_2/000000.png"]


def test_it_is_drawn_once(tmp_path: Path) -> None:
    folder = ensure_toy(tmp_path, **SMALL)
    marks = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert ensure_toy(tmp_path, **SMALL) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == marks
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_kill_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=draw_forever, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 20
    while not list(tmp_path.rglob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert all(path.name.startswith(".toy-") for path in tmp_path.iterdir())
    folder = ensure_toy(tmp_path, **SMALL)
    assert len(list(folder.rglob("*.png"))) == 9


def test_several_at_once_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=draw_small, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.iterdir())) == 1
    assert files(ensure_toy(tmp_path, **SMALL)) == files(ensure_toy(tmp_path / "alone", **SMALL))


@pytest.mark.parametrize(
    ("text", "message"), [(None, "not a toy"), ("{", "not a toy"), ("{}", "another toy")]
)
def test_a_folder_that_holds_something_else(tmp_path: Path, text: str | None, message: str) -> None:
    folder = ensure_toy(tmp_path, **SMALL)
    (folder / "manifest.json").unlink()
    if text is not None:
        (folder / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=message):
        ensure_toy(tmp_path, **SMALL)


def test_images_too_small_for_a_street(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"too small .*\n  found: 64x64\n  allowed: at least 96x64"):
        ensure_toy(tmp_path, width=64, height=64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("hidden", "level"), [(0.0, 0), (0.29, 0), (0.3, 1), (0.6, 2)])
def test_occlusion_levels(tmp_path: Path, hidden: float, level: int) -> None:
    line = kitti_line(SceneObject("Car", (1.0, 2.5, 30.0, 40.0), truncated=0.1, hidden=hidden))
    (tmp_path / "a.txt").write_text(line)
    (found,) = read_labels(tmp_path / "a.txt")
    assert (found.name, found.truncation, found.occlusion) == ("car", 0.1, level)
    assert found.box == (1.0, 2.5, 30.0, 40.0)


def test_scenes_hold_what_a_detector_can_learn() -> None:
    scenes = [draw_scene(np.random.default_rng((0, 9, i)), width=192, height=128) for i in range(120)]
    objects = [item for _, items in scenes for item in items]
    boxes = np.array([item.box for item in objects])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert all(1 <= len(items) <= 6 for _, items in scenes)
    assert all(image.size == (192, 128) and image.mode == "RGB" for image, _ in scenes)
    assert boxes.min() >= 0 and (boxes[:, 2] <= 192).all() and (boxes[:, 3] <= 128).all()
    assert sides.min() >= 14
    shares = [np.mean([item.name == name for item in objects]) for name in ("Car", "Pedestrian", "Cyclist")]
    assert min(shares) > 0.2
    hidden = np.array([item.hidden for item in objects])
    assert 0 < np.mean(hidden >= 0.3) < 0.1
    assert len(np.unique(sides, axis=0)) > 0.6 * len(sides)  # sizes vary freely, in half pixels


@pytest.mark.parametrize("name", ["Car", "Pedestrian", "Cyclist"])
@pytest.mark.parametrize("seed", range(8))
def test_a_shape_fills_its_box_to_every_edge(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    if name == "Car":
        w, h = int(rng.integers(70, 200)), int(rng.integers(30, 76))
    else:
        h = int(rng.integers(64, 130))
        w = round(h * (rng.uniform(0.33, 0.48) if name == "Pedestrian" else rng.uniform(0.8, 1.15)))
    shape = Image.new("RGBA", (w, h))
    _SHAPES[name](ImageDraw.Draw(shape), rng, w, h)
    box = shape.getchannel("A").getbbox()
    assert box is not None
    assert np.abs(np.array(box) - (0, 0, w, h)).max() <= 2  # a pixel of the finished image


def test_drawing_is_quick(tmp_path: Path) -> None:
    start = time.process_time()
    for i in range(20):
        draw_scene(np.random.default_rng(i), width=192, height=128)[0].save(tmp_path / "a.png")
    assert time.process_time() - start < 1.0
    assert Image.open(tmp_path / "a.png").size == (192, 128)

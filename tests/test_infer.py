"""The command `infer` as a user runs it: what it reads, what it leaves behind, and how it ends."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from models import DYNAMIC, GRAY, INFERENCE, write_model
from PIL import Image
from project import ROOT
from tiny_data import write_image

from frcnn.data.pictures import IMAGES, Picture
from frcnn.entry.main import main
from frcnn.infer import _chunks
from frcnn.predictor import Predictor
from frcnn.report.colours import class_colour

ALL = "inference_config.bbox_visualize_threshold=0.01"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model.ckpt")


@pytest.fixture
def photos(tmp_path):
    """Three images of different sizes and kinds, and a file that is none."""
    folder = tmp_path / "photos"
    write_image(folder / "a.png", width=200, height=100)
    write_image(folder / "b.JPG", width=90, height=120, seed=1)
    Image.fromarray(np.arange(6400, dtype=np.uint8).reshape(80, 80)).save(folder / "gray.png")
    (folder / "readme.md").write_text("photos")
    return folder


def infer(model, images, out, *more):
    items = [f"model_path={model}", f"images={images}", f"hydra.run.dir={out}", "run.num_workers=0"]
    return main("infer", [*items, *more])


def found(out):
    return json.loads((out / "results.json").read_text())


def labels(out):
    return {path.name: path.read_text() for path in sorted((out / "detections" / "labels").iterdir())}


def test_a_folder_of_mixed_sizes(model, photos, tmp_path):
    out = tmp_path / "out"
    before = {path: path.read_bytes() for path in photos.iterdir()}
    assert infer(model, photos, out, ALL) == 0
    assert {path: path.read_bytes() for path in photos.iterdir()} == before
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names == {
        *("config.yaml", "spec.txt", "status.json", "results.json", "log.txt"),
        *("detections/coco.json", "detections/detections.csv"),
        *(f"detections/images/{name}" for name in ("a.png", "b.JPG", "gray.png")),
        *(f"detections/labels/{name}" for name in ("a.txt", "b.txt", "gray.txt")),
    }
    figures = found(out)
    assert (figures["command"], figures["images"], figures["skipped"], figures["unreadable"]) == (
        *("infer", 3, 1),
        0,
    )
    rows = list(csv.DictReader((out / "detections" / "detections.csv").open()))
    coco = json.loads((out / "detections" / "coco.json").read_text())
    lines = "".join(labels(out).values()).splitlines()
    assert len(rows) == len(coco) == len(lines) == figures["objects"] > 0
    assert figures["categories"] == {"1": "car", "2": "pedestrian"}
    sizes = {"a.png": (200, 100), "b.JPG": (90, 120), "gray.png": (80, 80)}
    for row, result in zip(rows, coco, strict=True):
        width, height = sizes[row["image"]]
        assert (row["image_width"], row["image_height"]) == (str(width), str(height))
        assert 0 <= float(row["x1"]) < float(row["x2"]) <= width
        assert 0 <= float(row["y1"]) < float(row["y2"]) <= height
        assert result["file_name"] == row["image"]
    lines = [json.loads(line) for line in (out / "status.json").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["STARTED", "SUCCESS"]
    assert lines[-1]["message"] == "Inference finished successfully."
    with Image.open(out / "detections" / "images" / "a.png") as image:
        assert image.size == (4 * 200, 4 * 100)  # small images are enlarged to be readable


def test_every_format_that_is_read_is_written(model, tmp_path):
    names = [f"{i}{suffix}" for i, suffix in enumerate(IMAGES)]
    for name in names:
        write_image(tmp_path / "photos" / name)
    assert infer(model, tmp_path / "photos", tmp_path / "out", ALL) == 0
    for name in names:
        with Image.open(tmp_path / "out" / "detections" / "images" / name) as image:
            assert image.size == (32 * 23, 16 * 23)  # 16 pixels are enlarged to at least 360
    assert coco(tmp_path / "out")[0]["image_id"] == 0


def coco(out):
    return json.loads((out / "detections" / "coco.json").read_text())


def test_batches_and_workers_change_nothing(model, photos, tmp_path):
    assert infer(model, photos, tmp_path / "one", ALL) == 0
    more = ["inference_config.batch_size=3", "run.num_workers=2", "run.draw=false"]
    assert infer(model, photos, tmp_path / "three", ALL, *more) == 0
    assert not (tmp_path / "three" / "detections" / "images").exists()
    values = []
    for out in ("one", "three"):
        rows = csv.DictReader((tmp_path / out / "detections" / "detections.csv").open())
        values.append(
            [[row["image"], row["class"], *(float(row[k]) for k in ("x1", "y1", "x2", "y2"))] for row in rows]
        )
    assert [row[:2] for row in values[0]] == [row[:2] for row in values[1]]
    assert np.allclose([row[2:] for row in values[0]], [row[2:] for row in values[1]], atol=0.01)


def test_threshold_and_classes(model, photos, tmp_path, capsys):
    assert infer(model, photos, tmp_path / "a", ALL, "run.only_classes=[pedestrian]") == 0
    figures = found(tmp_path / "a")
    assert figures["per_class"]["car"]["objects"] == 0
    assert figures["objects"] == figures["per_class"]["pedestrian"]["objects"] > 0
    assert infer(model, photos, tmp_path / "b", "inference_config.bbox_visualize_threshold=0.999") == 0
    assert found(tmp_path / "b")["objects"] == 0
    assert set(labels(tmp_path / "b").values()) == {""}  # an image without detections has an empty label
    assert json.loads((tmp_path / "b" / "detections" / "coco.json").read_text()) == []
    assert infer(model, photos, tmp_path / "c", "run.only_classes=[dog]") == 2
    assert "car, pedestrian" in capsys.readouterr().err


def test_captions_are_a_switch_and_colours_follow_the_order_of_classes(model, photos, tmp_path):
    pictures = {}
    for switch in ("true", "false"):
        out = tmp_path / switch
        assert infer(model, photos, out, ALL, f"inference_config.bbox_caption_on={switch}") == 0
        with Image.open(out / "detections" / "images" / "gray.png") as image:
            pictures[switch] = np.asarray(image).copy()
    assert not np.array_equal(pictures["true"], pictures["false"])
    colours = {f"#{r:02x}{g:02x}{b:02x}".upper() for r, g, b in pictures["false"].reshape(-1, 3)}
    drawn = set(csv_classes(tmp_path / "false", "gray.png"))
    assert drawn
    for label, name in enumerate(("car", "pedestrian")):
        assert (class_colour(label).upper() in colours) == (name in drawn)


def csv_classes(out, image):
    rows = csv.DictReader((out / "detections" / "detections.csv").open())
    return [row["class"] for row in rows if row["image"] == image]


def test_the_folders_of_a_spec_are_used_and_never_emptied(model, photos, tmp_path, monkeypatch, capsys):
    """A spec with nothing but inference_config; its folders are below the working directory."""
    monkeypatch.chdir(tmp_path)
    block = "images_dir: 'photos' detection_image_output_dir: 'drawn' labels_dump_dir: 'texts' batch_size: 0"
    spec = tmp_path / "only.txt"
    spec.write_text(f"inference_config {{ {block} model: '{model}' bbox_visualize_threshold: 0.01 }}")
    command = [f"spec={spec}", "run.num_workers=0"]
    assert main("infer", [*command, "hydra.run.dir=first"]) == 0
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a.png", "b.JPG", "gray.png"]
    assert sorted(path.name for path in (tmp_path / "texts").iterdir()) == ["a.txt", "b.txt", "gray.txt"]
    assert not (tmp_path / "first" / "detections" / "images").exists()
    (tmp_path / "drawn" / "mine.png").write_bytes(b"mine")
    capsys.readouterr()
    assert main("infer", [*command, "hydra.run.dir=second"]) == 2
    message = capsys.readouterr().err
    assert "detection_image_output_dir" in message
    assert "run.overwrite=true" in message
    assert not (tmp_path / "second" / "detections").exists()
    assert main("infer", [*command, "hydra.run.dir=second", "run.overwrite=true"]) == 0
    assert (tmp_path / "drawn" / "mine.png").read_bytes() == b"mine"
    over = "inference_config.detection_image_output_dir=photos"
    assert main("infer", [*command, over, "hydra.run.dir=third", "run.overwrite=true"]) == 2
    assert "would replace the images" in capsys.readouterr().err


@pytest.mark.parametrize("as_list", [False, True])
def test_the_images_themselves_are_never_replaced(model, tmp_path, capsys, as_list):
    """The output folder holds no image itself, but folders with them, and results keep the folders."""
    folder = tmp_path / "photos"
    for name in ("one/a.png", "two/b.png"):
        write_image(folder / name, width=60, height=60)
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    source = f"'{folder}/**/*.png'"
    if as_list:
        source = tmp_path / "lists" / "all.txt"
        source.parent.mkdir()
        source.write_text("../photos/one/a.png\n../photos/two/b.png\n")
    more = (f"inference_config.detection_image_output_dir={folder}", "run.overwrite=true")
    assert infer(model, source, tmp_path / "out", *more) == 2
    assert "would replace the images" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


def test_output_folders_of_the_training_s_spec_do_not_count(photos, tmp_path):
    more = INFERENCE.replace("bbox_caption_on", "detection_image_output_dir: '/nowhere' bbox_caption_on")
    model = write_model(tmp_path / "m.ckpt", more=more)
    assert infer(model, photos, tmp_path / "out") == 0
    assert (tmp_path / "out" / "detections" / "images" / "a.png").exists()


def test_a_folder_that_holds_results_is_refused_like_one_of_a_run(model, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert infer(model, photos, out) == 0
    assert infer(model, photos, out) == 2
    assert "run.overwrite=true" in capsys.readouterr().err
    assert infer(model, photos / "a.png", out, "run.overwrite=true") == 0
    assert set(labels(out)) == {"a.txt"}


def test_unreadable_images_are_skipped_and_counted(model, photos, tmp_path, capsys):
    (photos / "empty.png").write_bytes(b"")
    whole = (photos / "b.JPG").read_bytes()
    (photos / "half.jpg").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    assert infer(model, photos, out) == 0
    assert (found(out)["images"], found(out)["unreadable"]) == (3, 2)
    assert set(labels(out)) == {"a.txt", "b.txt", "gray.txt"}
    log = (out / "log.txt").read_text()
    assert "empty.png: the image cannot be read" in log
    assert "half.jpg: the image cannot be read" in log
    assert "2 skipped: could not be read" in log
    for name in ("a.png", "b.JPG", "gray.png"):
        (photos / name).unlink()
    capsys.readouterr()
    assert infer(model, photos, tmp_path / "none") == 1
    assert "no image could be read" in capsys.readouterr().err
    last = json.loads((tmp_path / "none" / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "FAILURE"


def test_an_interrupted_inference_leaves_whole_files(model, photos, tmp_path, monkeypatch, capsys):
    def interrupt(self, prepared):
        raise KeyboardInterrupt

    def once(self, prepared, predict=Predictor.predict):
        monkeypatch.setattr(Predictor, "predict", interrupt)
        return predict(self, prepared)

    monkeypatch.setattr(Predictor, "predict", once)
    monkeypatch.setattr("frcnn.infer.AHEAD", 1)
    out = tmp_path / "out"
    assert infer(model, photos, out, ALL, "inference_config.batch_size=1") == 130
    said = capsys.readouterr().err
    assert "interrupted" in said
    assert "checkpoint" not in said
    ((name, text),) = labels(out).items()
    coco = json.loads((out / "detections" / "coco.json").read_text())
    assert name == "a.txt"
    assert len(coco) == len(text.splitlines()) > 0


def test_inputs_without_images(model, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert infer(model, tmp_path / "empty", tmp_path / "out") == 2
    assert "there are no images" in capsys.readouterr().err
    assert infer(model, tmp_path / "missing", tmp_path / "out") == 2
    assert "inference_config.images_dir" in capsys.readouterr().err
    assert main("infer", [f"model_path={model}", f"hydra.run.dir={tmp_path / 'out'}"]) == 2
    assert "images=PATH" in capsys.readouterr().err
    assert not (tmp_path / "out" / "detections").exists()


def test_wrong_command_lines(model, tmp_path, capsys):
    assert main("infer", ["images=photos"]) == 2
    assert "needs a model to infer" in capsys.readouterr().err
    assert main("train", ["images=photos"]) == 2
    assert "images" in capsys.readouterr().err
    for name in ("a.onnx", "a.engine", "a.trt"):
        assert main("infer", [f"model_path={name}", "images=photos"]) == 2
        assert f"{name}: there is no such" in capsys.readouterr().err
    assert main("infer", ["model_path=a.hdf5", "images=photos"]) == 2
    assert "import_weights" in capsys.readouterr().err
    assert main("infer", ["--help"]) == 0
    assert "images=FOLDER" in capsys.readouterr().out


def test_the_engine_of_a_spec_comes_before_its_model(model, tmp_path, capsys):
    (tmp_path / "m.engine").write_bytes(b"")
    spec = tmp_path / "spec.txt"
    for command, block in (("infer", "inference"), ("evaluate", "evaluation")):
        spec.write_text(f"{block}_config {{ model: '{model}' trt_{block} {{ trt_engine: 'm.engine' }} }}")
        assert main(command, [f"spec={spec}"]) == 2
        assert "m.engine: brings no settings" in capsys.readouterr().err


@pytest.mark.parametrize("changes", [DYNAMIC, GRAY], ids=["dynamic", "gray"])
def test_other_networks(photos, tmp_path, changes):
    model = write_model(tmp_path / "m.ckpt", changes)
    assert infer(model, photos, tmp_path / "out", ALL, "inference_config.batch_size=2") == 0
    assert found(tmp_path / "out")["images"] == 3
    with Image.open(tmp_path / "out" / "detections" / "images" / "a.png") as image:
        assert image.mode == "RGB"


def test_names_with_folders_and_a_list_on_the_command_line(model, photos, tmp_path):
    write_image(photos / "in, side" / "a.png")
    (tmp_path / "list.txt").write_text("photos/in, side/a.png\nphotos/a.png\n")
    assert infer(model, tmp_path / "list.txt", tmp_path / "out") == 0
    images = tmp_path / "out" / "detections" / "images"
    assert (images / "in, side" / "a.png").exists()
    assert (tmp_path / "out" / "detections" / "labels" / "a.txt").exists()
    assert infer(model, photos / "in, side", tmp_path / "comma") == 0
    assert infer(model, f"{photos}/**/*.png", tmp_path / "glob") == 0
    assert found(tmp_path / "glob")["images"] == 3


def test_a_video(model, tmp_path):
    pytest.importorskip("av")
    sys.path.insert(0, str(ROOT / "tests" / "data"))
    from test_pictures import write_video

    film = write_video(tmp_path / "film.mp4", frames=3)
    assert infer(model, film, tmp_path / "out", ALL, "inference_config.batch_size=2") == 0
    assert set(labels(tmp_path / "out")) == {f"film_00000{n}.txt" for n in (1, 2, 3)}
    assert (tmp_path / "out" / "detections" / "images" / "film_000003.jpg").exists()


def test_the_smallest_and_the_thinnest_image(model, tmp_path):
    for width, height in ((1, 1), (900, 1)):
        write_image(tmp_path / "photos" / f"{width}.png", width=width, height=height)
    assert infer(model, tmp_path / "photos", tmp_path / "out", ALL) == 0
    sizes = {}
    for name in ("1.png", "900.png"):
        with Image.open(tmp_path / "out" / "detections" / "images" / name) as image:
            sizes[name] = image.size
    assert sizes == {"1.png": (360, 360), "900.png": (1800, 2)}  # never longer than 2000 by enlarging


@pytest.mark.slow
def test_an_image_of_a_hundred_megapixels(model, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (10_000, 10_000), "gray").save(tmp_path / "photos" / "large.png")
    assert infer(model, tmp_path / "photos", tmp_path / "out", ALL) == 0
    assert found(tmp_path / "out")["images"] == 1
    with Image.open(tmp_path / "out" / "detections" / "images" / "large.png") as image:
        assert image.size == (10_000, 10_000)


def test_large_pictures_are_read_one_at_a_time():
    areas = [30_000_000, 30_000_000, 30_000_000, 100_000_000, 1, 1]
    pictures = [Picture(str(i), Path(), lambda area=area: area, Image.Image) for i, area in enumerate(areas)]
    found = [[int(item.name) for item in chunk] for chunk in _chunks(pictures, most=8)]
    assert found == [[0, 1], [2], [3], [4, 5]]
    assert [len(chunk) for chunk in _chunks(pictures[4:] * 3, most=4)] == [4, 2]

"""Pictures in, boxes in their own pixels out."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from models import DYNAMIC, GRAY, settings, write_model
from PIL import Image

import frcnn
from frcnn.errors import DataError, SpecError, WeightsError
from frcnn.model.detector import Detections
from frcnn.predictor import Prediction, Predictor


class Fake:
    """Finds the same things in every network input, and remembers what it was shown."""

    def __init__(self, *rows):
        self.rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)  # x1 y1 x2 y2 score label
        self.shapes = []

    def detect(self, images, *, image_sizes):
        self.shapes.append(tuple(images.shape))
        assert image_sizes.tolist() == [list(images.shape[-2:])] * len(images)
        rows = self.rows.expand(len(images), -1, -1)
        none = torch.zeros(len(images), 0, 4)
        return Detections(rows[..., :4], rows[..., 4], rows[..., 5].long(), none, none[..., 0].bool())


def predictor(*rows, changes=None, **rest):
    options = {"device": torch.device("cpu"), "threshold": 0.5, **rest}
    return Predictor(Fake(*rows), settings(changes), **options)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model.ckpt")


def test_boxes_come_back_through_the_stretch_of_both_sides():
    # The network sees 192x128; a picture of 384x64 was stretched by 1/2 and 2.
    found = predictor((10, 20, 30, 60, 0.9, 1))(picture(64, 384))
    assert found.boxes.tolist() == [[20, 10, 60, 30]]
    assert (found.names, found.labels.tolist(), found.size) == (["pedestrian"], [1], (64, 384))
    assert found.scores == pytest.approx([0.9])
    assert (found.boxes.dtype, len(found)) == (np.float32, 1)


def test_the_crop_of_the_spec_is_undone_and_padding_is_cut_off():
    # The window is 192x128 from (8, 4) of the picture as it is; the picture, 100x100, ends before it does.
    crop = "crop_left: 8 crop_top: 4 crop_right: 200 crop_bottom: 132"
    changes = {"enable_auto_resize: True": crop}
    rows = [(10, 20, 30, 60, 0.9, 0), (80, 80, 150, 120, 0.8, 0), (120, 10, 150, 30, 0.7, 0)]
    found = predictor(*rows, changes=changes)(picture(100, 100))
    assert found.boxes.tolist() == [[18, 24, 38, 64], [88, 84, 100, 100]]  # the third lies in the padding


def test_a_dynamic_model_takes_any_sizes_at_any_batch_with_the_true_resize():
    # Shortest side 128, longest at most 224: 100x300 becomes 74x224 (rounded down), 200x100 becomes 224x112.
    rows = [(16, 24, 48, 48, 0.9, 0)]
    many = predictor(*rows, changes=DYNAMIC, batch_size=4)
    pictures = [picture(100, 300), picture(200, 100), picture(100, 300, 1), picture(96, 96)]
    found = many(pictures)
    assert sorted(many.backend.shapes) == [(1, 3, 128, 128), (1, 3, 224, 112), (2, 3, 74, 224)]
    x, y = 300 / 224, 100 / 74
    assert found[0].boxes == pytest.approx(np.array([[16 * x, 24 * y, 48 * x, 48 * y]]), rel=1e-5)
    assert found[1].boxes == pytest.approx(np.array([[16, 24, 48, 48]]) * 100 / 112)
    assert found[3].boxes.tolist() == [[12, 18, 36, 36]]
    alone = predictor(*rows, changes=DYNAMIC)
    for one, item in zip(found, pictures, strict=True):
        assert np.array_equal(one.boxes, alone(item).boxes)


def test_threshold_classes_and_unused_slots():
    rows = [(0, 0, 9, 9, 0.9, 0), (0, 0, 9, 9, 0.5, 1), (0, 0, 9, 9, 0.49, 1), (0, 0, 0, 0, 0.0, -1)]
    assert predictor(*rows)(picture(50, 50)).names == ["car", "pedestrian"]  # 0.5 is enough
    assert predictor(*rows, classes=["Pedestrian"])(picture(50, 50)).names == ["pedestrian"]
    assert len(predictor(*rows, threshold=0.95)(picture(50, 50))) == 0
    with pytest.raises(SpecError, match="car, pedestrian"):
        predictor(*rows, classes=["dog"])


def test_a_trained_file_takes_arrays_pil_images_and_paths_of_mixed_sizes(model, tmp_path):
    detect = frcnn.load(model, threshold=0.3, batch_size=2)
    gray = picture(90, 70)[:, :, 0]
    path = tmp_path / "a.png"
    Image.fromarray(picture(60, 80)).save(path)
    mixed = [picture(60, 80), Image.fromarray(picture(60, 80)), path, str(path), gray, gray[:, :, None]]
    found = detect(mixed)
    assert len(found[0]) > 0
    for other in found[1:4]:
        assert np.array_equal(found[0].boxes, other.boxes)
        assert np.array_equal(found[0].scores, other.scores)
    assert np.array_equal(found[4].boxes, found[5].boxes)
    assert isinstance(detect(path), Prediction)
    assert np.allclose(detect(path).boxes, found[0].boxes, atol=1e-3)
    assert detect([]) == []
    assert frcnn.load(model).threshold == 0.3  # of its spec
    assert {name for item in found for name in item.names} <= {"car", "pedestrian"}


def test_a_gray_network_takes_colour_and_gray(tmp_path):
    detect = frcnn.load(write_model(tmp_path / "gray.ckpt", GRAY))
    luma = np.asarray(Image.fromarray(picture(50, 60)).convert("L"))
    colour, gray = detect([picture(50, 60), luma])
    assert np.array_equal(colour.boxes, gray.boxes)


def test_a_picture_is_taken_as_training_takes_it(tmp_path):
    """EXIF is not applied, CMYK becomes RGB, 16 bits keep their high byte."""
    detect, pixels = predictor((0, 0, 96, 64, 0.9, 0)), picture(40, 80)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "cmyk.jpg")
    deep = (pixels[:, :, 0].astype(np.uint16) << 8) + 7
    Image.fromarray(deep).save(tmp_path / "deep.png")
    turned, cmyk, sixteen = (tmp_path / name for name in ("turned.jpg", "cmyk.jpg", "deep.png"))
    assert detect(turned).size == (40, 80)
    assert detect(turned).boxes.tolist() == [[0, 0, 40, 20]]
    assert detect(cmyk).size == (40, 80)
    shown = []
    detect.backend.detect, run = lambda x, **y: shown.append(x) or run(x, **y), detect.backend.detect
    detect(sixteen)
    detect(pixels[:, :, 0])
    assert torch.equal(*shown)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        Image.new("F", (4, 4)),
        3,
    ],
)
def test_what_is_no_picture(wrong):
    for pictures in (wrong, [wrong]):
        with pytest.raises(DataError):
            predictor((0, 0, 9, 9, 0.9, 0))(pictures)


def test_files_that_are_no_picture(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(picture(60, 60)).save(tmp_path / "half.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "half.jpg").read_bytes()[:900])
    for name in ("empty.png", "half.jpg", "missing.png"):
        with pytest.raises(DataError, match=name):
            predictor((0, 0, 9, 9, 0.9, 0))(tmp_path / name)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
@pytest.mark.parametrize("changes", [None, DYNAMIC], ids=["fixed", "dynamic"])
def test_the_smallest_pictures(tmp_path, size, changes):
    found = frcnn.load(write_model(tmp_path / "m.ckpt", changes), threshold=0.0)(picture(*size))
    height, width = size
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [width, height, width, height]).all()


def test_models_that_cannot_be_loaded(model, tmp_path):
    for name in ("a.engine", "a.trt"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(WeightsError, match="brings no settings of a model"):
            frcnn.load(tmp_path / name)
    for name in ("a.hdf5", "a.tlt"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(WeightsError, match="import_weights"):
            frcnn.load(tmp_path / name)
    with pytest.raises(WeightsError, match="no such"):
        frcnn.load(tmp_path / "missing.ckpt")
    with pytest.raises(SpecError, match="device"):
        frcnn.load(model, device="tpu")
    with pytest.raises(SpecError, match="threshold"):
        frcnn.load(model, threshold=2)


def test_importing_frcnn_imports_nothing_heavy():
    code = "import sys, frcnn; print([n for n in ('torch', 'numpy', 'hydra', 'PIL') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="nonsense"):
        _ = frcnn.nonsense


MEMORY = """
import resource, sys
import numpy as np, frcnn
detect = frcnn.load(sys.argv[1])
detect(np.zeros((200, 200, 3), np.uint8))
pixels = np.ones((6000, 6000, 3), np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
detect(pixels)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / pixels.nbytes)
"""


@pytest.mark.slow
def test_a_large_picture_takes_little_more_memory_than_its_bytes(model):
    """As floats, three channels at once, it would take four times as much and more."""
    command = [sys.executable, "-c", MEMORY, str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 3


def test_arrays_that_are_views(model):
    bgr = picture(60, 80)
    bgr.setflags(write=False)
    detect = frcnn.load(model)
    assert np.array_equal(detect(bgr[:, :, ::-1]).boxes, detect(bgr[:, :, ::-1].copy()).boxes)

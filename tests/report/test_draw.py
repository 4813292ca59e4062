"""Boxes land where they should, in the colours they should have."""

import numpy as np
import pytest
from PIL import ImageColor

from frcnn.report.colours import class_colour
from frcnn.report.draw import IGNORED, draw_boxes, image_grid

GREY = np.full((360, 400, 3), 128, np.uint8)
NAMES = ["car", "van"]
NONE = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "labels": np.zeros(0, int)}


def rgb(label):
    return ImageColor.getrgb(class_colour(label))


def detect(*boxes, scores=None, labels=None):
    return {
        "boxes": np.array(boxes, float).reshape(-1, 4),
        "scores": np.array(scores or [0.9] * len(boxes)),
        "labels": np.array(labels or [0] * len(boxes)),
    }


def test_a_detection_is_outlined_in_the_colour_of_its_class():
    image = draw_boxes(GREY, class_names=NAMES, captions=False, **detect((100, 100, 200, 150), labels=[1]))
    assert image.size == (400, 360)
    for point in ((100, 125), (200, 125), (150, 100), (150, 150)):
        assert image.getpixel(point) == rgb(1)
    assert image.getpixel((150, 125)) == image.getpixel((90, 125)) == (128, 128, 128)


@pytest.mark.parametrize(
    "hidden",
    [
        detect((100, 100, 200, 150), scores=[0.49]),
        detect((100, 100, 200, 150), labels=[-1]),
        detect((100, 100, 100, 150)),  # no area
        detect((float("nan"), 100, 200, 150)),
    ],
)
def test_what_is_not_drawn(hidden):
    assert np.array_equal(np.asarray(draw_boxes(GREY, class_names=NAMES, **hidden)), GREY)


def test_small_images_are_enlarged_by_an_integer():
    small = np.zeros((128, 192, 3), np.uint8)
    image = draw_boxes(small, class_names=NAMES, captions=False, **detect((10, 20, 30, 40)))
    assert image.size == (576, 384)
    assert image.getpixel((30, 90)) == rgb(0)
    assert draw_boxes(small, class_names=NAMES, scale=1, **NONE).size == (192, 128)


def white_share(image, row):
    line = np.asarray(image)[row, 50:150]
    return (line == 255).all(axis=-1).mean()


def test_ground_truth_is_dashed_and_difficult_dotted():
    gt = {"gt_boxes": np.array([[50.0, 50, 150, 150]]), "gt_labels": np.array([0])}
    image = draw_boxes(GREY, class_names=NAMES, **NONE, **gt)
    assert 0.3 < white_share(image, 50) < 0.7
    dotted = draw_boxes(GREY, class_names=NAMES, **NONE, **gt, gt_difficult=np.array([True]))
    assert 0.3 < white_share(dotted, 50) < 0.8
    assert not np.array_equal(np.asarray(image), np.asarray(dotted))
    padding = gt | {"gt_labels": np.array([-1])}
    assert np.array_equal(np.asarray(draw_boxes(GREY, class_names=NAMES, **NONE, **padding)), GREY)


def test_areas_to_ignore_are_hatched_grey():
    areas = np.array([[50.0, 50, 150, 150], [0, 0, 0, 0]])
    pixels = np.asarray(draw_boxes(GREY, class_names=NAMES, **NONE, gt_ignored=areas))
    drawn = (pixels == ImageColor.getrgb(IGNORED)).all(axis=-1)
    assert 0.05 < drawn[55:145, 55:145].mean() < 0.4
    assert drawn[50, 50:150].all() and drawn[50:150, 150].all()
    drawn[48:153, 48:153] = False
    assert not drawn.any()


def test_the_legend_names_areas_only_if_there_are_any():
    images = [draw_boxes(GREY, class_names=NAMES, **NONE)]
    for areas in (False, True):
        grid = image_grid(images, titles=["a"], class_names=NAMES, areas=areas)
        grey = (np.asarray(grid)[-60:] == ImageColor.getrgb(IGNORED)).all(axis=-1)
        assert (grey.sum() > 30) == areas  # some in the edges of letters


def filled(image, label, box):
    """Share of the class colour within a box."""
    x1, y1, x2, y2 = box
    return (np.asarray(image)[y1:y2, x1:x2] == rgb(label)).all(axis=-1).mean()


def test_a_caption_stands_above_or_where_the_image_has_room():
    image = draw_boxes(GREY, class_names=NAMES, **detect((100, 100, 250, 200)))
    assert filled(image, 0, (100, 85, 150, 99)) > 0.4
    image = draw_boxes(GREY, class_names=NAMES, **detect((100, 0, 250, 200)))
    assert filled(image, 0, (100, 203, 150, 214)) > 0.4
    image = draw_boxes(GREY, class_names=NAMES, **detect((100, 0, 250, 360)))
    assert filled(image, 0, (104, 3, 150, 14)) > 0.4


def test_captions_never_overlap():
    """The surest detection is captioned in full; a crowd in one place cannot all be."""
    boxes = [(100, 100, 160, 140)] * 12
    crowd = draw_boxes(GREY, class_names=NAMES, **detect(*boxes, scores=[0.9 - i / 100 for i in range(12)]))
    alone = draw_boxes(GREY, class_names=NAMES, **detect(boxes[0], scores=[0.9]))
    region = (slice(84, 99), slice(100, 155))
    assert np.array_equal(np.asarray(crowd)[region], np.asarray(alone)[region])


def test_a_grid_holds_every_image_and_a_legend():
    images = [draw_boxes(GREY, class_names=NAMES, **NONE) for _ in range(3)]
    grid = image_grid(images, titles=["a", "b", "a title that is far too long " * 9], class_names=NAMES)
    pixels = np.asarray(grid)
    assert grid.width > 2 * 400
    assert (pixels == 128).all(axis=-1).sum() >= 3 * 360 * 400
    legend = pixels[-60:]
    for label in range(2):
        assert (legend == rgb(label)).all(axis=-1).any()


def test_a_legend_of_many_classes_takes_several_rows():
    images = [draw_boxes(GREY, class_names=NAMES, **NONE)]
    few = image_grid(images, titles=["a"], class_names=NAMES)
    many = image_grid(images, titles=["a"], class_names=[f"class number {i}" for i in range(12)])
    assert many.height > few.height
    assert many.width == few.width

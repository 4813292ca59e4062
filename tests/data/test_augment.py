"""Numbers from the facts (spec-and-data 5.2 and 5.4), and what must hold for every draw."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from frcnn.data import augment as A
from frcnn.data.geometry import Geometry, fixed, shortest_side
from frcnn.data.transforms import place

BOX = torch.tensor([[2.0, 1.0, 6.0, 4.0]])


def ramp(height: int, width: int) -> Tensor:
    return torch.arange(height * width, dtype=torch.float32).reshape(1, height, width)


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def test_flips_map_x_to_width_minus_x_and_y_to_height_minus_y() -> None:
    image = ramp(2, 8)
    found, boxes = A.move(image, BOX, seeded(0), hflip_probability=1.0)
    assert found[0].tolist() == image[0].flip(1).tolist()
    torch.testing.assert_close(boxes, torch.tensor([[2.0, 1.0, 6.0, 4.0]]))  # 8 - 6 and 8 - 2
    found, boxes = A.move(image, BOX, seeded(0), vflip_probability=1.0)
    assert found[0].tolist() == image[0].flip(0).tolist()
    torch.testing.assert_close(boxes, torch.tensor([[2.0, -2.0, 6.0, 1.0]]))


def test_content_moves_against_the_shift() -> None:
    found = A.warp(ramp(2, 4), A.shifted(1, 0))
    assert found[0].tolist() == [[1, 2, 3, 127.5], [5, 6, 7, 127.5]]
    boxes = A.warp_boxes(BOX, A.shifted(1, -2))
    torch.testing.assert_close(boxes, torch.tensor([[1.0, 3.0, 5.0, 6.0]]))


def test_a_flipped_shift_copies_pixels_as_sampling_would() -> None:
    image = torch.rand(3, 7, 9) * 255
    matrix = A.mirrored(9, axis=0) @ A.shifted(3, -2) @ A.mirrored(7, axis=1)
    nearly = matrix + 1e-9  # not whole any more: sampled
    torch.testing.assert_close(A.warp(image, matrix), A.warp(image, nearly), atol=1e-3, rtol=0)


def test_zoom_above_one_shrinks_the_content() -> None:
    matrix = A.zoomed(2.0, 10, 5)
    boxes = A.warp_boxes(torch.tensor([[0.0, 0.0, 40.0, 20.0]]), matrix)
    torch.testing.assert_close(boxes, torch.tensor([[10.0, 5.0, 30.0, 15.0]]))  # half as large, at (10, 5)


def test_a_turn_is_the_matrix_of_the_facts() -> None:
    """Rows (cos, sin), (-sin, cos), translation as tabulated; ours is its transpose."""
    width, height, angle = 40, 30, 0.3
    cos, sin = math.cos(angle), math.sin(angle)
    rows = np.array(
        [
            [cos, sin, 0],
            [-sin, cos, 0],
            [
                height * sin / 2 - width * cos / 2 + width / 2,
                -height * cos / 2 + height / 2 - width * sin / 2,
                1,
            ],
        ]
    )
    np.testing.assert_allclose(A.turned(angle, width, height), rows.T, atol=1e-12)


def test_all_four_corners_turn() -> None:
    """A 100 x 100 box at 45 degrees is 141 wide; the original's two corners made it vanish."""
    box = torch.tensor([[50.0, 50.0, 150.0, 150.0]])
    ((x1, y1, x2, y2),) = A.warp_boxes(box, A.turned(math.pi / 4, 200, 200)).tolist()
    assert x2 - x1 == pytest.approx(100 * math.sqrt(2), abs=1e-3)
    assert (x1 + x2) / 2 == pytest.approx(100, abs=1e-3)
    assert y2 - y1 == pytest.approx(100 * math.sqrt(2), abs=1e-3)


def test_bilinear_at_half_a_pixel_blends_with_gray_outside() -> None:
    image = torch.tensor([[[0.0, 100.0, 50.0]]])
    found = A.warp(image, A.shifted(0.5, 0))
    torch.testing.assert_close(found, torch.tensor([[[50.0, 75.0, (50 + 127.5) / 2]]]))


def test_draws_stay_in_their_ranges_and_reach_them() -> None:
    """Where the box goes tells what was drawn."""
    image, box = torch.zeros(1, 1, 1), torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    shifts = [A.move(image, box, seeded(i), translate=(2.9, 1.0))[1][0, :2].tolist() for i in range(300)]
    assert {x for x, _ in shifts} == {-2, -1, 0, 1, 2}
    assert {y for _, y in shifts} == {-1, 0, 1}
    image = torch.zeros(1, 20, 30)
    boxes = [
        A.move(image, torch.tensor([[0.0, 0.0, 30.0, 20.0]]), seeded(i), zoom=(1.0, 2.0))[1][0].tolist()
        for i in range(300)
    ]
    widths = [x2 - x1 for x1, _, x2, _ in boxes]
    assert 15 <= min(widths) < 15.5
    assert 29 < max(widths) <= 30
    assert all(
        x1 >= -1e-4 and x2 <= 30 + 1e-4 and y1 >= -1e-4 and y2 <= 20 + 1e-4 for x1, y1, x2, y2 in boxes
    )
    turned = [
        A.move(image, BOX, seeded(i), rotate_max=0.1, rotate_probability=0.3)[0].sum() > 0 for i in range(500)
    ]
    assert 0.24 < np.mean(turned) < 0.36
    flipped = [A.move(ramp(1, 2), BOX, seeded(i), hflip_probability=0.3)[0][0, 0, 0] == 1 for i in range(500)]
    assert 0.24 < np.mean(flipped) < 0.36


def test_switching_a_step_on_leaves_the_draws_of_the_others() -> None:
    image = torch.zeros(1, 20, 30)
    for seed in range(20):
        _, alone = A.move(image, BOX, seeded(seed), translate=(5, 5))
        _, both = A.move(image, BOX, seeded(seed), translate=(5, 5), vflip_probability=1.0)
        assert alone[0, 0] == both[0, 0]


SPATIAL: dict[str, dict[str, Any]] = {
    "hflip": {"hflip_probability": 0.5},
    "vflip": {"vflip_probability": 0.5},
    "translate": {"translate": (40.0, 30.0)},
    "zoom": {"zoom": (0.6, 1.7)},
    "rotate": {"rotate_max": math.pi},
}
SPATIAL["all"] = {name: value for options in SPATIAL.values() for name, value in options.items()}


@pytest.mark.parametrize("name", SPATIAL)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_filled_box_stays_in_its_box(name: str, data: st.DataObject) -> None:
    """Its pixels' bounds after the transform agree with the transformed box within a pixel."""
    height, width = data.draw(st.integers(40, 90)), data.draw(st.integers(40, 90))
    x1, y1 = data.draw(st.integers(0, width - 12)), data.draw(st.integers(0, height - 12))
    x2, y2 = data.draw(st.integers(x1 + 10, width)), data.draw(st.integers(y1 + 10, height))
    image = torch.full((1, height, width), A.GRAY)
    image[:, y1:y2, x1:x2] = 255.0
    box = torch.tensor([[x1, y1, x2, y2]], dtype=torch.float32)
    found, boxes = A.move(image, box, seeded(data.draw(st.integers(0, 2**31))), **SPATIAL[name])
    assert found.shape == image.shape
    # Filled by about two fifths: below, blur shows as size; above, corners lose their tips.
    filled = (found[0] > A.GRAY + 50).nonzero()
    bounds = boxes[0].clamp(min=0).minimum(torch.tensor([width, height] * 2))
    if len(filled):
        (top, left), (bottom, right) = filled.amin(0).tolist(), (filled.amax(0) + 1).tolist()
        inside = torch.tensor([left, top, right, bottom], dtype=torch.float32)
        cut = bool((boxes[0] != bounds).any()) and name in ("rotate", "all")
        # A turned box that the edge cuts: its pixels may end before its bounds do, never after.
        assert (inside[:2] >= bounds[:2] - 1).all()
        assert (inside[2:] <= bounds[2:] + 1).all()
        if not cut:
            assert (inside - bounds).abs().max() <= 1
    else:
        assert (bounds[2:] - bounds[:2]).min() <= 1 or name in ("rotate", "all")


GEOMETRIES: dict[str, Geometry] = {
    "stretched": partial(fixed, size=(60, 80), auto_resize=True),
    "cut or padded": partial(fixed, size=(60, 60), auto_resize=False),
    "scaled and cropped": partial(fixed, size=(50, 70), auto_resize=True, scale=(1.3, 1.2), crop=(9, 11)),
    "varying": partial(shortest_side, shortest=50, longest=90),
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("options", ["translate", "zoom", "rotate", "all"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_boxes_and_pixels_agree_through_the_whole_chain(name: str, options: str, data: st.DataObject) -> None:
    """What the window cuts away does not come back, and labels may reach beyond the file."""
    height, width = data.draw(st.integers(40, 90)), data.draw(st.integers(40, 90))
    x1, y1 = data.draw(st.integers(-8, width - 12)), data.draw(st.integers(-8, height - 12))
    x2, y2 = data.draw(st.integers(x1 + 12, width + 8)), data.draw(st.integers(y1 + 12, height + 8))
    image = torch.full((1, height, width), A.GRAY)
    image[:, max(y1, 0) : y2, max(x1, 0) : x2] = 255.0
    box = torch.tensor([[x1, y1, x2, y2]], dtype=torch.float32)
    generator = seeded(data.draw(st.integers(0, 2**31)))
    image, boxes = place(image, box, generator, geometry=GEOMETRIES[name])
    found, boxes = A.move(image, boxes, generator, **SPATIAL[options])
    size = torch.tensor([found.shape[2], found.shape[1]] * 2)
    bounds = boxes[0].clamp(min=0).minimum(size)
    filled = (found[0] > A.GRAY + 50).nonzero()
    if not len(filled):
        return
    (top, left), (bottom, right) = filled.amin(0).tolist(), (filled.amax(0) + 1).tolist()
    inside = torch.tensor([left, top, right, bottom], dtype=torch.float32)
    # Stretching has blurred the object's edges by up to a pixel before it is moved.
    assert (inside[:2] >= bounds[:2] - 2).all()
    assert (inside[2:] <= bounds[2:] + 2).all()
    turned = options in ("rotate", "all") and bool((boxes[0] != bounds).any())
    if not turned:
        assert (inside - bounds).abs().max() <= 2


def test_steps_come_in_the_originals_order() -> None:
    """Flip, shift, zoom, turn as one product, output to source, against row vectors as the facts write them."""
    width, height = 40, 30
    options: dict[str, Any] = {
        "hflip_probability": 1.0,
        "vflip_probability": 1.0,
        "translate": (7.0, 5.0),
        "zoom": (1.2, 1.7),
        "rotate_max": 0.5,
    }
    draw = torch.rand(9, generator=seeded(3)).double().tolist()
    x, y = math.floor(draw[2] * 15) - 7, math.floor(draw[3] * 11) - 5
    ratio = 1.2 + draw[4] * 0.5
    left, top = draw[5] * (width - width / ratio), draw[6] * (height - height / ratio)
    angle = (2 * draw[8] - 1) * 0.5
    rows = np.eye(3)
    for step in (
        np.array([[-1, 0, 0], [0, 1, 0], [width, 0, 1]]),
        np.array([[1, 0, 0], [0, -1, 0], [0, height, 1]]),
        np.array([[1, 0, 0], [0, 1, 0], [x, y, 1]]),
        np.array([[ratio, 0, 0], [0, ratio, 0], [-left * ratio, -top * ratio, 1]]),
        A.turned(angle, width, height).T,
    ):
        rows = step @ rows  # a new step is put in front: it is the first that an output pixel passes
    _, boxes = A.move(torch.zeros(1, height, width), BOX, seeded(3), **options)
    corners = np.array([[2, 1, 1], [6, 1, 1], [6, 4, 1], [2, 4, 1]]) @ np.linalg.inv(rows)
    expected = [*corners[:, :2].min(axis=0), *corners[:, :2].max(axis=0)]
    np.testing.assert_allclose(boxes[0].numpy(), expected, atol=1e-4)


def test_no_hue_and_no_saturation_is_the_identity() -> None:
    matrix, offset = A.colour_matrix(contrast=0, contrast_center=0.5, hue=0, saturation=0, brightness=0)
    np.testing.assert_allclose(matrix, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(offset, 0)


def test_contrast_then_colour_then_brightness() -> None:
    """By hand: contrast 0.5 about 0.5 takes 0.8 to 0.95 and 0.2 to 0.05; saturation -1 leaves luma."""
    matrix, offset = A.colour_matrix(contrast=0.5, contrast_center=0.5, hue=0, saturation=-1, brightness=0.1)
    found = np.array([0.8, 0.2, 0.2]) @ matrix + offset
    luma = 0.299 * 0.95 + 0.587 * 0.05 + 0.114 * 0.05
    np.testing.assert_allclose(found, [luma + 0.1] * 3, atol=1e-9)


def test_a_quarter_turn_of_hue_adds_the_sine_matrix() -> None:
    matrix, _ = A.colour_matrix(contrast=0, contrast_center=0, hue=90, saturation=0, brightness=0)
    np.testing.assert_allclose(matrix[0], [0.299 + 0.168, 0.299 - 0.328, 0.299 + 1.25], atol=1e-9)
    np.testing.assert_allclose(matrix[2], [0.114 - 0.497, 0.114 + 0.292, 0.114 - 0.203], atol=1e-9)


def test_gray_stays_gray_under_every_hue() -> None:
    image = torch.full((3, 2, 2), 100.0)
    found, boxes = A.recolour(image, BOX, seeded(3), hue_max=180.0, saturation_max=1.0)
    assert boxes is BOX
    torch.testing.assert_close(found, image, atol=1.0, rtol=0)  # TAO's sine columns sum to 0.003


def test_brightness_is_one_value_for_all_channels_within_two_deviations() -> None:
    image = torch.full((3, 1, 1), 127.5)
    values = torch.stack(
        [A.recolour(image, BOX, seeded(i), brightness_std=0.1)[0].flatten() for i in range(2000)]
    )
    assert (values[:, 0] == values[:, 2]).all()
    shift = (values[:, 0] - 127.5) / 25.5
    assert shift.abs().max() <= 2.0001
    # A normal cut at two deviations has a standard deviation of 0.8796.
    assert float(shift.std()) == pytest.approx(0.8796, abs=0.03)
    assert abs(float(shift.mean())) < 0.06


def test_contrast_and_hue_end_at_their_limits() -> None:
    """Normals of half the limit, cut at two deviations."""
    image = torch.tensor([255.0, 0, 0])[:, None, None]
    dark = torch.full((3, 1, 1), 100.0)
    contrast = [
        float(A.recolour(dark, BOX, seeded(i), contrast_max=0.4, contrast_center=0.0)[0][0]) / 100 - 1
        for i in range(1000)
    ]
    assert 0.36 < max(map(abs, contrast)) <= 0.4001
    greens = [float(A.recolour(image, BOX, seeded(i), hue_max=30.0)[0][1]) for i in range(1000)]
    limit = max(
        A.colour_matrix(contrast=0, contrast_center=0, hue=h, saturation=0, brightness=0)[0][0, 1]
        for h in (-30, 30)
    )
    assert 0.85 * limit < max(greens) / 255 <= limit + 1e-6


def test_colours_are_clipped() -> None:
    image = torch.tensor([0.0, 127.5, 255.0])[:, None, None].expand(3, 4, 4)
    for seed in range(20):
        found, _ = A.recolour(image, BOX, seeded(seed), contrast_max=1.0, brightness_std=0.5)
        assert float(found.min()) >= 0
        assert float(found.max()) <= 255

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Generator

from frcnn.data import transforms as T
from frcnn.data.geometry import fixed, shortest_side

BOX = torch.tensor([[2.0, 1.0, 6.0, 4.0]])


def ramp(height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.arange(channels * height * width, dtype=torch.float32).reshape(channels, height, width)


def stretch(image: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    return T.place(image, BOX, Generator(), geometry=partial(fixed, size=size, auto_resize=True))


def keep(image: torch.Tensor, size: tuple[int, int], **more: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return T.place(image, BOX, Generator(), geometry=partial(fixed, size=size, auto_resize=False, **more))


def test_stretching_doubles_with_half_pixel_centres() -> None:
    found, _ = stretch(torch.tensor([[[0.0, 100.0]]]), (1, 4))
    # Centres of the new pixels lie at -0.25, 0.25, 0.75 and 1.25 of the old ones.
    torch.testing.assert_close(found, torch.tensor([[[0.0, 25.0, 75.0, 100.0]]]))
    _, boxes = stretch(torch.zeros(1, 4, 8), (4, 16))
    torch.testing.assert_close(boxes, torch.tensor([[4.0, 1.0, 12.0, 4.0]]))


def test_boxes_end_where_the_picture_ends() -> None:
    """What a window cuts away, or a label has beyond its file, must not come back when the image moves."""
    wide = torch.tensor([[-3.0, 1.0, 50.0, 4.0]])
    geometry = partial(fixed, size=(6, 20), auto_resize=False)
    _, cut = T.place(torch.zeros(1, 6, 60), wide, Generator(), geometry=geometry)
    torch.testing.assert_close(cut, torch.tensor([[0.0, 1.0, 20.0, 4.0]]))
    _, padded = T.place(torch.zeros(1, 6, 8), wide, Generator(), geometry=geometry)
    torch.testing.assert_close(padded, torch.tensor([[0.0, 1.0, 8.0, 4.0]]))


def test_shrinking_is_antialiased_and_keeps_fractions() -> None:
    stripes = torch.tensor([0.0, 255.0]).repeat(16)[None, None].repeat(1, 4, 1)
    found, boxes = stretch(stripes, (4, 8))
    # Without antialiasing every sample would hit the same place of a stripe; with it, all is near gray.
    assert (found[..., 1:-1] - 127.5).abs().max() < 1
    assert found.dtype == torch.float32
    torch.testing.assert_close(boxes, torch.tensor([[0.5, 1.0, 1.5, 4.0]]))


def test_the_same_size_changes_nothing() -> None:
    image = ramp(4, 6)
    found, boxes = stretch(image, (4, 6))
    assert found is image
    torch.testing.assert_close(boxes, BOX)


def test_padding_is_black_and_cropping_keeps_the_top_left() -> None:
    found, boxes = keep(ramp(2, 4, 1) + 1, (3, 3))
    torch.testing.assert_close(found, torch.tensor([[[1.0, 2, 3], [5, 6, 7], [0, 0, 0]]]))
    torch.testing.assert_close(boxes, torch.tensor([[2.0, 1.0, 3.0, 2.0]]))  # as much as is left of it


def test_a_crop_starts_at_its_corner_and_takes_boxes_along() -> None:
    found, boxes = keep(ramp(4, 4, 1), (2, 3), crop=(2, 1))
    torch.testing.assert_close(found, torch.tensor([[[6.0, 7, 0], [10, 11, 0]]]))
    torch.testing.assert_close(boxes, torch.tensor([[0.0, 0.0, 2.0, 2.0]]))  # of (0, 0, 4, 3)


def test_scale_comes_before_the_crop() -> None:
    found, boxes = keep(torch.full((1, 4, 6), 9.0), (2, 5), scale=(0.5, 0.0), crop=(1, 0))
    torch.testing.assert_close(found, torch.full((1, 2, 5), 9.0))  # 4 rows became 2, columns 1 to 5 remain
    torch.testing.assert_close(boxes, torch.tensor([[1.0, 0.5, 5.0, 2.0]]))


@pytest.mark.parametrize("corner", [(7, 0), (0, 9), (-20, 0), (2, -30)])
def test_a_window_beside_the_image_is_empty(corner: tuple[int, int]) -> None:
    found = T.window(ramp(4, 6), corner, size=(3, 5), fill=8.0)
    assert found.shape == (3, 3, 5)
    assert (found == 8).all()


def test_padding_is_minus_mean_over_scale_after_normalisation() -> None:
    geometry = partial(fixed, size=(2, 2), auto_resize=False)
    image = torch.full((3, 1, 1), 255.0)
    for step in T.chain(geometry=geometry, mean=(10, 20, 30), scale=2.0, bgr=False):
        image, _ = step(image, BOX, Generator())
    assert image[:, 1, 1].tolist() == [-5, -10, -15]


def test_mean_follows_its_colour() -> None:
    image = torch.tensor([110.0, 120.0, 130.0])[:, None, None]
    rgb, _ = T.normalize(image, BOX, Generator(), mean=(10, 30, 50), scale=2.0, bgr=False)
    bgr, _ = T.normalize(image, BOX, Generator(), mean=(10, 30, 50), scale=2.0, bgr=True)
    assert rgb.flatten().tolist() == [50, 45, 40]
    assert bgr.flatten().tolist() == [40, 45, 50]


def test_clip_stops_one_pixel_before_the_edge() -> None:
    boxes = torch.tensor([[-3.0, -2.0, 50.0, 40.0], [1.5, 2.5, 3.5, 4.5]])
    found = T.clip_boxes(boxes, size=(20, 30))
    expected = torch.tensor([[0.0, 0.0, 29.0, 19.0], [1.5, 2.5, 3.5, 4.5]])
    torch.testing.assert_close(found, expected)
    each = T.clip_boxes(boxes, size=np.array([[20, 30], [4, 3]]))  # the second image is 3 wide, 4 high
    torch.testing.assert_close(each, torch.tensor([[0.0, 0.0, 29.0, 19.0], [1.5, 2.5, 2.0, 3.0]]))


def test_box_factors_of_several_sizes() -> None:
    factors = T.box_factors(np.array([[10, 20], [5, 40]], np.int32), size=(20, 20))
    torch.testing.assert_close(factors, torch.tensor([[1.0, 2.0, 1.0, 2.0], [0.5, 4.0, 0.5, 4.0]]))


def test_generators_differ_by_seed_epoch_and_index_only() -> None:
    def draw(seed: int, epoch: int, index: int) -> float:
        return float(torch.rand((), generator=T.sample_generator(seed=seed, epoch=epoch, index=index)))

    values = {draw(seed, epoch, index) for seed in range(4) for epoch in range(4) for index in range(4)}
    assert len(values) == 64
    assert draw(1, 2, 3) == draw(1, 2, 3)


@pytest.mark.parametrize("size", [(24, 40), (7, 5), (16, 90)])
def test_stretching_is_pytorchs_antialiased_interpolation(size: tuple[int, int]) -> None:
    image = torch.rand(3, 16, 30, generator=Generator().manual_seed(0)) * 255
    found, _ = stretch(image, size)
    expected = F.interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]
    torch.testing.assert_close(found, expected)


def test_boxes_go_back_to_where_they_were() -> None:
    sizes = np.array([[40, 90]])
    before = torch.tensor([[10.0, 5, 60, 30]])
    for geometry in (
        partial(fixed, size=(64, 96), auto_resize=True),
        partial(fixed, size=(64, 96), auto_resize=False, crop=(4, 2)),
        partial(shortest_side, shortest=64, longest=100),
    ):
        placement = geometry(sizes)
        after = T.place_boxes(before, sizes, placement)
        assert torch.allclose(T.place_back(after, (40, 90), placement), before, atol=1e-4)


def test_bytes_and_floats_are_placed_alike() -> None:
    image = torch.randint(0, 256, (3, 40, 90), dtype=torch.uint8, generator=Generator().manual_seed(0))
    for auto_resize in (True, False):
        geometry = partial(fixed, size=(64, 96), auto_resize=auto_resize)
        one, _ = T.place(image, torch.zeros(0, 4), Generator(), geometry=geometry)
        two, _ = T.place(image.float(), torch.zeros(0, 4), Generator(), geometry=geometry)
        assert one.dtype == torch.float32
        assert torch.equal(one, two)

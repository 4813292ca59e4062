import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Generator

from frcnn.data import transforms as T

BOX = torch.tensor([[2.0, 1.0, 6.0, 4.0]])


def ramp(height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.arange(channels * height * width, dtype=torch.float32).reshape(channels, height, width)


def test_resize_doubles_with_half_pixel_centres() -> None:
    image = torch.tensor([[[0.0, 100.0]]])
    found, boxes = T.resize(image, BOX, Generator(), size=(1, 4))
    # Centres of the new pixels lie at -0.25, 0.25, 0.75 and 1.25 of the old ones.
    torch.testing.assert_close(found, torch.tensor([[[0.0, 25.0, 75.0, 100.0]]]))
    torch.testing.assert_close(boxes, torch.tensor([[4.0, 1.0, 12.0, 4.0]]))


def test_resize_shrinks_with_antialiasing_and_keeps_fractions() -> None:
    stripes = torch.tensor([0.0, 255.0]).repeat(16)[None, None].repeat(1, 4, 1)
    found, boxes = T.resize(stripes, BOX, Generator(), size=(4, 8))
    # Without antialiasing every sample would hit the same place of a stripe; with it, all is near gray.
    assert (found[..., 1:-1] - 127.5).abs().max() < 1
    assert found.dtype == torch.float32
    torch.testing.assert_close(boxes, torch.tensor([[0.5, 1.0, 1.5, 4.0]]))


def test_resize_to_the_same_size_changes_nothing() -> None:
    image = ramp(4, 6)
    found, boxes = T.resize(image, BOX, Generator(), size=(4, 6))
    assert found is image
    torch.testing.assert_close(boxes, BOX)


def test_pad_is_black_and_crop_keeps_the_top_left() -> None:
    image = ramp(2, 4, 1) + 1
    found, boxes = T.pad_or_crop(image, BOX, Generator(), size=(3, 3))
    torch.testing.assert_close(found, torch.tensor([[[1.0, 2, 3], [5, 6, 7], [0, 0, 0]]]))
    assert boxes is BOX


def test_padding_is_minus_mean_over_scale_after_normalisation() -> None:
    chain = T.chain(size=(2, 2), auto_resize=False, mean=(10, 20, 30), scale=2.0, bgr=False)
    image = torch.full((3, 1, 1), 255.0)
    for step in chain:
        image, _ = step(image, BOX, Generator())
    assert image[:, 1, 1].tolist() == [-5, -10, -15]


def test_flip_maps_x_to_width_minus_x() -> None:
    image = ramp(1, 8, 1)
    found, boxes = T.flip_horizontally(image, BOX, Generator(), probability=1.0)
    assert found[0, 0].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    torch.testing.assert_close(boxes, torch.tensor([[2.0, 1.0, 6.0, 4.0]]))  # 8 - 6, 8 - 2
    _, edge = T.flip_horizontally(image, torch.tensor([[0.0, 0.0, 3.0, 1.0]]), Generator(), probability=1.0)
    torch.testing.assert_close(edge, torch.tensor([[5.0, 0.0, 8.0, 1.0]]))


def test_flip_happens_with_its_probability() -> None:
    generator = Generator().manual_seed(0)
    flips = [
        T.flip_horizontally(ramp(1, 2, 1), BOX, generator, probability=0.3)[0][0, 0, 0] == 1
        for _ in range(500)
    ]
    assert 0.24 < np.mean(flips) < 0.36


def test_mean_follows_its_colour() -> None:
    image = torch.tensor([110.0, 120.0, 130.0])[:, None, None]
    rgb, _ = T.normalize(image, BOX, Generator(), mean=(10, 30, 50), scale=2.0, bgr=False)
    bgr, _ = T.normalize(image, BOX, Generator(), mean=(10, 30, 50), scale=2.0, bgr=True)
    assert rgb.flatten().tolist() == [50, 45, 40]
    assert bgr.flatten().tolist() == [40, 45, 50]


def test_the_chain_has_no_flip_unless_asked() -> None:
    options = {"size": (2, 2), "auto_resize": True, "mean": (0, 0, 0), "scale": 1.0, "bgr": False}
    assert len(T.chain(**options)) == 2  # type: ignore[arg-type]
    assert len(T.chain(**options, hflip_probability=0.5)) == 3  # type: ignore[arg-type]


def test_clip_stops_one_pixel_before_the_edge() -> None:
    boxes = torch.tensor([[-3.0, -2.0, 50.0, 40.0], [1.5, 2.5, 3.5, 4.5]])
    found = T.clip_boxes(boxes, size=(20, 30))
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0, 29.0, 19.0], [1.5, 2.5, 3.5, 4.5]]))


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
def test_resize_is_pytorchs_antialiased_interpolation(size: tuple[int, int]) -> None:
    image = torch.rand(3, 16, 30, generator=Generator().manual_seed(0)) * 255
    found, _ = T.resize(image, BOX, Generator(), size=size)
    expected = F.interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]
    torch.testing.assert_close(found, expected)

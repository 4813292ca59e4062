import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from frcnn.data.geometry import fixed, shortest_side


def test_stretched_scaled_and_cropped() -> None:
    sizes = np.array([[100, 200], [50, 400]])
    content, corner, output = fixed(sizes, size=(80, 160), auto_resize=True, scale=(0.5, 0.0), crop=(8, 4))
    assert content.tolist() == [[40, 160], [40, 160]]
    assert corner == (8, 4)
    assert output.tolist() == [[80, 160], [80, 160]]


def test_factors_are_of_x_and_y() -> None:
    sizes = np.array([[100, 200]])
    placement = fixed(sizes, size=(50, 50), auto_resize=True)
    assert placement.factors(sizes).tolist() == [[0.25, 0.5, 0.25, 0.5]]


def test_without_resize_images_keep_their_size() -> None:
    content, _, output = fixed(np.array([[100, 200]]), size=(80, 300), auto_resize=False)
    assert content.tolist() == [[100, 200]]
    assert output.tolist() == [[80, 300]]


def test_both_limits_hold() -> None:
    """Facts, spec-and-data 5.6: 375 x 1242 with 600 and 1000 becomes 301 x 1000."""
    sizes = np.array([[375, 1242], [1242, 375], [480, 640], [640, 480], [600, 600]])
    content, corner, output = shortest_side(sizes, shortest=600, longest=1000)
    assert content.tolist() == [[301, 1000], [1000, 301], [600, 800], [800, 600], [600, 600]]
    assert corner == (0, 0)
    assert (output == content).all()


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 1500), st.integers(1, 3000))
def test_the_aspect_is_kept_within_a_pixel(height: int, width: int, shortest: int, longest: int) -> None:
    ((new_height, new_width),) = shortest_side(
        np.array([[height, width]]), shortest=shortest, longest=longest
    ).content
    assert min(new_height, new_width) <= max(shortest, 1)
    assert max(new_height, new_width) <= longest
    factor = min(shortest / min(height, width), longest / max(height, width))
    assert abs(new_height - factor * height) <= 1
    assert abs(new_width - factor * width) <= 1

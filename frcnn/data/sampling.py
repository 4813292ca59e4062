"""How often an epoch shows the images of each source."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Share(NamedTuple):
    """A source as an epoch draws from it."""

    name: str
    images: int
    weight: float  # how often one of its images is drawn, relative to one of another source


def is_even(shares: Sequence[Share]) -> bool:
    """Whether all images are drawn alike, so that an epoch shows each of them exactly once."""
    return len({share.weight for share in shares if share.images}) <= 1


def expected_draws(shares: Sequence[Share]) -> list[float]:
    """How many of an epoch's samples come from each source on average; the sum is the number of images."""
    mass = [share.weight * share.images for share in shares]
    return [sum(share.images for share in shares) * part / sum(mass) for part in mass]


def draw_epoch(shares: Sequence[Share], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The samples of an epoch, as many as there are images: a function of seed and epoch alone.

    Every position draws its source. Within a source images come in shuffled passes, each image once before
    any comes again.

    Returns:
        (m,) numbers in the order of the epoch; of m images, image i is number i on its first visit and
        `i + m`, `i + 2 * m`, ... when it comes again.
    """
    images = np.array([share.images for share in shares])
    total = int(images.sum())
    random = np.random.default_rng(np.random.SeedSequence((seed, epoch)))
    chosen = random.choice(len(shares), size=total, p=np.array(expected_draws(shares)) / total)
    numbers = np.empty(total, np.int64)
    for i, (size, start) in enumerate(zip(images, images.cumsum() - images, strict=True)):
        positions = np.flatnonzero(chosen == i)
        passes = range(0, len(positions), size) if size else ()
        visits = [random.permutation(size) + start + visit * total for visit, _ in enumerate(passes)]
        if visits:
            numbers[positions] = np.concatenate(visits)[: len(positions)]
    return numbers

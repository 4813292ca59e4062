"""Which range of values eight bits should hold: histograms of absolute values, and rules that cut them."""

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

LARGEST = 127
"""Of int8, as far as it is symmetric."""

BINS = 2048
STEPS = 128
"""Values of one sign that TensorRT's entropy calibration compares with."""


class Histogram:
    """Absolute values counted in `BINS` bins of one width, which doubles when a larger value comes.

    Attributes:
        counts: (BINS,) int64.
        limit: the upper edge of the last bin; 0 before there is any value but zero.
        largest: value so far.
        tensors: how many were added.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.int64)
        self.limit = self.largest = 0.0
        self._zeros = self.tensors = 0

    def add(self, x: Tensor) -> None:
        """Count a tensor of any shape."""
        self.tensors += 1
        values = x.detach().abs().flatten().float()
        largest = float(values.max()) if len(values) else 0.0
        self.largest = max(self.largest, largest)
        if self.largest == 0:
            self._zeros += len(values)
            return
        if self.limit == 0:
            self.limit = largest
            self.counts[0] = self._zeros
        while self.limit < largest:
            halves = self.counts.view(-1, 2).sum(1)
            self.counts = torch.cat([halves, torch.zeros_like(halves)])
            self.limit *= 2
        bins = (values * (BINS / self.limit)).long().clamp(max=BINS - 1)
        self.counts += torch.bincount(bins, minlength=BINS).cpu()


def largest(histogram: Histogram) -> float:
    """Nothing is cut off."""
    return histogram.largest


def percentile(histogram: Histogram, *, percent: float) -> float:
    """The edge of a bin up to which so many per cent of the values are."""
    share = histogram.counts.cumsum(0).double() / histogram.counts.sum()
    bins = int((share < percent / 100 - 1e-12).sum()) + 1
    return _edge(histogram, bins)


def mse(histogram: Histogram) -> float:
    """The edge of a bin with which rounding the values costs the least squared error."""
    counts = histogram.counts.double()
    centres = torch.arange(BINS).double() + 0.5
    scales = torch.arange(1, BINS + 1).double()[:, None] / LARGEST
    rounded = (centres / scales).round().clamp(max=LARGEST) * scales
    costs = ((rounded - centres).square() * counts).sum(1)
    return _edge(histogram, int(costs.argmin()) + 1)


def entropy(histogram: Histogram) -> float:
    """The edge of a bin with the least divergence between the values cut there and the same in `STEPS` steps.

    Migacz 2017, "8-bit inference with TensorRT", with two choices of NVIDIA's pytorch-quantization: the first
    bin counts as much as the second, since zeros, of which a ReLU makes many, are kept exactly; of equal
    edges the last is taken. Values that are cut off count in the last bin of the one distribution and not in
    the other, in which a step's values are spread evenly over its bins that are not empty.
    """
    counts = histogram.counts.double().numpy()
    counts[0] = counts[1]
    beyond = np.append(counts[::-1].cumsum()[::-1][1:], 0.0)  # values behind a bin
    best, lowest = BINS, math.inf
    for bins in range(STEPS, BINS + 1):
        seen = counts[:bins]
        whole = seen.copy()
        whole[-1] += beyond[bins - 1]
        if whole[-1] > 0 == seen[-1]:
            continue  # values where the other distribution has none: an infinite divergence
        starts = -(-np.arange(STEPS) * bins // STEPS)
        full = seen > 0
        sizes = np.add.reduceat(full, starts, dtype=np.float64)
        means = np.add.reduceat(seen, starts) / sizes.clip(min=1)
        spread = np.repeat(means, np.diff(starts, append=bins))[full]
        p, q = whole[full] / whole.sum(), spread / spread.sum()
        divergence = float((p * np.log(p / q)).sum())
        if divergence <= lowest:
            best, lowest = bins, divergence
    return _edge(histogram, best)


METHODS: Mapping[str, Callable[[float], Callable[[Histogram], float]]] = {
    "max": lambda _: largest,
    "percentile": lambda percent: partial(percentile, percent=percent),
    "mse": lambda _: mse,
    "entropy": lambda _: entropy,
}
"""Name of `quantize.method` -> from `quantize.percentile` to the rule."""


def _edge(histogram: Histogram, bins: int) -> float:
    return min(histogram.limit * bins / BINS, histogram.largest)

"""Ranges worked by hand, and against plain code of the same rules."""

import math

import numpy as np
import pytest
import torch

from frcnn.quantize.ranges import BINS, METHODS, STEPS, Histogram


def rule(name, percent=99.99):
    return METHODS[name](percent)


def histogram_of(*tensors):
    histogram = Histogram()
    for tensor in tensors:
        histogram.add(torch.as_tensor(tensor, dtype=torch.float32))
    return histogram


def filled(counts):
    """A histogram of values up to 2048 with these counts: bin i is from i to i + 1."""
    histogram = Histogram()
    histogram.counts[: len(counts)] = torch.tensor(counts)
    histogram.limit, histogram.largest = float(BINS), float(BINS)
    return histogram


@pytest.fixture(scope="module")
def activations():
    """What a ReLU makes of a long-tailed distribution: 40,000 values."""
    noise = torch.randn(40_000, generator=torch.Generator().manual_seed(3))
    return (noise * noise.abs()).relu()


def test_values_are_counted_where_they_lie():
    histogram = histogram_of([0.0, -2048.0, 3.5, 3.4, -1024.0, 2047.5])
    assert histogram.limit == histogram.largest == 2048
    found = {i: int(n) for i, n in enumerate(histogram.counts) if n}
    assert found == {0: 1, 3: 2, 1024: 1, 2047: 2}  # the largest belongs to the last bin


def test_a_larger_value_makes_bins_wider_by_doubling():
    histogram = histogram_of([1.0, 0.25], [3.0], [0.0])
    assert (histogram.limit, histogram.largest) == (4.0, 3.0)
    found = {i * 4 / BINS: int(n) for i, n in enumerate(histogram.counts) if n}
    # 1.0 was in the last bin of the first range, whose upper edge it is.
    assert found == {0.0: 1, 0.25: 1, 1.0 - 4 / BINS: 1, 3.0: 1}


def test_zeros_before_any_other_value_count():
    histogram = histogram_of([0.0, 0.0], [0.0], [1.0])
    assert int(histogram.counts[0]) == 3
    assert int(histogram.counts.sum()) == 4


@pytest.mark.parametrize("name", METHODS)
def test_nothing_but_zeros_has_no_range(name):
    assert rule(name)(histogram_of([0.0] * 5)) == 0


def test_max_is_the_largest():
    assert rule("max")(histogram_of([1.0, -2.5], [0.5])) == 2.5


def test_percentile_counts_values():
    """Of ten values nine are in the first four bins: 90 % need four bins, a little more all of them."""
    histogram = filled([3, 3, 2, 1])
    histogram.counts[-1] = 1
    assert rule("percentile", 30)(histogram) == 1
    assert rule("percentile", 80)(histogram) == 3
    assert rule("percentile", 90)(histogram) == 4
    assert rule("percentile", 90.1)(histogram) == BINS
    assert rule("percentile", 100)(histogram) == BINS


def test_percentile_of_many_values(activations):
    found = rule("percentile", 99)(histogram_of(activations))
    expected = np.percentile(activations.numpy(), 99)
    assert abs(found - expected) <= 2 * float(activations.max()) / BINS


def test_mse_of_one_value_is_its_own_range():
    """All values lie at 500.5, which a range of 500.5 * 127 / n keeps; the best edge of a bin is near one."""
    histogram = filled([0] * 500 + [7])
    found = rule("mse")(histogram)
    steps = round(500.5 * 127 / found)
    assert abs(steps * found / 127 - 500.5) < 2e-2


def test_mse_against_plain_code(activations):
    histogram = histogram_of(activations)
    width = histogram.limit / BINS
    values = (np.arange(BINS) + 0.5) * width
    counts = histogram.counts.numpy()
    costs = []
    for bins in range(1, BINS + 1):
        scale = bins * width / 127
        rounded = np.minimum(np.round(values / scale), 127) * scale
        costs.append((counts * (rounded - values) ** 2).sum())
    expected = (int(np.argmin(costs)) + 1) * width
    assert rule("mse")(histogram) == pytest.approx(expected)
    assert 0 < expected < histogram.largest  # a long tail is worth cutting


def test_entropy_against_plain_code(activations):
    """As NVIDIA's pytorch-quantization computes it, bin by bin."""
    histogram = histogram_of(activations)
    bins = histogram.counts.numpy().astype(float)
    bins[0] = bins[1]
    divergences = []
    for stop in range(STEPS, BINS + 1):
        step_of = [i * STEPS // stop for i in range(stop)]
        sums, sizes = np.zeros(STEPS), np.zeros(STEPS)
        for i, step in enumerate(step_of):
            if bins[i]:
                sums[step] += bins[i]
                sizes[step] += 1
        q = np.array([sums[step] / sizes[step] if bins[i] else 0 for i, step in enumerate(step_of)])
        p = bins[:stop].copy()
        p[-1] += bins[stop:].sum()
        p, q = p / p.sum(), q / q.sum()
        terms = [
            0 if a == 0 else math.inf if b == 0 else a * math.log(a / b) for a, b in zip(p, q, strict=True)
        ]
        divergences.append(sum(terms))
    last = len(divergences) - 1 - int(np.argmin(divergences[::-1]))
    expected = (STEPS + last) * histogram.limit / BINS
    assert rule("entropy")(histogram) == pytest.approx(expected)


def test_entropy_keeps_what_fills_the_range_evenly():
    """As many values in every bin: any cut moves values to the last bin, and none is the best."""
    assert rule("entropy")(filled([10] * BINS)) == BINS

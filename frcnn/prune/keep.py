"""Which filters stay: the original's rule (tao/eval-prune-export.md 4.1 to 4.3)."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Choice(NamedTuple):
    """The filters that stay."""

    filters: Tensor  # (n,) int64, ascending
    reason: str


NORMALIZERS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "max": lambda norms: norms / norms.max().clamp(min=torch.finfo(norms.dtype).tiny),
    # TAO: times the number of filters, which its manual leaves out; n equal filters have sqrt(n) each.
    "L2": lambda norms: norms * len(norms) / norms.norm().clamp(min=torch.finfo(norms.dtype).tiny),
}
"""Norms (n,) of a layer's filters -> their strengths, which a threshold judges."""

CRITERIA: Mapping[str, Callable[[Tensor], Tensor]] = {
    "union": lambda table: table.amax(0),
    "intersection": lambda table: table.amin(0),
    "arithmetic_mean": lambda table: table.mean(0),
    "geometric_mean": lambda table: table.log().mean(0).exp(),
}
"""Strengths (layers, n) of layers that keep the same channels -> those of the group (n,)."""


def norms(weight: Tensor) -> Tensor:
    """L2 norms of the filters of a weight (n, ...), float64. Biases and batch norm do not count."""
    found: Tensor = torch.linalg.vector_norm(weight.detach().flatten(1), dim=1)
    return found.double()


def choose(strengths: Tensor, *, threshold: float, granularity: int, min_filters: int) -> Choice:
    """The strongest filters: as many as exceed the threshold, but at least a minimum, rounded up.

    Args:
        strengths: (n,) of the filters.
        threshold: strengths above it, not at it, count.
        granularity: their number is rounded up to a multiple of it; n is always allowed.
        min_filters: fewest that stay, where there are as many.

    Of equally strong filters the first stay.
    """
    width = len(strengths)
    above = int((strengths > threshold).sum())
    least = max(above, min(min_filters, width))
    count = min(-(-least // granularity) * granularity, width)
    reason = f"{above} of {width} above {threshold:.4g}"
    if least > above:
        reason += f", at least {least}"
    if count > least:
        reason += f", rounded up to {count}"
    order = strengths.argsort(descending=True, stable=True)
    return Choice(order[:count].sort().values, reason)

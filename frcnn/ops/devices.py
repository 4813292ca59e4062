"""Tensors of one network on several devices."""

from torch import Tensor


def carry(x: Tensor, *, to: Tensor) -> Tensor:
    """`x` on the device of `to`, its gradient on the way back: the one crossing of a split network."""
    # Not non_blocking: a copy to the host would be read before it is there.
    return x if x.device == to.device else x.to(to.device)

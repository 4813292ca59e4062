"""Data parallel training: Lightning's, with uneven validation and with networks on several devices."""

from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy


class DataParallel(DDPStrategy):
    """One process per device, or per group of devices; gradients are averaged.

    Unlike Lightning's, validation does not go through the wrapper, which makes processes meet in every batch
    although they have different numbers of them. Running statistics are those of the first process, as in
    the original; the others get them when a validation begins, not in every step.

    Args:
        split: whether a process has several devices.
    """

    def __init__(self, *, split: bool = False) -> None:
        super().__init__(broadcast_buffers=False)
        self.split = split

    def determine_ddp_device_ids(self) -> list[int] | None:
        """None where the wrapper must leave the network where it is."""
        return None if self.split else super().determine_ddp_device_ids()

    @torch.no_grad()
    def on_validation_start(self) -> None:
        """Hand out the first process's running statistics."""
        if self.lightning_module is not None:
            for buffer in self.lightning_module.buffers():
                dist.broadcast(buffer, src=0)

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """The step, without the wrapper around the network."""
        with self.precision_plugin.val_step_context():
            return self.lightning_module.validation_step(*args, **kwargs)  # type: ignore[union-attr]

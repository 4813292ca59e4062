"""Training and validation batches for Lightning."""

from collections.abc import Iterator
from functools import partial

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from frcnn.data.dataset import DetectionDataset
from frcnn.data.sample import Batch, Sample, collate
from frcnn.errors import DataError


class EpochSampler(DistributedSampler[tuple[int, int]]):
    """Yields (epoch, number) in an order shuffled by seed and epoch; each rank gets its share.

    Lightning calls `set_epoch` before every epoch. Handing the epoch on with each number is what
    lets workers that live through all epochs know which one they are in.
    """

    def __init__(self, dataset: DetectionDataset, *, seed: int) -> None:
        ranks, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        super().__init__(dataset, num_replicas=ranks, rank=rank, shuffle=True, seed=seed)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for number in super().__iter__():
            yield self.epoch, int(number)  # type: ignore[call-overload]


class DetectionLoader(DataLoader[Sample | DataError]):
    """Raises a worker's `DataError` as it was, with a message that a reader can use."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, DataError):
                raise batch
            yield batch


class DetectionDataModule(pl.LightningDataModule):
    """Shuffled training batches, validation batches in order; the last one may be smaller.

    Args:
        train: training data; None where nothing is trained.
        validation: validation data, if there is any.
        max_objects: ground truth slots of an image.
        batch_size: training images per batch and device.
        validation_batch_size: likewise in validation.
        num_workers: processes that read images, 0 to read in this one.
        seed: what the order of training images starts from.
    """

    def __init__(
        self,
        *,
        train: DetectionDataset | None,
        validation: DetectionDataset | None,
        max_objects: int,
        batch_size: int,
        validation_batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self.max_objects = max_objects
        self.batch_size, self.validation_batch_size = batch_size, validation_batch_size
        self.num_workers, self.seed = num_workers, seed

    def train_dataloader(self) -> DetectionLoader | list[DetectionLoader]:
        """Every image once per epoch, in a new order each time."""
        if self.train is None:
            return []
        return self._loader(self.train, self.batch_size, sampler=EpochSampler(self.train, seed=self.seed))

    def val_dataloader(self) -> DetectionLoader | list[DetectionLoader]:
        """Every image once, always in the same order; Lightning deals them out to ranks."""
        if self.validation is None:
            return []
        return self._loader(self.validation, self.validation_batch_size, sampler=None)

    def _loader(
        self, dataset: DetectionDataset, batch_size: int, *, sampler: EpochSampler | None
    ) -> DetectionLoader:
        return DetectionLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=partial(collate, max_objects=self.max_objects),
        )

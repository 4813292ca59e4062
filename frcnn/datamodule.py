"""Training and validation batches for Lightning."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from frcnn.data.dataset import DetectionDataset
from frcnn.data.sample import Batch, Sample, collate
from frcnn.data.sampling import Share, draw_epoch, is_even
from frcnn.errors import DataError


def _ranks() -> tuple[int, int]:
    """How many processes share the data, and which one this is."""
    return (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)


# Both samplers derive from torch's distributed one because Lightning leaves that kind alone: any other it
# replaces in a distributed run (`use_distributed_sampler`) by one that repeats validation images.


class EpochSampler(DistributedSampler[tuple[int, int]]):
    """Yields (epoch, number) in an order that is a function of seed and epoch; each rank gets its share.

    Ranks get equally many, so that they stay in step: where the number of images does not divide, the
    first ones of the order come again. Lightning calls `set_epoch` before every epoch. Handing the epoch on
    with each number is what lets workers that live through all epochs know which one they are in.

    Args:
        dataset: what the numbers count.
        seed: what chance starts from.
        shares: the sources of the data set in its order; empty: every image once an epoch.
    """

    def __init__(self, dataset: DetectionDataset, *, seed: int, shares: Sequence[Share] = ()) -> None:
        ranks, rank = _ranks()
        super().__init__(dataset, num_replicas=ranks, rank=rank, shuffle=True, seed=seed)
        self.shares = () if is_even(shares) else tuple(shares)
        self.first = 0
        """Where in its order the next epoch begins; a resumed one does not begin at 0."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        numbers: Iterable[Any] = self._weighted() if self.shares else super().__iter__()
        first, self.first = self.first, 0
        for number in itertools.islice(numbers, first, None):
            yield self.epoch, int(number)

    def _weighted(self) -> NDArray[np.int64]:
        order = draw_epoch(self.shares, seed=self.seed, epoch=self.epoch)
        return np.resize(order, self.total_size)[self.rank :: self.num_replicas]


class DealingSampler(DistributedSampler[int]):
    """Deals the numbers of a data set to the ranks in turn, none twice, always in the same order.

    Its length is that of the largest share, so that all ranks expect the same number of batches; a rank
    with less simply ends before. A rank that would go without validates an image that another one has, too:
    the first batch after training makes all processes wait for each other, and an image counts once.
    """

    def __init__(self, dataset: DetectionDataset) -> None:
        ranks, rank = _ranks()
        super().__init__(dataset, num_replicas=ranks, rank=rank, shuffle=False)
        self.images = len(dataset)

    def __iter__(self) -> Iterator[int]:
        yield from range(self.rank, self.images, self.num_replicas) or [self.rank % self.images]


class DetectionLoader(DataLoader[Sample | DataError]):
    """Raises a worker's `DataError` as it was, with a message that a reader can use."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, DataError):
                raise batch
            yield batch


class TrainingLoader(DetectionLoader):
    """A loader whose next epoch may be one that a stopped run began."""

    _skip = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        first, self._skip = self._skip * int(self.batch_size or 1), 0
        self.sampler.first = first  # type: ignore[attr-defined]
        yield from super().__iter__()

    @property
    def images_per_step(self) -> int:
        """Images of a batch, in all processes together."""
        return int(self.batch_size or 1) * _ranks()[0]

    def skip(self, batches: int) -> None:
        """Begin the next epoch behind its first batches, without reading them."""
        self._skip = batches


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
        shares: sources of the training data, where some are to be drawn more often than others.
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
        shares: Sequence[Share] = (),
    ) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self.max_objects = max_objects
        self.batch_size, self.validation_batch_size = batch_size, validation_batch_size
        self.num_workers, self.seed, self.shares = num_workers, seed, tuple(shares)

    def train_dataloader(self) -> DetectionLoader | list[DetectionLoader]:
        """As many samples an epoch as there are images, in a new order each time."""
        if self.train is None:
            return []
        sampler = EpochSampler(self.train, seed=self.seed, shares=self.shares)
        return self._loader(TrainingLoader, self.train, self.batch_size, sampler=sampler)

    def val_dataloader(self) -> DetectionLoader | list[DetectionLoader]:
        """Every image once, whatever the training draws, always in the same order."""
        if self.validation is None:
            return []
        sampler = DealingSampler(self.validation)
        return self._loader(DetectionLoader, self.validation, self.validation_batch_size, sampler=sampler)

    def _loader(
        self,
        kind: type[DetectionLoader],
        dataset: DetectionDataset,
        batch_size: int,
        *,
        sampler: EpochSampler | DealingSampler,
    ) -> DetectionLoader:
        areas = dataset.index.max_ignored
        return kind(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=partial(collate, max_objects=self.max_objects, max_ignored=areas),
        )

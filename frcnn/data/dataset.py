"""An index and a transform chain as a PyTorch data set."""

import copy
import logging
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from frcnn.data.images import read_image
from frcnn.data.index import Index
from frcnn.data.sample import Sample
from frcnn.data.transforms import Transform, box_factors, box_sizes, clip_boxes, sample_generator
from frcnn.errors import DataError

_log = logging.getLogger(__name__)


class DetectionDataset(Dataset[Sample | DataError]):
    """Samples of an index, addressed by number, or by (epoch, number) where chance is involved.

    Args:
        index: as `prepare` returns it.
        transforms: the chain to network input.
        channels: 3 for RGB images, 1 for gray.
        min_size: (width, height) in the network input below which an object is dropped.
        seed: what chance starts from.
        other_sizes: whether a file may be of another size than its label says; boxes are scaled to it then.
    """

    def __init__(
        self,
        index: Index,
        *,
        transforms: Sequence[Transform],
        channels: int = 3,
        min_size: tuple[float, float] = (1.0, 1.0),
        seed: int = 0,
        other_sizes: bool = True,
    ) -> None:
        self.index = index
        self.transforms = tuple(transforms)
        self.channels, self.min_size, self.seed, self.other_sizes = channels, min_size, seed, other_sizes
        self._warned = False

    def __len__(self) -> int:
        return len(self.index)

    def with_transforms(self, transforms: Sequence[Transform]) -> Self:
        """The same images through another chain."""
        other = copy.copy(self)
        other.transforms = tuple(transforms)
        return other

    def __getitem__(self, key: int | tuple[int, int]) -> Sample | DataError:
        """The sample, or in a worker the error: torch would re-raise it with its traceback as message."""
        epoch, number = key if isinstance(key, tuple) else (0, key)
        try:
            return self.sample(number, epoch=epoch)
        except DataError as error:
            if get_worker_info() is None:
                raise
            return error

    def sample(self, number: int, *, epoch: int = 0) -> Sample:
        """Read and transform an image.

        Args:
            number: of the image; `number + len(self)` is the same image with other chance, see `draw_epoch`.
            epoch: what chance depends on, too.

        Raises:
            DataError: the image cannot be read.
        """
        image_number = number % len(self)
        path, rows = self.index.path(image_number), self.index.objects(image_number)
        decoded = read_image(path, channels=self.channels)
        # Interleaved channels, as files have them, would slow every step down.
        image = decoded.to(torch.float32, memory_format=torch.contiguous_format)
        original_size = (image.shape[1], image.shape[2])
        boxes = self._boxes_in(original_size, image_number)
        generator = sample_generator(seed=self.seed, epoch=epoch, index=number)
        for transform in self.transforms:
            image, boxes = transform(image, boxes, generator)
        boxes = clip_boxes(boxes, size=(image.shape[1], image.shape[2]))
        width, height = box_sizes(boxes)
        labels = torch.from_numpy(self.index.class_ids[rows]).long()
        ignored = torch.from_numpy(self.index.ignored[rows])
        something = (width > 0) & (height > 0)
        keep = something & (width >= self.min_size[0]) & (height >= self.min_size[1]) & ~ignored
        area = something & ignored
        return Sample(
            image=image,
            boxes=boxes[keep],
            labels=labels[keep],
            difficult=torch.from_numpy(self.index.difficult[rows])[keep],
            ignored=boxes[area],
            ignored_labels=labels[area],
            original_size=original_size,
            id=str(path),
        )

    def _boxes_in(self, size: tuple[int, int], number: int) -> Tensor:
        """The labels of an image in its file's pixels. TAO: a record's own size is what labels refer to."""
        boxes = torch.from_numpy(self.index.boxes[self.index.objects(number)])
        labelled = (int(self.index.sizes[number][0]), int(self.index.sizes[number][1]))
        if labelled == size:
            return boxes
        swapped = labelled == size[::-1]
        if not (self.other_sizes or swapped):
            raise DataError(
                "the image is not of the size that its label says",
                where=self.index.path(number),
                found=f"{size[1]}x{size[0]}",
                allowed=f"{labelled[1]}x{labelled[0]}",
                hint="convert the data again; with enable_auto_resize boxes are scaled to the file",
            )
        if not self._warned:
            self._warned = True
            what = "boxes are taken as they are" if swapped else "boxes are scaled to the file"
            _log.warning(
                "%s is %dx%d, its label says %dx%d; %s (said once)",
                *(self.index.path(number), size[1], size[0], labelled[1], labelled[0], what),
            )
        return boxes if swapped else boxes * box_factors([labelled], size=size)

"""The largest batch whose training step fits into memory."""

import copy
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from frcnn.errors import RunError
from frcnn.model.detector import FasterRCNN

SHARE = {"cuda": 0.9, "cpu": 0.6}
"""What may be used of the free memory: convolutions take room of their own, and blocks leave gaps."""


class StepMemory(NamedTuple):
    """What a training step takes, bytes."""

    fixed: int  # weights, gradients and the optimizer's state
    per_image: int  # everything else, at its peak

    def images(self, available: int) -> int:
        """How many images fit into so many bytes."""
        return max(int((available - self.fixed) / max(self.per_image, 1)), 0)


def largest_batch(memory: StepMemory, *, available: int, most: int) -> int:
    """The largest power of two that fits, and no more than `most`.

    Raises:
        RunError: not even one image fits.
    """
    images = min(memory.images(available), most)
    if images < 1:
        raise RunError(
            "not even one image fits into memory",
            where="run.auto_batch",
            found=f"{(memory.fixed + memory.per_image) / 2**30:.1f} GiB for a step",
            allowed=f"{available / 2**30:.1f} GiB",
            hint="lower model_config.roi_mini_batch or the input size, freeze blocks, or a smaller backbone",
        )
    return 1 << (images.bit_length() - 1)


def step_memory(
    detector: FasterRCNN,
    *,
    size: tuple[int, int],
    channels: int,
    max_objects: int,
    make_optimizer: Callable[[nn.Module], Optimizer],
    device: torch.device,
    precision: Callable[[], AbstractContextManager[Any]],
) -> StepMemory:
    """Measure a step by doing it with a copy of the network, with one image and with two.

    Args:
        detector: the network to train.
        size: height and width of an image, pixels.
        channels: of an image.
        max_objects: ground truth slots of an image; the images of the measurement fill them all.
        make_optimizer: makes the optimizer; its state counts.
        device: where to measure.
        precision: makes the context of a mixed precision.
    """
    twin = copy.deepcopy(detector).to(device).train()
    optimizer = make_optimizer(twin)
    peaks = []
    for images in (1, 2):
        batch = _full_batch(images, size=size, channels=channels, objects=max_objects, device=device)
        with _Peak(device) as peak:
            with precision():
                loss = torch.stack(list(twin.losses(*batch).values())).sum()
            torch.autograd.backward(loss)
            del loss
        peaks.append(peak.bytes)
    optimizer.step()
    state = [value for values in optimizer.state.values() for value in values.values()]
    tensors = [*twin.parameters(), *(p.grad for p in twin.parameters()), *twin.buffers(), *state]
    fixed = sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))
    return StepMemory(fixed=fixed, per_image=peaks[1] - peaks[0])


def free_memory(device: torch.device) -> int:
    """Bytes that a step may use on a device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return int(SHARE["cuda"] * torch.cuda.mem_get_info(device)[0])
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    kibibytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return int(SHARE["cpu"] * 1024 * kibibytes)


def _full_batch(
    images: int, *, size: tuple[int, int], channels: int, objects: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Noise with as many objects as there may be, all over each image."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(images, channels, *size, generator=generator)
    limits = torch.tensor([size[1], size[0]] * 2)
    corners = torch.rand(images, objects, 2, 2, generator=generator).sort(dim=2).values
    boxes = corners.flatten(2) * limits
    labels = torch.zeros(images, objects, dtype=torch.long)
    return pixels.to(device), boxes.to(device), labels.to(device)


class _Peak(TorchDispatchMode):
    """The largest sum of memory that lived at once of what was made within the block."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.bytes = self._live = 0
        self._known: set[int] = set()

    def __enter__(self) -> "_Peak":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
            return self
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device) - self._before
        else:
            super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage())
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._live += size
        self.bytes = max(self.bytes, self._live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size

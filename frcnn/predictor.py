"""Objects in pictures of any size: a backend with the way there from pictures, and back to their pixels."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TypeAlias, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor, nn

from frcnn import build
from frcnn.backend import Backend, TorchBackend, model_settings, open_backend
from frcnn.data.geometry import Geometry
from frcnn.data.images import eight_bit, image_tensor
from frcnn.data.readers.files import open_regular
from frcnn.data.readers.headers import UNREADABLE, unreadable
from frcnn.data.transforms import Transform, place_back
from frcnn.errors import DataError, RunError, SpecError, WeightsError
from frcnn.spec.fields import build as build_message
from frcnn.spec.run import App, Run, Trainer
from frcnn.spec.values import class_names
from frcnn.trainer import mixed_precision, training_device

Picture: TypeAlias = NDArray[np.generic] | Image.Image | str | Path
"""An array (H, W, 3) RGB or (H, W) gray, a PIL image, or the path of an image file."""


@dataclass(frozen=True)
class Prediction:
    """The n objects of one picture, by falling score.

    Attributes:
        boxes: (n, 4) float32, xyxy pixels of the picture as its file stores it.
        scores: (n,) float32.
        labels: (n,) int64 class ids.
        names: n class names.
        size: height and width of the picture.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: list[str]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.scores)


class Prepared(NamedTuple):
    """A picture as the network takes it."""

    image: Tensor  # (C, H, W) float32, normalised
    size: tuple[int, int]  # height and width of the picture itself


class Predictor:
    """Finds objects in pictures; see `load`.

    Args:
        backend: the model.
        app: its settings.
        device: where images go.
        threshold: score from which an object counts.
        classes: names of the classes that count; none: all.
        batch_size: images that go through the network together.
    """

    def __init__(
        self,
        backend: Backend,
        app: App,
        *,
        device: torch.device,
        threshold: float,
        classes: Collection[str] = (),
        batch_size: int = 1,
    ) -> None:
        if isinstance(backend, nn.Module):
            backend.to(device)
        self.backend, self.device = backend, device
        self.class_names = class_names(app.dataset_config)
        self.threshold, self.batch_size = threshold, max(batch_size, 1)
        self._labels = self._ids(classes)
        self.channels = build.channels(app)
        self._geometry: Geometry = build.geometry(app)
        self._transforms: tuple[Transform, ...] = build.transforms(app)
        self._precision = mixed_precision(app, device) if isinstance(backend, TorchBackend) else nullcontext()

    @overload
    def __call__(self, pictures: Picture) -> Prediction: ...  # type: ignore[overload-overlap]  # a str is one

    @overload
    def __call__(self, pictures: Sequence[Picture]) -> list[Prediction]: ...

    def __call__(self, pictures: Picture | Sequence[Picture]) -> "Prediction | list[Prediction]":
        """Find objects in a picture, or in each of a list of any sizes.

        A picture's EXIF orientation is not applied, as in training; boxes are in its pixels as stored.

        Raises:
            DataError: no picture, or one that cannot be read.
        """
        if not isinstance(pictures, Sequence) or isinstance(pictures, str):
            return self.predict([self.prepare(_pixels(pictures, self.channels))])[0]
        found: list[Prediction] = []
        for start in range(0, len(pictures), self.batch_size):
            batch = pictures[start : start + self.batch_size]
            found += self.predict([self.prepare(_pixels(item, self.channels)) for item in batch])
        return found

    def prepare(self, pixels: NDArray[np.uint8]) -> Prepared:
        """Pixels as `eight_bit` gives them for so many `channels`, as network input."""
        image = image_tensor(pixels)
        size, boxes, chance = (image.shape[1], image.shape[2]), torch.zeros(0, 4), Generator()
        for transform in self._transforms:
            image, boxes = transform(image, boxes, chance)
        return Prepared(image, size)

    def predict(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        """Find objects in prepared pictures, in batches.

        Inputs of different sizes, as a model of `size_min` has, are never padded to a common one: what is
        found in a picture does not depend on its neighbours.
        """
        found: dict[int, Prediction] = {}
        numbers = sorted(range(len(prepared)), key=lambda i: prepared[i].image.shape)
        for _, group in groupby(numbers, key=lambda i: prepared[i].image.shape):
            same = list(group)
            for start in range(0, len(same), self.batch_size):
                batch = same[start : start + self.batch_size]
                found |= zip(batch, self._detect([prepared[i] for i in batch]), strict=True)
        return [found[i] for i in range(len(prepared))]

    def _detect(self, batch: Sequence[Prepared]) -> Iterator[Prediction]:
        images = torch.stack([item.image for item in batch]).to(self.device)
        sizes = torch.tensor([images.shape[-2:]] * len(batch), dtype=torch.float32, device=self.device)
        try:
            with self._precision, torch.no_grad():
                detections = self.backend.detect(images, image_sizes=sizes)
        except torch.OutOfMemoryError as error:
            found, hint = f"{len(batch)} images at once", "a smaller inference_config.batch_size"
            raise RunError("the device has too little memory", found=found, hint=hint) from error
        values = (detections.boxes, detections.scores, detections.labels)
        boxes, scores, labels = (value.detach().cpu() for value in values)
        for i, item in enumerate(batch):
            placement = self._geometry(np.array([item.size]))
            back = place_back(boxes[i].float(), item.size, placement)
            keep = (labels[i] >= 0) & (scores[i] >= self.threshold) & (back[:, 2:] > back[:, :2]).all(1)
            if self._labels is not None:
                keep &= torch.isin(labels[i], self._labels)
            ids = labels[i][keep].numpy()
            names = [self.class_names[label] for label in ids]
            yield Prediction(back[keep].numpy(), scores[i][keep].float().numpy(), ids, names, item.size)

    def _ids(self, classes: Collection[str]) -> Tensor | None:
        ids = {name.lower(): i for i, name in enumerate(self.class_names)}
        unknown = [name for name in classes if name.lower() not in ids]
        if unknown:
            allowed = ", ".join(self.class_names)
            raise SpecError("the model has no such class", found=", ".join(unknown), allowed=allowed)
        return torch.tensor([ids[name.lower()] for name in classes]) if classes else None


def predictor(app: App) -> Predictor:
    """The predictor of `run.model_path` as `inference_config`, `run` and `trainer` say.

    Raises:
        WeightsError: the model cannot be used.
        SpecError: a class that it does not have.
    """
    block = app.inference_config
    return Predictor(
        open_backend(app, block),
        app,
        device=training_device(app),
        threshold=block.bbox_visualize_threshold,
        classes=app.run.only_classes,
        batch_size=block.batch_size,
    )


def load(
    path: str | Path,
    *,
    threshold: float | None = None,
    classes: Collection[str] = (),
    batch_size: int = 1,
    device: str = "auto",
    key: str = "",
) -> Predictor:
    """A predictor of a model file.

    Args:
        path: a .ckpt or .ckpt.enc file of a run or of `import_weights`.
        threshold: score from which an object counts; `bbox_visualize_threshold` of the model's spec if None.
        classes: names of the classes that count; none: all.
        batch_size: images that go through the network together.
        device: auto, cpu or gpu.
        key: of an encrypted model; $FRCNN_ENC_KEY if empty.

    Raises:
        WeightsError: the model cannot be used.
        SpecError: a class, a threshold or a device that there is not; or the key is missing or wrong.
    """
    if not Path(path).is_file():
        raise WeightsError("no such model file", where=path)
    document = model_settings(path, key=key)
    run, trainer = (build_message(kind, document.extra[kind.__name__.lower()]) for kind in (Run, Trainer))
    app = App.of(document.spec, run=run, trainer=trainer)
    app.enc_key = key
    if device not in ("auto", "cpu", "gpu"):
        raise SpecError("no such device", where="device", found=device, allowed="auto, cpu, gpu")
    block, app.trainer.accelerator = app.inference_config, device
    block = replace(block, batch_size=batch_size)
    if threshold is not None:
        if not 0 <= threshold <= 1:
            raise SpecError("is out of range", where="threshold", found=threshold, allowed="0 to 1")
        block.bbox_visualize_threshold = threshold
    app.inference_config, app.run.only_classes = block, list(classes)
    return predictor(app)


def _pixels(picture: object, channels: int) -> NDArray[np.uint8]:
    if isinstance(picture, str | Path):
        path = Path(picture)
        try:
            with open_regular(path) as file, Image.open(file) as image:
                return eight_bit(image, channels=channels)
        except UNREADABLE as error:
            raise unreadable(path, error) from error
    if isinstance(picture, np.ndarray):
        shape = picture.shape
        fits = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
        if not fits or picture.dtype != np.uint8 or not picture.size:
            found, allowed = f"{picture.dtype} {shape}", "uint8 (H, W, 3) or (H, W)"
            raise DataError("is no picture", where="array", found=found, allowed=allowed)
        whole = np.require(picture, requirements=["C", "W"])
        if channels == (3 if shape[2:] == (3,) else 1):
            return whole
        picture = Image.fromarray(whole[:, :, 0] if shape[2:] == (1,) else whole)
    if not isinstance(picture, Image.Image):
        allowed = "an array, a PIL image or a path"
        raise DataError("is no picture", found=type(picture).__name__, allowed=allowed)
    try:
        return eight_bit(picture, channels=channels)
    except UNREADABLE as error:
        raise unreadable(Path(getattr(picture, "filename", "") or "picture"), error) from error

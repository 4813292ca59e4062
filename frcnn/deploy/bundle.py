"""The files beside an exported model: what DeepStream, Triton and people need to know of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from frcnn.deploy.graph import INPUT

COLOURS = {"rgb": 0, "bgr": 1, "gray": 2}
"""nvinfer's model-color-format."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What the files say of a model.

    Attributes:
        name: of the model's file.
        class_names: in the order of class ids, without background.
        size: (H, W) of the input.
        means: per channel, in the order in which the network takes them.
        scale: divides pixels after the mean is subtracted.
        colours: a key of `COLOURS`.
        batch: images per batch; -1: any number.
        data_type: fp32, fp16 or int8.
        pixels: the input is uint8 pixels, red first, and the graph does the rest.
        threshold: score from which detections are worth showing.
        stretched: whether images are stretched to the input, as nvinfer does, and neither cut nor padded.
        cache: name of the INT8 calibration cache; empty: none.
    """

    name: str
    class_names: Sequence[str]
    size: tuple[int, int]
    means: Sequence[float]
    scale: float
    colours: str
    batch: int
    data_type: str
    pixels: bool
    threshold: float
    stretched: bool
    cache: str = ""

    @property
    def channels(self) -> int:
        """Of the input."""
        return len(self.means)

    @property
    def shape(self) -> str:
        """CxHxW, as trtexec writes it."""
        return f"{self.channels}x{self.size[0]}x{self.size[1]}"


def files(card: ModelCard) -> dict[str, str]:
    """Name -> text of every file. nvinfer fills float tensors: none of its files goes with one of pixels."""
    written = {"labels.txt": labels_text(card), "README.md": readme(card)}
    if not card.pixels:
        written |= {
            "nvinfer_config.txt": nvinfer_lines(card),
            "config_infer_primary.txt": config_infer_primary(card),
        }
    return written


def labels_text(card: ModelCard) -> str:
    """labels.txt: the class ids in order, background last."""
    return "".join(f"{name}\n" for name in (*card.class_names, "background"))


def nvinfer_lines(card: ModelCard) -> str:
    """nvinfer_config.txt: what nvinfer has to know of the model, in the original's order.

    nvinfer computes `net-scale-factor * (x - offset)` per channel in the order of model-color-format
    (tao/eval-prune-export.md 8.4).
    """
    height, width = card.size
    values = {
        "net-scale-factor": repr(1 / card.scale),
        "offsets": ";".join(repr(float(mean)) for mean in card.means),
        "infer-dims": f"{card.channels};{height};{width}",
        "network-type": 0,
        "num-detected-classes": len(card.class_names) + 1,
        "model-color-format": COLOURS[card.colours],
        "maintain-aspect-ratio": 0,
        "output-tensor-meta": 0,
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def config_infer_primary(card: ModelCard) -> str:
    """config_infer_primary.txt: a whole configuration of nvinfer."""
    batch = max(card.batch, 1)
    return _filled(
        "config_infer_primary.txt",
        name=card.name,
        warning="" if card.stretched else f"{_MOVED}\n",
        engine=f"{card.name}_b{batch}_gpu0_{card.data_type}.engine",
        batch=batch,
        mode={"fp32": 0, "int8": 1, "fp16": 2}[card.data_type],
        typed=_TYPED if card.data_type == "fp16" else "",
        cache=f"int8-calib-file={card.cache}\n" if card.cache else "",
        model=nvinfer_lines(card).rstrip("\n"),
        threshold=f"{card.threshold:g}",
    )


def readme(card: ModelCard) -> str:
    """README.md: what the model is, and the five ways to run it."""
    height, width = card.size
    sides = {"channels": card.channels, "height": height, "width": width}
    shapes = (f" --{kind}Shapes={INPUT}:{n}x{card.shape}" for kind, n in _PROFILE.items())
    return _filled(
        "README.md",
        name=card.name,
        count=len(card.class_names),
        classes=", ".join(card.class_names),
        data_type=card.data_type,
        input="uint8 pixels, red first" if card.pixels else "float32 network input",
        images="any number of images" if card.batch < 0 else f"images per batch: {card.batch}",
        factor=repr(1 / card.scale),
        offsets=", ".join(f"{mean:g}" for mean in card.means),
        colours=card.colours,
        placed="stretched to the input" if card.stretched else "placed in the input as spec.txt says",
        flags=(" --stronglyTyped" if card.data_type == "fp16" else "")
        + ("".join(shapes) if card.batch < 0 else ""),
        deepstream=_FLOAT if card.pixels else _filled("deepstream.md", **sides).rstrip("\n"),
        batch=max(card.batch, 1),
        dtype="uint8" if card.pixels else "float32",
        **sides,
    )


_TYPED = "; where DeepStream knows strongly-typed=1, set that instead: the file has its types"
_PROFILE = {"min": 1, "opt": 4, "max": 16}
_MOVED = "# The spec cuts or pads images, nvinfer stretches whole frames to infer-dims: expect other results."
_FLOAT = "nvinfer fills float tensors; export without `export.preprocess` for DeepStream."


def _filled(template: str, **values: object) -> str:
    text = (Path(__file__).parent / "templates" / template).read_text(encoding="utf-8")
    return Template(text).substitute(values)

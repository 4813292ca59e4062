"""The detector as a graph of static shapes, for exporters to trace."""

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from frcnn.model.detector import DetectionSettings, FasterRCNN, ProposalSettings
from frcnn.ops.nms import NmsForm
from frcnn.quantize import fold_batch_norm

INPUT = "input_image"
OUTPUTS = ("nms_out", "nms_out_1")
STAGES = (
    "features",
    "rpn_logits",
    "rpn_deltas",
    "proposals",
    "proposals_valid",
    "head_logits",
    "head_deltas",
)
"""Tensors inside of the graph that keep these names, so that stages can be compared."""

MOST_RANKED = 3840
"""TensorRT's TopK takes no larger k (tao/eval-prune-export.md 9.1)."""


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How pixels in 0..255 become network input, where the graph does it.

    Attributes:
        mean: subtracted per channel, in the order red, green, blue, or one for gray.
        scale: divides afterwards.
        bgr: whether the network takes blue first.
    """

    mean: tuple[float, ...]
    scale: float
    bgr: bool

    def network(self, pixels: Tensor) -> Tensor:
        """Network input (B, C, H, W) float32 of pixels, red first."""
        mean = torch.tensor(self.mean, device=pixels.device)[:, None, None]
        images = (pixels.float() - mean) / self.scale
        return images.flip(1) if self.bgr else images

    def back(self, images: Tensor) -> Tensor:
        """The pixels (B, C, H, W) uint8, red first, that network input was made of, rounded."""
        colours = images.flip(1) if self.bgr else images
        mean = torch.tensor(self.mean, device=images.device)[:, None, None]
        return (colours * self.scale + mean).round().clamp(0, 255).to(torch.uint8)


def within_limits(settings: DetectionSettings) -> tuple[DetectionSettings, list[str]]:
    """Settings that TensorRT can rank, and a sentence for each that had to be lowered."""
    notices, lowered = [], settings
    for name, words in (
        ("pre_nms_top_n", "proposals before NMS"),
        ("post_nms_top_n", "proposals after NMS"),
        ("max_detections", "detections per image"),
    ):
        if (wanted := getattr(settings, name)) > MOST_RANKED:
            lowered = replace(lowered, **{name: MOST_RANKED})  # type: ignore[arg-type]
            notices.append(
                f"{words}: {MOST_RANKED} in place of {wanted}, the most that TensorRT's TopK takes"
            )
    return lowered, notices


class DetectionGraph(nn.Module):
    """Images in, rows of detections out; the detector that is given stays as it is.

    Everything has a fixed shape but the number of images. The two outputs are those that DeepStream's parser
    NvDsInferParseCustomNMSTLT reads (tao/eval-prune-export.md 8.3).

    Args:
        detector: with its weights.
        settings: how detections are made; see `within_limits`.
        size: (H, W) of the input.
        channels: C of the input.
        pixels: how uint8 pixels become network input; None: the input is network input.
        half: trunk, RPN and head compute in half precision; boxes and suppression never do, since areas of
            boxes overflow it.
        nms_form: "matrix", or "operator" for ONNX's NonMaxSuppression.
    """

    anchors: Tensor
    image_size: Tensor
    sides: Tensor

    def __init__(
        self,
        detector: FasterRCNN,
        *,
        settings: DetectionSettings,
        size: tuple[int, int],
        channels: int = 3,
        pixels: Pixels | None = None,
        half: bool = False,
        nms_form: NmsForm = "matrix",
    ) -> None:
        super().__init__()
        self.detector = detector = copy.deepcopy(detector).cpu().eval().requires_grad_(False)
        self.settings, self.size, self.channels = settings, size, channels
        self.pixels, self.half_precision = pixels, half
        detector.nms_form, detector.crop_form = nms_form, "grid_sample"
        detector.memory_format = torch.contiguous_format
        detector.to(memory_format=torch.contiguous_format)
        fold_batch_norm(detector)
        height, width = size
        with torch.no_grad():
            features = detector.feature_map(torch.zeros(1, channels, height, width))
        if half:
            for stage in (detector.trunk, detector.rpn, detector.head):
                stage.half()
        self.register_buffer("anchors", detector.anchors(features), persistent=False)
        self.register_buffer("image_size", torch.tensor([[float(height), float(width)]]), persistent=False)
        sides = torch.tensor([float(width), float(height)]).repeat(2)
        self.register_buffer("sides", sides, persistent=False)

    @property
    def input_type(self) -> torch.dtype:
        """Of the images."""
        return torch.uint8 if self.pixels else torch.float32

    def example(self, images: int) -> Tensor:
        """An input of so many images."""
        return torch.zeros(images, self.channels, *self.size, dtype=self.input_type)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detect.

        Args:
            images: (B, C, H, W) float32 network input, or uint8 pixels, red first.

        Returns:
            nms_out (B, 1, N, 7) float32: rows [0, label, score, x1 / W, y1 / H, x2 / W, y2 / H] by falling
            score, unused ones label -1 and score 0. nms_out_1 (B, 1, 1, 1) int32: how many rows are used.
            Then the tensors of `STAGES`.
        """
        detector, settings = self.detector, self.settings
        x = images if self.pixels is None else self.pixels.network(images)
        features = detector.feature_map(x.half() if self.half_precision else x)
        rpn = detector.rpn(features)
        proposals = detector.propose(
            rpn,
            self.anchors,
            self.image_size,
            settings=ProposalSettings(
                pre_nms_top_n=settings.pre_nms_top_n,
                post_nms_top_n=settings.post_nms_top_n,
                nms_iou=settings.rpn_nms_iou,
            ),
        )
        output = detector.head(detector.crop(features, proposals.boxes, input_size=self.size))
        found = detector.postprocess(output, proposals, self.image_size, settings=settings)
        labels, scores = found.labels.float().unsqueeze(-1), found.scores.unsqueeze(-1)
        rows = torch.cat([torch.zeros_like(scores), labels, scores, found.boxes / self.sides], dim=-1)
        count = (found.labels >= 0).sum(1, dtype=torch.int32).view(-1, 1, 1, 1)
        return rows.unsqueeze(1), count, features, *rpn, *proposals, *output

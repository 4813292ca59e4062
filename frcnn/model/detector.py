"""Faster R-CNN: backbone, region proposals and region head as one module."""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from frcnn.errors import SpecError
from frcnn.model import losses
from frcnn.model.backbones import Backbone
from frcnn.model.batch_norm import BatchNorm2d
from frcnn.model.roi_head import Detections, DetectionSettings, RoiHead, RoiOutput, postprocess
from frcnn.model.rpn import Proposals, ProposalSettings, Rpn, RpnOutput, propose
from frcnn.model.targets import rpn_targets, sample_regions
from frcnn.ops.anchors import cell_anchors, grid_anchors
from frcnn.ops.devices import carry
from frcnn.ops.nms import NmsForm
from frcnn.ops.roi import CropForm, crop_and_resize

__all__ = ["DetectionSettings", "Detections", "FasterRCNN", "ProposalSettings"]

STRIDE = 16


class FasterRCNN(nn.Module):
    """The detector; every stage can be called alone, `losses` and `detect` chain them.

    Args:
        backbone: of `build_backbone`.
        num_classes: K, without background, whose label is K.
        anchor_scales, anchor_ratios: sides of the square anchors in pixels; width / height.
        freeze_blocks: ids of backbone blocks that do not train, statistics included.
        freeze_bn: batch norm uses stored statistics in training; gamma and beta train.
        sync_bn: batch norm's statistics in training are those of the batches of all processes together.
        rpn_std_scaling: multiplies the RPN's delta targets.
        roi_stds: multiply the head's delta targets (dx, dy, dw, dh).
        rpn_negative_iou, rpn_positive_iou, rpn_sample: which anchors the RPN learns from, how many per image.
        roi_negative_iou, roi_positive_iou, roi_sample: the same for regions and the head.
        ground_truth_regions: whether ground truth boxes are candidates for regions.
        proposals: of the training step.
        loss_weights: per key of `losses`; 1 where absent.
        channels: the channel plan that the backbone was built with; the RPN's part is read here.
        nms_form, crop_form: how the two run, see `frcnn.ops`; attributes, so that an export can choose.

    Raises:
        SpecError: a block id that the backbone does not have.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_classes: int,
        anchor_scales: Sequence[float],
        anchor_ratios: Sequence[float],
        freeze_blocks: Collection[int] = (),
        freeze_bn: bool = False,
        sync_bn: bool = False,
        rpn_std_scaling: float = 1.0,
        roi_stds: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
        rpn_negative_iou: float = 0.3,
        rpn_positive_iou: float = 0.7,
        rpn_sample: int = 256,
        roi_negative_iou: float = 0.0,
        roi_positive_iou: float = 0.5,
        roi_sample: int = 256,
        ground_truth_regions: bool = False,
        proposals: ProposalSettings | None = None,
        loss_weights: Mapping[str, float] | None = None,
        channels: Mapping[str, int] | None = None,
        nms_form: NmsForm = "auto",
        crop_form: CropForm = "auto",
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.crop_size = backbone.crop_size
        self.rpn_std_scaling = rpn_std_scaling
        self.rpn_negative_iou, self.rpn_positive_iou = rpn_negative_iou, rpn_positive_iou
        self.rpn_sample = rpn_sample
        self.roi_negative_iou, self.roi_positive_iou = roi_negative_iou, roi_positive_iou
        self.roi_sample = roi_sample
        self.ground_truth_regions = ground_truth_regions
        self.training_proposals = proposals or ProposalSettings()
        self.loss_weights = dict(loss_weights or {})
        self.nms_form, self.crop_form = nms_form, crop_form

        self.trunk = backbone.trunk
        self.rpn = Rpn(
            in_channels=backbone.trunk.out_channels,
            num_anchors=len(anchor_scales) * len(anchor_ratios),
            hidden_channels=(channels or {}).get("rpn_conv1", 512),
        )
        self.head = RoiHead(body=backbone.body, num_classes=num_classes)
        cell = cell_anchors(scales=anchor_scales, ratios=anchor_ratios)
        self.register_buffer("cell_anchors", cell, persistent=False)
        self.register_buffer("roi_stds", torch.tensor(roi_stds, dtype=torch.float32), persistent=False)
        self.cell_anchors: Tensor
        self.roi_stds: Tensor

        self._freeze(freeze_blocks, freeze_bn)
        for layer in self.modules():
            if isinstance(layer, BatchNorm2d):
                layer.synced = sync_bn
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.memory_format)

    # Stages

    def feature_map(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, Cf, H / 16, W / 16)."""
        features: Tensor = self.trunk(images.contiguous(memory_format=self.memory_format))
        return features

    def anchors(self, features: Tensor) -> Tensor:
        """(Hf, Wf, A, 4) for a feature map."""
        height, width = features.shape[-2:]
        return grid_anchors(self.cell_anchors, feature_size=(height, width), stride=STRIDE)

    def propose(
        self, output: RpnOutput, anchors: Tensor, image_sizes: Tensor, *, settings: ProposalSettings
    ) -> Proposals:
        """Proposals of the RPN's outputs, without gradient."""
        return propose(
            output,
            anchors,
            image_sizes,
            settings=settings,
            std_scaling=self.rpn_std_scaling,
            nms_form=self.nms_form,
        )

    def crop(self, features: Tensor, boxes: Tensor, *, input_size: tuple[int, int]) -> Tensor:
        """Patches under boxes (B, R, 4): (B * R, Cf, P, P)."""
        return crop_and_resize(
            features,
            carry(boxes, to=features),
            input_size=input_size,
            size=self.crop_size,
            form=self.crop_form,
        )

    def postprocess(
        self, output: RoiOutput, proposals: Proposals, image_sizes: Tensor, *, settings: DetectionSettings
    ) -> Detections:
        """Detections of the head's outputs for all proposals."""
        return postprocess(
            output, proposals, image_sizes, settings=settings, stds=self.roi_stds, nms_form=self.nms_form
        )

    def limit_activations(self, ceiling: float | None) -> None:
        """End every ReLU at a value; None ends none. Not part of the state dict."""
        for part in (self.trunk, self.rpn, self.head.body):
            part.ceiling = ceiling

    def compile_stages(self, *, backend: str = "inductor") -> None:
        """Let torch.compile make one graph of each of trunk, RPN and head; names and weights stay."""
        for stage in (self.trunk, self.rpn, self.head):
            stage.compile(fullgraph=True, backend=backend)

    # Chains

    def losses(
        self,
        images: Tensor,
        boxes: Tensor,
        labels: Tensor,
        *,
        image_sizes: Tensor | None = None,
        ignored: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Weighted losses "rpn_class", "rpn_box", "rcnn_class" and "rcnn_box" of a batch.

        Args:
            images: (B, C, H, W) normalised.
            boxes: (B, G, 4) ground truth, xyxy pixels.
            labels: (B, G) int64, -1 in padding.
            image_sizes: (B, 2) height and width of the valid part of each image; None for all of it.
            ignored: (B, I, 4) areas that are neither object nor background, 0 in padding.
            generator: of the random samples, on the device of the images.
        """
        sizes = _valid_sizes(images, image_sizes)
        features = self.feature_map(images)
        rpn = RpnOutput(*(carry(x, to=images) for x in self.rpn(features)))
        anchors = self.anchors(features)
        targets = rpn_targets(
            anchors.flatten(0, 2),
            boxes,
            labels,
            sizes,
            negative_iou=self.rpn_negative_iou,
            positive_iou=self.rpn_positive_iou,
            sample=self.rpn_sample,
            std_scaling=self.rpn_std_scaling,
            ignored=ignored,
            generator=generator,
        )
        regions = sample_regions(
            self.propose(rpn, anchors, sizes, settings=self.training_proposals),
            boxes,
            labels,
            negative_iou=self.roi_negative_iou,
            positive_iou=self.roi_positive_iou,
            sample=self.roi_sample,
            num_classes=self.num_classes,
            stds=self.roi_stds,
            with_ground_truth=self.ground_truth_regions,
            ignored=ignored,
            generator=generator,
        )
        crops = self.crop(features, regions.boxes, input_size=_input_size(images))
        roi = self.head(crops, _mask(regions.labels >= 0))
        scores, deltas = (carry(x, to=images).float().view(*regions.labels.shape, -1) for x in roi)
        logits, rpn_deltas = rpn.by_cell()
        values = {
            "rpn_class": losses.rpn_class_loss(logits, targets.labels, sample=self.rpn_sample),
            "rpn_box": losses.rpn_box_loss(
                rpn_deltas, targets.deltas, targets.labels, sample=self.rpn_sample
            ),
            "rcnn_class": losses.rcnn_class_loss(scores, regions.labels),
            "rcnn_box": losses.rcnn_box_loss(deltas, regions.deltas, regions.labels),
        }
        return {name: value * self.loss_weights.get(name, 1.0) for name, value in values.items()}

    @torch.no_grad()
    def detect(
        self,
        images: Tensor,
        *,
        settings: DetectionSettings,
        image_sizes: Tensor | None = None,
        after_network: Callable[[], None] = lambda: None,
    ) -> Detections:
        """Find objects. Call `eval()` before.

        Images of one batch that differ in size go through the network size by size, without the batch's
        padding: what is found in an image does not depend on its neighbours.

        Args:
            images: (B, C, H, W) normalised.
            settings: how detections are made.
            image_sizes: as in `losses`; asking for them waits for a GPU.
            after_network: called before the outputs become detections, for a clock.
        """
        parts = _by_size(images, image_sizes)
        raw = [self.outputs(part, settings=settings) for _, part in parts]
        after_network()
        found = [self.postprocess(*outputs, settings=settings) for outputs in raw]
        if len(found) == 1:
            return found[0]
        order = torch.tensor([row for rows, _ in parts for row in rows], device=images.device).argsort()
        return Detections(*(torch.cat(column)[order] for column in zip(*found, strict=True)))

    @torch.no_grad()
    def outputs(self, images: Tensor, *, settings: DetectionSettings) -> tuple[RoiOutput, Proposals, Tensor]:
        """What `postprocess` makes detections of: outputs of the head, proposals, image sizes (B, 2)."""
        sizes = _valid_sizes(images, None)
        features = self.feature_map(images)
        proposals = self.propose(
            RpnOutput(*(carry(x, to=images) for x in self.rpn(features))),
            self.anchors(features),
            sizes,
            settings=ProposalSettings(
                pre_nms_top_n=settings.pre_nms_top_n,
                post_nms_top_n=settings.post_nms_top_n,
                nms_iou=settings.rpn_nms_iou,
            ),
        )
        crops = self.crop(features, proposals.boxes, input_size=_input_size(images))
        return RoiOutput(*(carry(x, to=images) for x in self.head(crops))), proposals, sizes

    def _freeze(self, blocks: Collection[int], batch_norm: bool) -> None:
        parts = (self.trunk, self.head.body)
        allowed = sorted({block for part in parts for block in part.freezable})
        if not set(blocks) <= set(allowed):
            raise SpecError("no such block to freeze", found=sorted(blocks), allowed=allowed)
        for part in parts:
            part.freeze(blocks)
        for layer in self.modules():
            if batch_norm and isinstance(layer, BatchNorm2d):
                layer.frozen = True


def channel_plan(model: nn.Module) -> dict[str, int]:
    """Output channels of every convolution and dense layer, by TAO name."""
    return {
        name.rpartition(".")[2]: layer.weight.shape[0]
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


def _input_size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


def _valid_sizes(images: Tensor, image_sizes: Tensor | None) -> Tensor:
    if image_sizes is not None:
        return image_sizes
    # Filled on the device: a tensor made of host values would wait for the copy.
    sides = [torch.full((len(images),), float(side), device=images.device) for side in _input_size(images)]
    return torch.stack(sides, dim=1)


def _by_size(images: Tensor, image_sizes: Tensor | None) -> list[tuple[list[int], Tensor]]:
    """The rows of a batch that share a size, and their images without padding; all of it without sizes."""
    if image_sizes is None:
        return [([], images)]
    rows: dict[tuple[int, int], list[int]] = {}
    for row, (height, width) in enumerate(image_sizes.int().tolist()):
        rows.setdefault((height, width), []).append(row)
    if len(rows) == 1:
        ((height, width),) = rows
        return [([], images[:, :, :height, :width])]
    return [(some, images[some, :, :height, :width]) for (height, width), some in rows.items()]


def _mask(valid: Tensor) -> Tensor | None:
    """(B, R) -> (B * R,), or None if every region counts, which saves batch norm its slow way.

    Only asked where the answer costs nothing: on a GPU it would wait for the device.
    """
    if valid.device.type == "cpu" and not torch.compiler.is_compiling() and bool(valid.all()):
        return None
    return valid.flatten()

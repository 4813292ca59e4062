"""The network of a spec, and how it makes detections."""

from collections.abc import Mapping

from frcnn.build.images import channels, is_bgr, means
from frcnn.deploy.graph import Pixels
from frcnn.model.backbones import build_backbone
from frcnn.model.detector import DetectionSettings, FasterRCNN, ProposalSettings
from frcnn.spec.evaluation import EvaluationConfig, InferenceConfig
from frcnn.spec.experiment import Experiment
from frcnn.spec.run import App
from frcnn.spec.values import class_names
from frcnn.weights.sources import Target


def build_detector(spec: Experiment, *, plan: Mapping[str, int] | None = None) -> FasterRCNN:
    """The detector of `model_config` and of the losses in `training_config`.

    Args:
        spec: settings.
        plan: the channel plan of a pruned network, layer -> output channels; None for the arch's own.
    """
    model, training = spec.model_config, spec.training_config
    std = training.classifier_regr_std
    return FasterRCNN(
        backbone=build_backbone(
            model.arch,
            in_channels=channels(spec),
            use_bias=model.use_bias,
            use_pooling=model.use_pooling,
            all_projections=model.all_projections,
            pool_size=model.roi_pooling_config.pool_size,
            pool_size_2x=model.roi_pooling_config.pool_size_2x,
            stride_on_3x3=isinstance(spec, App) and spec.run.stride_on_3x3,
            dropout_rate=model.dropout_rate,
            drop_connect_rate=model.drop_connect_rate,
            activation=model.activation.activation_type if model.activation else "",
            dynamic_size=model.input_image_config.size_height_width is None,
            channels=plan,
        ),
        num_classes=len(class_names(spec.dataset_config)),
        anchor_scales=model.anchor_box_config.scale,
        anchor_ratios=model.anchor_box_config.ratio,
        freeze_blocks=model.freeze_blocks,
        freeze_bn=model.freeze_bn,
        sync_bn=isinstance(spec, App) and spec.trainer.sync_batchnorm,
        rpn_std_scaling=training.std_scaling,
        roi_stds=[std[key] for key in ("x", "y", "w", "h")],
        rpn_negative_iou=training.rpn_min_overlap,
        rpn_positive_iou=training.rpn_max_overlap,
        rpn_sample=training.rpn_mini_batch,
        roi_negative_iou=training.classifier_min_overlap,
        roi_positive_iou=training.classifier_max_overlap,
        roi_sample=model.roi_mini_batch,
        ground_truth_regions=training.gt_as_roi,
        proposals=ProposalSettings(
            pre_nms_top_n=training.rpn_pre_nms_top_N,
            post_nms_top_n=training.rpn_nms_max_boxes,
            nms_iou=training.rpn_nms_overlap_threshold,
        ),
        loss_weights={
            "rpn_class": training.lambda_rpn_class,
            "rpn_box": training.lambda_rpn_regr,
            "rcnn_class": training.lambda_cls_class,
            "rcnn_box": training.lambda_cls_regr,
        },
        channels=plan,
        channels_last=not isinstance(spec, App) or spec.run.channels_last,
    )


def imagenet_target(spec: Experiment) -> Target:
    """What ImageNet weights have to be made for."""
    image = spec.model_config.input_image_config
    return Target(
        arch=spec.model_config.arch,
        means=tuple(means(spec)),
        scale=image.image_scaling_factor,
        bgr=is_bgr(spec),
    )


def pixels(spec: Experiment) -> Pixels:
    """How pixels become network input, for a graph that does it."""
    scale = spec.model_config.input_image_config.image_scaling_factor
    return Pixels(mean=tuple(means(spec)), scale=scale, bgr=is_bgr(spec))


def detection_settings(
    block: EvaluationConfig | InferenceConfig, *, tao_quirks: bool = False
) -> DetectionSettings:
    """How detections are made, of `evaluation_config` or `inference_config`."""
    return DetectionSettings(
        pre_nms_top_n=block.rpn_pre_nms_top_N,
        post_nms_top_n=block.rpn_nms_max_boxes,
        rpn_nms_iou=block.rpn_nms_overlap_threshold,
        score_threshold=block.object_confidence_thres,
        nms_iou=block.classifier_nms_overlap_threshold,
        max_detections=block.classifier_nms_max_boxes,
        unused_proposals=tao_quirks,
    )

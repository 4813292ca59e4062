"""TAO's `inference_config` and `evaluation_config` blocks: how detections are made and scored."""

from dataclasses import dataclass

from frcnn.spec.fields import Message, above, inside, setting, within


@dataclass
class TrtInference(Message):
    """A TensorRT engine in place of the model."""

    trt_engine: str = setting(1, "engine file", default="")


@dataclass
class IoUThresholdRange(Message):
    """IoU thresholds start, start + step, ... below end."""

    start: float = setting(1, "first threshold", rule=inside(0, 1))
    end: float = setting(2, "end, itself excluded", rule=within(0, 1))
    step: float = setting(3, "distance", rule=inside(0, 1))


@dataclass
class InferenceConfig(Message):
    """Detection on images without labels."""

    images_dir: str = setting(1, "folder of images", default="")
    model: str = setting(2, "model file", default="")
    bbox_visualize_threshold: float = setting(
        5, "score from which detections are drawn and written", default=0.6, rule=inside(0, 1)
    )
    classifier_nms_overlap_threshold: float = setting(
        6, "IoU of the detections' NMS", default=0.3, rule=inside(0, 1)
    )
    rpn_nms_max_boxes: int = setting(7, "proposals after NMS", default=300, rule=above(0))
    rpn_nms_overlap_threshold: float = setting(8, "IoU of the proposals' NMS", default=0.7, rule=inside(0, 1))
    classifier_nms_max_boxes: int = setting(9, "detections per image", default=100, rule=above(0))
    rpn_pre_nms_top_N: int = setting(10, "proposals before NMS", default=6000, rule=above(0))
    detection_image_output_dir: str = setting(11, "folder for annotated images", default="")
    bbox_caption_on: bool = setting(12, "write class and score beside each box", default=False)
    labels_dump_dir: str = setting(13, "folder for label files", default="")
    trt_inference: TrtInference | None = setting(14, "TensorRT engine to use", default=None)
    batch_size: int = setting(15, "images per step", default=1, zero_means=1)
    object_confidence_thres: float = setting(
        16, "score below which detections are dropped", default=1e-4, rule=inside(0, 1)
    )
    nms_score_bits: int = setting(
        17, "bits of the score in a TensorRT plugin", default=0, inert="exported graphs hold no plugin"
    )


@dataclass
class EvaluationConfig(Message):
    """Detection on images with labels, and the score of it."""

    model: str = setting(3, "model file", default="")
    rpn_nms_max_boxes: int = setting(6, "proposals after NMS", default=300, rule=above(0))
    rpn_nms_overlap_threshold: float = setting(7, "IoU of the proposals' NMS", default=0.7, rule=inside(0, 1))
    classifier_nms_max_boxes: int = setting(8, "detections per image", default=100, rule=above(0))
    classifier_nms_overlap_threshold: float = setting(
        9, "IoU of the detections' NMS", default=0.3, rule=inside(0, 1)
    )
    object_confidence_thres: float = setting(
        11, "score below which detections are dropped", default=1e-4, rule=inside(0, 1)
    )
    rpn_pre_nms_top_N: int = setting(12, "proposals before NMS", default=6000, rule=above(0))
    use_voc07_11point_metric: bool = setting(13, "VOC 2007's 11-point AP instead of the area", default=False)
    validation_period_during_training: int = setting(
        15, "epochs between validations", default=1, zero_means=1
    )
    batch_size: int = setting(16, "images per step", default=1, zero_means=1)
    trt_evaluation: TrtInference | None = setting(17, "TensorRT engine to use", default=None)
    gt_matching_iou_threshold_range: IoUThresholdRange | None = setting(
        18, "IoU thresholds that count as a match", default=None, oneof="iou_threshold_config"
    )
    gt_matching_iou_threshold: float | None = setting(
        19,
        "IoU that counts as a match; 0.5 if neither is set",
        default=None,
        oneof="iou_threshold_config",
        rule=inside(0, 1),
    )
    visualize_pr_curve: bool = setting(20, "draw precision over recall", default=False)

"""Values that a spec implies: class names, IoU thresholds, zeros that stand for something, dead fields."""

import math
import struct
from collections.abc import Iterator

from frcnn.spec.dataset import DatasetConfig
from frcnn.spec.evaluation import EvaluationConfig, InferenceConfig
from frcnn.spec.experiment import Experiment
from frcnn.spec.fields import Message as _Message
from frcnn.spec.fields import children, settings_of, walk
from frcnn.spec.model import OPTIONS_OF, ImageType, ModelConfig


def class_names(data: DatasetConfig) -> list[str]:
    """Classes in the order of their ids; background comes after the last (spec-and-data 2.6)."""
    return sorted(set(data.target_class_mapping.values()))


def plain_name(name: str) -> str:
    """A class name as it is compared: TAO's converter takes capitals, and from COCO's names spaces, away."""
    return name.replace(" ", "").lower()


def iou_thresholds(evaluation: EvaluationConfig, *, tao_quirks: bool = False) -> list[float]:
    """IoU thresholds that count as a match: one, or start, start + step, ... below end.

    TAO: they are single precision, and 0.55 is 0.5500000007450581 (facts: eval-prune-export 2.1).
    """
    span = evaluation.gt_matching_iou_threshold_range
    if span is None:
        single = evaluation.gt_matching_iou_threshold
        value = 0.5 if single is None else single
        return [_single(value) if tao_quirks else value]
    if tao_quirks:
        start, end, step = _single(span.start), _single(span.end), _single(span.step)
        return [start + i * step for i in range(max(1, math.ceil((end - start) / step)))]
    # Rounding to 6 digits gives the values that the original's users meant.
    count = max(1, -int(-(round((span.end - span.start) / span.step, 6)) // 1))
    return [round(span.start + i * span.step, 6) for i in range(count)]


def model_file(block: EvaluationConfig | InferenceConfig) -> str:
    """The model that a block names. TAO: the engine of a `trt_` block comes before `model`."""
    engine = block.trt_evaluation if isinstance(block, EvaluationConfig) else block.trt_inference
    return (engine.trt_engine if engine else "") or block.model


def _single(value: float) -> float:
    (rounded,) = struct.unpack("f", struct.pack("f", value))
    return float(rounded)


def replace_zeros(message: _Message, path: str = "") -> Iterator[str]:
    """Put in what an explicit zero stands for; yields a sentence for each."""
    for field in settings_of(type(message)):
        value, here = getattr(message, field.name), f"{path}.{field.name}" if path else field.name
        if field.zero_means is not None and value == 0:
            setattr(message, field.name, field.kind(field.zero_means))
            yield f"{here} is 0, which means {field.zero_means:g}"
        for inner_path, inner in children(here, value):
            yield from replace_zeros(inner, inner_path)


def dead_fields(spec: Experiment) -> Iterator[str]:
    """A sentence for each field that is set, accepted and without effect."""
    for path, field, value in walk(spec):
        if field.inert and value is not None and value != field.default:
            yield f"{path} has no effect: {field.inert}"
    yield from _options_of_others(spec.model_config)
    pre, image = spec.augmentation_config.preprocessing, spec.model_config.input_image_config
    path = "augmentation_config.preprocessing"
    if image.size_min is None:
        for name in ("output_image_min", "output_image_max"):
            if getattr(pre, name):
                yield f"{path}.{name} has no effect: the network input has a fixed size"
    elif pre.enable_auto_resize:
        yield f"{path}.enable_auto_resize has no effect: with size_min every image is resized"
    colour = spec.augmentation_config.color_augmentation
    if image.image_type == ImageType.GRAY_SCALE:
        for name in ("color_shift_stddev", "hue_rotation_max", "saturation_shift_max", "contrast_scale_max"):
            if getattr(colour, name):
                yield f"augmentation_config.color_augmentation.{name} has no effect: images are gray"
    if image.size_min is not None and image.size_min.min != pre.output_image_min:
        yield f"{path}.output_image_min {pre.output_image_min} counts, not size_min {image.size_min.min}"


def _options_of_others(model: ModelConfig) -> Iterator[str]:
    """Options of the network that are set and that its family does not have."""
    values = {name: getattr(model, name) for name in OPTIONS_OF}
    values["activation"] = model.activation.activation_type if model.activation else ""
    for name, families in OPTIONS_OF.items():
        if values[name] and not model.arch.startswith(families):
            yield f"model_config.{name} has no effect: {model.arch} has no such option"

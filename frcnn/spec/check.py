"""Range and cross-field checks; every problem is reported in one go."""

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

from frcnn.errors import SpecError
from frcnn.spec.dataset_export import COCOConfig, DatasetExportConfig, KITTIConfig
from frcnn.spec.evaluation import EvaluationConfig, InferenceConfig
from frcnn.spec.experiment import Experiment
from frcnn.spec.fields import REQUIRED, UINT32_MAX, Message, Setting, above, inside, settings_of, walk
from frcnn.spec.model import FREEZABLE_BLOCKS, ImageType
from frcnn.spec.training import RegularizationType, TrainingConfig
from frcnn.spec.values import plain_name

Locate = Callable[[str], str]
IMAGE_EXTENSIONS = ("png", "jpg", "jpeg")
CHANNEL_KEYS = {ImageType.RGB: ("r", "g", "b"), ImageType.GRAY_SCALE: ("l",)}


def check(spec: Experiment, *, locate: Locate = str, tao_quirks: bool = False) -> None:
    """Refuse a spec that cannot be trained.

    Args:
        spec: settings to check; paths in it are not looked at.
        locate: turns a dotted path into the place to show, such as file, line and column.
        tao_quirks: whether conventions of the original apply where its manual says otherwise.

    Raises:
        SpecError: everything that is wrong, each with place, value and allowed values.
    """
    problems = [*field_problems(spec, locate)]
    sound = {problem.where for problem in problems}
    problems += [p for p in cross_problems(spec, locate, tao_quirks) if p.where not in sound]
    if problems:
        raise SpecError.of(problems)


def check_export(spec: DatasetExportConfig, *, locate: Locate = str) -> None:
    """Refuse a dataset_convert spec that cannot be converted; arguments and errors as in `check`."""
    problems = [*field_problems(spec, locate)]
    sound = {problem.where for problem in problems}
    for group in (_export_kind, _export_kitti, _export_coco, _sample_modifier):
        for path, message, found, allowed in group(spec):
            if locate(path) not in sound:
                problems.append(SpecError(message, where=locate(path), found=found, allowed=allowed))
    if problems:
        raise SpecError.of(problems)


def field_problems(spec: Message, locate: Locate) -> Iterator[SpecError]:
    """What single fields and oneofs break."""
    for path, field, value in walk(spec):
        if field.required and value == REQUIRED:
            yield SpecError(
                "is required",
                where=locate(path),
                allowed=_allowed(field),
            )
        elif field.shape == "map":
            missing = [key for key in field.keys if key not in value]
            if missing or (field.needed and not value):
                yield SpecError(
                    "needs entries" if not value else f"lacks {', '.join(missing)}",
                    where=locate(path),
                    found=", ".join(value) or "none",
                    allowed=", ".join(field.keys) or None,
                )
            yield from _item_problems(field, {f"{path}.{k}": v for k, v in value.items()}, locate)
        elif field.shape == "list":
            if field.needed and not value:
                yield SpecError(
                    "needs at least one value",
                    where=locate(path),
                    found="none",
                )
            yield from _item_problems(field, {f"{path}.{i}": v for i, v in enumerate(value)}, locate)
        elif value is not None:
            yield from _item_problems(field, {path: value}, locate)
    yield from _oneof_problems(spec, locate, "")


def cross_problems(spec: Experiment, locate: Locate, tao_quirks: bool) -> Iterator[SpecError]:
    """What fields break together. Fields that broke a rule of their own may show up again."""
    for group in (_input, _heads, _training, _schedule, _augmentation, _data, _evaluation):
        for path, message, found, allowed in group(spec):
            yield SpecError(message, where=locate(path), found=found, allowed=allowed)
    radians = spec.augmentation_config.spatial_augmentation.rotate_rad_max
    if radians > 3.1416 and not tao_quirks:
        yield SpecError(
            "is an angle in radians",
            where=locate("augmentation_config.spatial_augmentation.rotate_rad_max"),
            found=radians,
            allowed="0 to 3.1416",
            hint=f"{math.radians(radians):.4g} if these are degrees, as the original took them; "
            "run.tao_quirks=true takes degrees too",
        )


Finding = tuple[str, str, object, object]


def _item_problems(field: Setting, items: Mapping[str, object], locate: Locate) -> Iterator[SpecError]:
    for path, value in items.items():
        if isinstance(value, bool | Message):
            continue
        if field.kind is int and field.number and not (isinstance(value, int) and 0 <= value <= UINT32_MAX):
            allowed = f"a whole number from 0 to {UINT32_MAX}"
            yield SpecError("is out of range", where=locate(path), found=value, allowed=allowed)
        elif field.rule and not (value == 0 and field.zero_means is not None) and not field.rule.holds(value):
            found = repr(value) if isinstance(value, str) else value
            yield SpecError("is out of range", where=locate(path), found=found, allowed=_allowed(field))


def _allowed(field: Setting) -> str | None:
    if field.is_enum:
        return " or ".join(member.name for member in field.kind)  # type: ignore[attr-defined]
    return field.rule.allowed if field.rule else None


def _oneof_problems(message: Message, locate: Locate, path: str) -> Iterator[SpecError]:
    chosen: dict[str, list[str]] = {}
    for field in settings_of(type(message)):
        value, here = getattr(message, field.name), f"{path}.{field.name}" if path else field.name
        if field.oneof and value is not None:
            chosen.setdefault(field.oneof, []).append(here)
        if isinstance(value, Message):
            yield from _oneof_problems(value, locate, here)
    for paths in chosen.values():
        if len(paths) > 1:
            names = " and ".join(p.rpartition(".")[2] for p in paths)
            yield SpecError(
                "only one may be set", where=locate(paths[-1]), found=names, allowed="one of them"
            )


def _number(value: object) -> float | None:
    return None if isinstance(value, str) or value is None else float(value)  # type: ignore[arg-type]


def _input(spec: Experiment) -> Iterator[Finding]:
    image, pre = spec.model_config.input_image_config, spec.augmentation_config.preprocessing
    path, size = "model_config.input_image_config", image.size_height_width
    if image.image_type in CHANNEL_KEYS:
        keys = CHANNEL_KEYS[image.image_type]
        if missing := [key for key in keys if key not in image.image_channel_mean]:
            found = ", ".join(image.image_channel_mean) or "none"
            yield f"{path}.image_channel_mean", f"lacks {', '.join(missing)}", found, ", ".join(keys)
        if pre.output_image_channel not in (0, len(keys)):
            where = "augmentation_config.preprocessing.output_image_channel"
            message = f"does not fit image_type {image.image_type.name}"
            yield where, message, pre.output_image_channel, len(keys)
    if image.size_min is None and size is None:
        yield path, "has no size", "none", "size_height_width { height width } or size_min { min }"
    if size is not None:
        for side in ("width", "height"):
            output, model = getattr(pre, f"output_image_{side}"), getattr(size, side)
            if output not in (0, model) and model != REQUIRED:
                where = f"augmentation_config.preprocessing.output_image_{side}"
                yield where, "differs from the model's input size", output, f"{model} or 0"
    if image.size_min is not None and not (pre.output_image_min and pre.output_image_max):
        where = "augmentation_config.preprocessing.output_image_min"
        found = f"output_image_min {pre.output_image_min}, output_image_max {pre.output_image_max}"
        allowed = "two sizes above 0; augmentation=dynamic has them"
        yield where, "size_min needs output_image_min and output_image_max", found, allowed


def _heads(spec: Experiment) -> Iterator[Finding]:
    model = spec.model_config
    blocks = FREEZABLE_BLOCKS.get(str(model.arch).partition(":")[0], range(UINT32_MAX))
    for i, block in enumerate(model.freeze_blocks):
        if block not in blocks:
            path = f"model_config.freeze_blocks.{i}"
            yield path, f"is no block of {model.arch}", block, f"{blocks.start} to {blocks.stop - 1}"


def _training(spec: Experiment) -> Iterator[Finding]:
    training, path = spec.training_config, "training_config"
    for kind in ("rpn", "classifier"):
        low = _number(getattr(training, f"{kind}_min_overlap"))
        high = _number(getattr(training, f"{kind}_max_overlap"))
        if low is not None and high is not None and low >= high:
            where = f"{path}.{kind}_max_overlap"
            yield where, f"must exceed {kind}_min_overlap", high, f"above {low:g}, at most 1"
    regularizer = training.regularizer
    rule = inside(0, 1)
    if regularizer.type != RegularizationType.NO_REG and not rule.holds(regularizer.weight):
        yield f"{path}.regularizer.weight", "is out of range", regularizer.weight, rule.allowed
    blocks: dict[str, TrainingConfig | InferenceConfig | EvaluationConfig] = {
        path: training,
        "inference_config": spec.inference_config,
        "evaluation_config": spec.evaluation_config,
    }
    for where, block in blocks.items():
        before, after = _number(block.rpn_pre_nms_top_N), _number(block.rpn_nms_max_boxes)
        if before is not None and after is not None and after >= before:
            allowed = f"less than rpn_pre_nms_top_N, {before:g}"
            yield (
                f"{where}.rpn_nms_max_boxes",
                "must be smaller than rpn_pre_nms_top_N",
                f"{after:g}",
                allowed,
            )
    for name in ("optimizer", "learning_rate"):
        members = [field.name for field in settings_of(type(getattr(training, name)))]
        if all(getattr(getattr(training, name), member) is None for member in members):
            yield f"{path}.{name}", "is required", "none", " or ".join(members)


def _schedule(spec: Experiment) -> Iterator[Finding]:
    schedule = spec.training_config.learning_rate.soft_start
    if schedule is None:
        return
    path = "training_config.learning_rate.soft_start.annealing_points"
    points = schedule.annealing_points
    if any(later < earlier for earlier, later in pairwise(points)):
        yield path, "must ascend", points, "ascending shares of the run"
    if points and schedule.soft_start >= min(points):
        allowed = f"above soft_start, {schedule.soft_start:g}"
        yield path, "must lie behind the warm-up", min(points), allowed


def _augmentation(spec: Experiment) -> Iterator[Finding]:
    spatial, pre = spec.augmentation_config.spatial_augmentation, spec.augmentation_config.preprocessing
    if spatial.zoom_min > spatial.zoom_max:
        path = "augmentation_config.spatial_augmentation.zoom_max"
        yield path, "must not be below zoom_min", spatial.zoom_max, f"at least {spatial.zoom_min:g}"
    size = spec.model_config.input_image_config.size_height_width
    if any((pre.crop_left, pre.crop_top, pre.crop_right, pre.crop_bottom)):
        for low, high, side in (("left", "right", "width"), ("top", "bottom", "height")):
            start, stop = getattr(pre, f"crop_{low}"), getattr(pre, f"crop_{high}")
            path = f"augmentation_config.preprocessing.crop_{high}"
            if stop <= start:
                yield path, f"must exceed crop_{low}", stop, above(start).allowed
            elif size is not None and stop - start != getattr(size, side) != REQUIRED:
                allowed = f"{start + getattr(size, side)}: crop_{low} plus the {side} of the network input"
                yield path, f"the crop is not of the network's {side}", stop, allowed
    if size is not None and pre.output_image_min and not pre.enable_auto_resize:
        path, allowed = "augmentation_config.preprocessing.output_image_min", "0, or size_min (model=dynamic)"
        yield (
            path,
            "keeps the aspect of images, and the network has a fixed size",
            pre.output_image_min,
            allowed,
        )
    if size is None and any((pre.crop_right, pre.crop_bottom, pre.scale_width, pre.scale_height)):
        path = "augmentation_config.preprocessing"
        yield path, "crop and scale need a fixed input size", "size_min", "size_height_width, or neither"


def _data(spec: Experiment) -> Iterator[Finding]:
    data, path = spec.dataset_config, "dataset_config"
    if data.image_extension.lower() not in IMAGE_EXTENSIONS:
        where, allowed = f"{path}.image_extension", ", ".join(IMAGE_EXTENSIONS)
        yield where, "is no image format we read", repr(data.image_extension), allowed
    sources = {f"{path}.data_sources.{i}": source for i, source in enumerate(data.data_sources)}
    if data.validation_data_source is not None:
        sources[f"{path}.validation_data_source"] = data.validation_data_source
    for where, source in sources.items():
        for name in ("tfrecords_path", "image_directory_path"):
            if not getattr(source, name):
                yield f"{where}.{name}", "is required", "empty", "a path"
    mapping, where = data.target_class_mapping, f"{path}.target_class_mapping"
    if "" in mapping or "" in mapping.values():
        yield where, "has an entry without a name", "key or value is empty", "a name on both sides"
    for names, what in ((list(mapping), "key"), (sorted(set(mapping.values())), "value")):
        seen: dict[str, str] = {}
        for name in names:
            other = seen.setdefault(plain_name(name) if what == "key" else name.lower(), name)
            same = what == "key" and name.lower() != other.lower() and mapping[name] == mapping[other]
            if other != name and not same:
                how = "case" if name.lower() == other.lower() else "spaces"
                yield where, f"two {what}s differ only in {how}", f"{other}, {name}", "one spelling"
        if "background" in seen:
            yield where, f"background may not be a {what}", seen["background"], "any other name"


def _evaluation(spec: Experiment) -> Iterator[Finding]:
    span = spec.evaluation_config.gt_matching_iou_threshold_range
    if span is not None and REQUIRED not in (span.start, span.end, span.step) and span.start >= span.end:
        path = "evaluation_config.gt_matching_iou_threshold_range.end"
        yield path, "must exceed start", span.end, f"above {span.start:g}, at most 1"


def _export_kind(spec: DatasetExportConfig) -> Iterator[Finding]:
    if spec.kitti_config is None and spec.coco_config is None:
        yield "kitti_config", "there is no data set to convert", "none", "kitti_config or coco_config"


def _export_kitti(spec: DatasetExportConfig) -> Iterator[Finding]:
    kitti, path = spec.kitti_config, "kitti_config"
    if kitti is None:
        return
    for name in ("image_dir_name", "label_dir_name"):
        if not getattr(kitti, name):
            yield f"{path}.{name}", "is required", "empty", "a folder below root_directory_path"
    if kitti.partition_mode == "random":
        if kitti.num_partitions != 2:
            yield f"{path}.num_partitions", "random mode makes two partitions", kitti.num_partitions, 2
        if not 0 <= kitti.val_split < 100:
            yield f"{path}.val_split", "is out of range", kitti.val_split, "a percentage, from 0 to below 100"
    if kitti.partition_mode == "sequence" and not kitti.kitti_sequence_to_frames_file:
        where, allowed = f"{path}.kitti_sequence_to_frames_file", "a JSON file below root_directory_path"
        yield where, "is required in sequence mode", "empty", allowed


def _export_coco(spec: DatasetExportConfig) -> Iterator[Finding]:
    coco, path = spec.coco_config, "coco_config"
    if coco is None:
        return
    count = coco.num_partitions
    if not count:
        yield f"{path}.num_partitions", "is required", count, "the number of annotation files"
        return
    for name in ("img_dir_names", "annotation_files"):
        if len(getattr(coco, name)) != count:
            yield f"{path}.{name}", "needs one entry per partition", len(getattr(coco, name)), count
    if len(coco.num_shards) not in (1, count):
        where, allowed = f"{path}.num_shards", f"1 or {count}" if count > 1 else 1
        yield where, "needs one number for all partitions or one each", len(coco.num_shards), allowed


def _sample_modifier(spec: DatasetExportConfig) -> Iterator[Finding]:
    modifier, path = spec.sample_modifier_config, "sample_modifier_config"
    targets = dict.fromkeys(modifier.source_to_target_class_mapping.values())
    for name in ("dominant_target_classes", "filter_samples_containing_only"):
        for i, target in enumerate(getattr(modifier, name)):
            if target not in targets:
                where, allowed = f"{path}.{name}.{i}", ", ".join(targets) or "none"
                yield where, "is no value of source_to_target_class_mapping", target, allowed
    seen: dict[str, str] = {}
    mapping = modifier.source_to_target_class_mapping
    for name in mapping:
        if mapping[other := seen.setdefault(name.lower(), name)] != mapping[name]:
            where = f"{path}.source_to_target_class_mapping"
            yield where, "two keys differ only in case", f"{other}, {name}", "one spelling"
    data: KITTIConfig | COCOConfig | None = spec.kitti_config or spec.coco_config
    if modifier.max_training_samples and data is not None and not data.num_partitions:
        where, allowed = f"{path}.max_training_samples", "num_partitions above 0, or no limit"
        yield where, "is shared by the partitions, and there are none", modifier.max_training_samples, allowed

"""The only translator: TAO's settings in, constructed parts out."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from frcnn.data.dataset import DetectionDataset
from frcnn.data.index import Source
from frcnn.data.kitti import read_kitti
from frcnn.data.prepare import prepare
from frcnn.data.shards import find_records, in_fold, select_fold
from frcnn.data.table import DataTable
from frcnn.data.tfrecord import read_tfrecords
from frcnn.data.toy import ensure_toy
from frcnn.data.transforms import chain
from frcnn.datamodule import DetectionDataModule
from frcnn.errors import DataError, SpecError
from frcnn.model.backbones import build_backbone
from frcnn.model.detector import DetectionSettings, FasterRCNN, ProposalSettings
from frcnn.optim import optimizers, schedules
from frcnn.paths import PathFinder, load_mounts
from frcnn.spec.dataset import DataSource
from frcnn.spec.evaluation import EvaluationConfig, InferenceConfig
from frcnn.spec.experiment import Experiment
from frcnn.spec.model import ImageType
from frcnn.spec.run import Run
from frcnn.spec.training import LRConfig, OptimizerConfig, RegularizationType
from frcnn.spec.values import class_names

log = logging.getLogger(__name__)


def build_detector(spec: Experiment) -> FasterRCNN:
    """The detector of `model_config` and of the losses in `training_config`."""
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
            dropout_rate=model.dropout_rate,
            drop_connect_rate=model.drop_connect_rate,
            activation=model.activation.activation_type if model.activation else "",
        ),
        num_classes=len(class_names(spec.dataset_config)),
        anchor_scales=model.anchor_box_config.scale,
        anchor_ratios=model.anchor_box_config.ratio,
        freeze_blocks=model.freeze_blocks,
        freeze_bn=model.freeze_bn,
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
    )


def detection_settings(block: EvaluationConfig | InferenceConfig) -> DetectionSettings:
    """How detections are made, of `evaluation_config` or `inference_config`."""
    return DetectionSettings(
        pre_nms_top_n=block.rpn_pre_nms_top_N,
        post_nms_top_n=block.rpn_nms_max_boxes,
        rpn_nms_iou=block.rpn_nms_overlap_threshold,
        score_threshold=block.object_confidence_thres,
        nms_iou=block.classifier_nms_overlap_threshold,
        max_detections=block.classifier_nms_max_boxes,
    )


def optimizer(spec: Experiment) -> Callable[[nn.Module], Optimizer]:
    """What makes the optimizer for a detector; the schedule sets its rate."""
    make, l2 = _optimizer_class(spec.training_config.optimizer), penalty(spec, "L2")
    return lambda detector: make(optimizers.parameter_groups(detector, l2=l2), lr=1.0)


def _optimizer_class(config: OptimizerConfig) -> Callable[..., Optimizer]:
    if config.adam:
        adam = config.adam
        betas = (adam.beta_1, adam.beta_2)
        return partial(optimizers.Adam, betas=betas, amsgrad=adam.amsgrad, epsilon=adam.epsilon)
    if config.sgd:
        return partial(optimizers.SGD, momentum=config.sgd.momentum, nesterov=config.sgd.nesterov)
    return optimizers.rmsprop


def penalty(spec: Experiment, kind: str) -> float:
    """Weight of the penalty `L1` or `L2`; 0 where the regularizer is another."""
    regularizer = spec.training_config.regularizer
    return regularizer.weight if regularizer.type == RegularizationType[kind] else 0.0


def schedule(spec: Experiment, *, tao_quirks: bool = False) -> Callable[[int, int], float]:
    """The learning rate as a function of step and number of steps, for one device."""
    by_progress = _schedule(spec.training_config.learning_rate, tao_quirks)
    config = spec.training_config.optimizer
    decay = next((member.decay for member in (config.adam, config.sgd) if member), 0.0)

    def rate(step: int, steps: int) -> float:
        return schedules.inverse_time_decay(by_progress(step / max(steps, 1)), decay=decay, steps=step)

    return rate


def _schedule(config: LRConfig, smooth: bool) -> Callable[[float], float]:
    if config.soft_start:
        soft = config.soft_start
        return partial(
            schedules.soft_start,
            base_lr=soft.base_lr,
            start_lr=soft.start_lr,
            soft_start=soft.soft_start,
            annealing_points=soft.annealing_points,
            annealing_divider=soft.annealing_divider,
        )
    if config.step:
        step = config.step
        return partial(
            schedules.step, base_lr=step.base_lr, gamma=step.gamma, step_size=step.step_size, smooth=smooth
        )
    raise SpecError("is required", where="training_config.learning_rate", allowed="soft_start or step")


def channels(spec: Experiment) -> int:
    """Channels of the network input."""
    return 1 if spec.model_config.input_image_config.image_type == ImageType.GRAY_SCALE else 3


def input_size(spec: Experiment) -> tuple[int, int]:
    """(height, width) of the network input."""
    size = spec.model_config.input_image_config.size_height_width
    if size is None:
        raise SpecError("has no fixed size", where="model_config.input_image_config")
    return size.height, size.width


def means(spec: Experiment) -> list[float]:
    """Channel means in the order r, g, b or l."""
    image = spec.model_config.input_image_config
    keys = ("l",) if channels(spec) == 1 else ("r", "g", "b")
    return [image.image_channel_mean[key] for key in keys]


@dataclass(frozen=True)
class Data:
    """Batches, with the account of every object.

    Attributes:
        module: training and validation batches.
        training, validation: what became of each object; None where there is no such data.
    """

    module: DetectionDataModule
    training: DataTable | None
    validation: DataTable | None


def build_data(spec: Experiment, *, num_workers: int, train: bool = True) -> Data:
    """Read the labels of all sources and make batches of them; paths are absolute by now.

    Args:
        spec: settings.
        num_workers: loader processes.
        train: whether training data is wanted too.

    Raises:
        DataError: files that are missing or broken, a fold that does not exist, no objects left.
    """
    data, training = spec.dataset_config, spec.training_config
    validation = data.validation_data_source is not None or data.validation_fold is not None
    train_set, train_table = _data_set(spec, validation=False) if train else (None, None)
    val_set, val_table = _data_set(spec, validation=True) if validation else (None, None)
    module = DetectionDataModule(
        train=train_set,
        validation=val_set,
        max_objects=spec.model_config.input_image_config.max_objects_num_per_image,
        batch_size=training.batch_size_per_gpu,
        validation_batch_size=spec.evaluation_config.batch_size,
        num_workers=num_workers,
        seed=spec.random_seed,
    )
    return Data(module, train_table, val_table)


def _data_set(spec: Experiment, *, validation: bool) -> tuple[DetectionDataset, DataTable]:
    data, preprocessing = spec.dataset_config, spec.augmentation_config.preprocessing
    min_size = (preprocessing.min_bbox_width, preprocessing.min_bbox_height)
    index, table = prepare(
        _sources(spec, validation=validation),
        class_mapping=data.target_class_mapping,
        size=input_size(spec),
        auto_resize=preprocessing.enable_auto_resize,
        max_objects=spec.model_config.input_image_config.max_objects_num_per_image,
        min_size=min_size,
        split="validation" if validation else "training",
    )
    spatial = spec.augmentation_config.spatial_augmentation
    augment = not validation and spec.training_config.enable_augmentation
    image = spec.model_config.input_image_config
    transforms = chain(
        size=input_size(spec),
        auto_resize=preprocessing.enable_auto_resize,
        mean=means(spec),
        scale=image.image_scaling_factor,
        bgr=image.image_channel_order == "bgr" and channels(spec) == 3,
        hflip_probability=spatial.hflip_probability if augment else 0.0,
    )
    dataset = DetectionDataset(
        index, transforms=transforms, channels=channels(spec), min_size=min_size, seed=spec.random_seed
    )
    return dataset, table


def _sources(spec: Experiment, *, validation: bool) -> list[Source]:
    data = spec.dataset_config
    if validation and data.validation_data_source is not None:
        return [_read(data.validation_data_source, spec, fold=None, validation=True)]
    fold, sources = data.validation_fold, data.data_sources
    # Of several sources some may lack the fold: they only train. A single one has to have it.
    split = [source for source in sources if fold is not None and _has_fold(source, fold)] or sources
    without = [] if validation else [source for source in sources if source not in split]
    for source in without:
        log.warning("%s has no fold %s: all of it is training data", source.tfrecords_path, fold)
    return [
        *(_read(source, spec, fold=fold, validation=validation) for source in split),
        *(_read(source, spec, fold=None, validation=False) for source in without),
    ]


def _has_fold(source: DataSource, fold: int) -> bool:
    is_folder = Path(source.tfrecords_path).is_dir()
    return not is_folder and any(in_fold(path, fold) for path in find_records(source.tfrecords_path))


def _read(source: DataSource, spec: Experiment, *, fold: int | None, validation: bool) -> Source:
    labels, root = Path(source.tfrecords_path), Path(source.image_directory_path)
    extension = spec.dataset_config.image_extension
    if labels.is_dir():
        if fold is not None:
            raise DataError(
                "validation_fold needs TFRecords",
                where="dataset_config.validation_fold",
                found=f"{labels}, a label folder",
                hint="give validation_data_source instead",
            )
        return read_kitti(image_root=root, labels=labels, image_extension=extension)
    files = find_records(source.tfrecords_path)
    if fold is not None:
        files = select_fold(files, fold, validation=validation)
    return read_tfrecords(files=files, name=source.tfrecords_path, image_root=root, image_extension=extension)


def locate_data(spec: Experiment, run: Run, *, train: bool = True) -> None:
    """Draw a built-in data set if asked for, and make every data path in the spec absolute.

    Raises:
        DataError: a path that leads nowhere, with the places that were tried.
    """
    mounts = load_mounts(run.mounts)
    if run.generate == "toy":
        drawn = ensure_toy(Path(run.data_root).expanduser())
        mounts |= {f"{run.data_root}/{split}": str(drawn / split) for split in ("training", "validation")}
    finder = PathFinder(spec_folder=run.spec_folder, mounts=mounts)
    data = spec.dataset_config
    sources = {f"dataset_config.data_sources.{i}": source for i, source in enumerate(data.data_sources)}
    if not train and data.validation_data_source is not None:
        sources = {}
    if data.validation_data_source is not None:
        sources["dataset_config.validation_data_source"] = data.validation_data_source
    for path, source in sources.items():
        for name in ("tfrecords_path", "image_directory_path"):
            found = finder.find(getattr(source, name), field=f"{path}.{name}")
            setattr(source, name, str(found))

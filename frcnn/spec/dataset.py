"""TAO's `dataset_config` block: where images and labels are, and what the classes are called."""

from dataclasses import dataclass
from enum import IntEnum

from frcnn.spec.fields import Message, at_least, one_of, setting


class DataloaderMode(IntEnum):
    """TAO's loaders."""

    MULTISOURCE = 0
    LEGACY = 1
    DEFAULT = 2


class SamplingMode(IntEnum):
    """How often each data source is drawn from."""

    USER_DEFINED = 0
    PROPORTIONAL = 1
    UNIFORM = 2


@dataclass
class DataSource(Message):
    """Images with their labels."""

    tfrecords_path: str = setting(
        1, "glob of TFRecords, KITTI label folder, COCO .json, VOC folder or list", default=""
    )
    image_directory_path: str = setting(2, "folder that frame ids are relative to", default="")
    source_weight: float = setting(
        3, "how often to draw from this source", default=1.0, rule=at_least(0), zero_means=1.0
    )


@dataclass
class DatasetConfig(Message):
    """Training and validation data."""

    data_sources: list[DataSource] = setting(1, "training data", factory=list, needed=True)
    image_extension: str = setting(2, "suffix of the image files: png, jpg or jpeg", default="png")
    target_class_mapping: dict[str, str] = setting(
        3, "class in the labels to class of the model", factory=dict, needed=True
    )
    validation_fold: int | None = setting(
        4, "fold of the records to validate on", default=None, oneof="dataset_split_type"
    )
    validation_data_source: DataSource | None = setting(
        5, "data to validate on", default=None, oneof="dataset_split_type"
    )
    dataloader_mode: DataloaderMode = setting(
        6,
        "TAO's loader",
        default=DataloaderMode.MULTISOURCE,
        rule=one_of(*DataloaderMode),
        inert="there is one loader",
    )
    sampling_mode: SamplingMode = setting(
        7, "how data sources share an epoch", default=SamplingMode.USER_DEFINED, rule=one_of(*SamplingMode)
    )

"""The root of a TAO dataset_convert spec file: which folders become which records."""

from dataclasses import dataclass

from frcnn.spec.fields import Message, at_least, one_of, setting

PARTITION_MODES = ("random", "sequence")


@dataclass
class COCOConfig(Message):
    """A COCO data set: one annotation file per partition."""

    root_directory_path: str = setting(1, "folder that the other paths are relative to", default="")
    img_dir_names: list[str] = setting(2, "image folder of each partition", factory=list, needed=True)
    annotation_files: list[str] = setting(3, "annotation file of each partition", factory=list, needed=True)
    num_partitions: int = setting(4, "how many partitions (folds)", default=0)
    num_shards: list[int] = setting(
        5, "record files per partition: one number for all, or one each", factory=list, needed=True
    )


@dataclass
class KITTIConfig(Message):
    """A KITTI data set: a label file beside every image."""

    root_directory_path: str = setting(1, "folder that the other paths are relative to", default="")
    image_dir_name: str = setting(2, "folder of the images", default="")
    label_dir_name: str = setting(3, "folder of the label files", default="")
    point_clouds_dir: str = setting(4, "folder of the point clouds, named in the records", default="")
    calibrations_dir: str = setting(5, "folder of KITTI calibration files", default="")
    kitti_sequence_to_frames_file: str = setting(
        6, "JSON file that lists the frames of each sequence", default=""
    )
    image_extension: str = setting(7, "suffix of the image files; empty means .png", default="")
    num_partitions: int = setting(8, "how many partitions (folds); 2 in random mode", default=0)
    num_shards: int = setting(9, "record files per partition; 0 means one without a number", default=0)
    partition_mode: str = setting(10, "how images are divided into partitions", rule=one_of(*PARTITION_MODES))
    val_split: float = setting(
        11, "percentage of the images, first in order of their names, for validation", default=0.0
    )


@dataclass
class SampleModifierConfig(Message):
    """Training samples that are left out or repeated."""

    filter_samples_containing_only: list[str] = setting(
        1, "leave out samples whose objects are all of one of these classes", factory=list
    )
    dominant_target_classes: list[str] = setting(
        2, "classes that outnumber the others; samples where they do not are repeated", factory=list
    )
    minimum_target_class_imbalance: dict[str, float] = setting(
        3, "how often a class has to outnumber a dominant one; 1 if left out", factory=dict, rule=at_least(0)
    )
    num_duplicates: int = setting(4, "how many copies such a sample gets", default=0)
    max_training_samples: int = setting(5, "records of all training folds at most; 0 is no limit", default=0)
    source_to_target_class_mapping: dict[str, str] = setting(
        6, "class in the labels to class that the other settings speak of", factory=dict
    )


@dataclass
class DatasetExportConfig(Message):
    """Everything a TAO dataset_convert spec file can say."""

    coco_config: COCOConfig | None = setting(1, "a COCO data set", default=None, oneof="convert_config_type")
    kitti_config: KITTIConfig | None = setting(
        2, "a KITTI data set", default=None, oneof="convert_config_type"
    )
    sample_modifier_config: SampleModifierConfig = setting(
        5, "training samples to leave out or repeat", factory=SampleModifierConfig
    )
    image_directory_path: str = setting(
        6, "folder of the images", default="", inert="root_directory_path says where the images are"
    )
    target_class_mapping: dict[str, str] = setting(
        7,
        "class names",
        factory=dict,
        inert="records keep the names of the labels; training maps them",
    )

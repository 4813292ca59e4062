"""A dataset_convert spec is judged as a whole, with places."""

import pytest

from frcnn.bridge import prototxt
from frcnn.errors import SpecError
from frcnn.spec import messages_below, settings_of
from frcnn.spec.check import check_export
from frcnn.spec.dataset_export import DatasetExportConfig

KITTI = """kitti_config {
  image_dir_name: 'i' label_dir_name: 'l'
  partition_mode: 'random' num_partitions: 2
  val_split: 14
}
"""
SEQUENCE = KITTI.replace("random", "sequence").replace("2\n", "5 kitti_sequence_to_frames_file: 's'\n")
COCO = """coco_config {
  img_dir_names: ["val2017", "train2017"]
  annotation_files: ["val.json", "train.json"]
  num_partitions: 2
  num_shards: [32, 256]
}
"""
MODIFIER = """sample_modifier_config {
  source_to_target_class_mapping { key: 'van' value: 'car' }
  dominant_target_classes: 'car'
  filter_samples_containing_only: 'car'
  max_training_samples: 10
}
"""


def judge(text):
    document = prototxt.parse_as(DatasetExportConfig, text, source="a.txt")
    check_export(document.spec, locate=document.locate)


def test_the_schema_has_the_fields_of_the_original():
    # spec-and-data 1.7
    numbers = {
        message.__name__: {field.number: field.name for field in settings_of(message)}
        for message in messages_below(DatasetExportConfig)
    }
    assert {name: sorted(fields) for name, fields in numbers.items()} == {
        "DatasetExportConfig": [1, 2, 5, 6, 7],
        "COCOConfig": [1, 2, 3, 4, 5],
        "KITTIConfig": list(range(1, 12)),
        "SampleModifierConfig": list(range(1, 7)),
    }


@pytest.mark.parametrize(
    "text",
    [
        KITTI,
        KITTI + MODIFIER,
        KITTI.replace("val_split: 14", ""),
        SEQUENCE,
        SEQUENCE.replace("14", "140"),  # ignored in sequence mode
        SEQUENCE.replace("num_partitions: 5", ""),
        COCO,
        COCO.replace("[32, 256]", "4"),
        COCO + "image_directory_path: 'x' target_class_mapping { key: 'a' value: 'b' }",
    ],
)
def test_accepted(text):
    judge(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no data set to convert"),
        (KITTI.replace("partition_mode: 'random'", ""), "kitti_config.partition_mode: is required"),
        (KITTI.replace("random", "Random"), "a.txt:3:3: kitti_config.partition_mode: is out of range"),
        (KITTI.replace("partitions: 2", "partitions: 3"), "random mode makes two partitions"),
        (KITTI.replace("14", "100"), "a.txt:4:3: kitti_config.val_split"),
        (KITTI.replace("14", "nan"), "kitti_config.val_split"),
        (KITTI.replace("14", "-1"), "kitti_config.val_split"),
        (KITTI.replace("'i'", "''"), "image_dir_name: is required"),
        (SEQUENCE.replace("kitti_sequence_to_frames_file: 's'", ""), "required in sequence mode"),
        (
            COCO.replace("num_partitions: 2", "num_partitions: 3"),
            "img_dir_names: needs one entry per partition",
        ),
        (COCO.replace("num_partitions: 2", ""), "num_partitions: is required"),
        (COCO.replace(', "train.json"', ""), "annotation_files: needs one entry per partition"),
        (COCO.replace("[32, 256]", "[1, 2, 3]"), "one number for all partitions or one each"),
        (COCO.replace("num_shards: [32, 256]", ""), "num_shards: needs at least one value"),
        (
            KITTI + MODIFIER.replace("classes: 'car'", "classes: 'van'"),
            "dominant_target_classes.0: is no value of",
        ),
        (KITTI + MODIFIER.replace("only: 'car'", "only: 'bus'"), "filter_samples_containing_only.0"),
        (
            SEQUENCE.replace("num_partitions: 5", "") + MODIFIER,
            "max_training_samples: is shared by the partitions",
        ),
    ],
)
def test_refused(text, words):
    with pytest.raises(SpecError) as info:
        judge(text)
    assert words in str(info.value)


def test_all_problems_at_once():
    text = KITTI.replace("'i'", "''").replace("14", "100") + MODIFIER.replace("only: 'car'", "only: 'bus'")
    with pytest.raises(SpecError, match="3 problems") as info:
        judge(text)
    assert len(info.value.problems) == 3
    assert {str(problem.where).split(":")[1] for problem in info.value.problems} == {"2", "4", "9"}


def test_an_experiment_is_none():
    with pytest.raises(SpecError, match="a.txt:2:1: model_config: this is a FasterRCNN experiment"):
        judge("random_seed: 3\nmodel_config { }\ntraining_config { }")

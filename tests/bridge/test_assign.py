"""Single settings of a command line."""

import pytest

from frcnn.bridge.assign import assign
from frcnn.errors import SpecError
from frcnn.spec import Experiment
from frcnn.spec.dataset_export import DatasetExportConfig


def assigned(item, spec=None):
    spec = spec or DatasetExportConfig()
    return assign(spec, item), spec


@pytest.mark.parametrize(
    ("item", "path", "value"),
    [
        ("kitti_config.val_split=20", "kitti_config.val_split", 20.0),
        ("kitti_config.num_shards=0x10", "kitti_config.num_shards", 16),
        ("kitti_config.root_directory_path=a=b c", "kitti_config.root_directory_path", "a=b c"),
        ("kitti_config.point_clouds_dir=", "kitti_config.point_clouds_dir", ""),
        ("coco_config.num_shards=[4, 8]", "coco_config.num_shards", [4, 8]),
        ("coco_config={num_partitions: 2}", "coco_config.num_partitions", 2),
        (
            "sample_modifier_config.source_to_target_class_mapping.traffic light=light",
            "sample_modifier_config.source_to_target_class_mapping",
            {"traffic light": "light"},
        ),
    ],
)
def test_values(item, path, value):
    found_path, spec = assigned(item)
    assert found_path == item.partition("=")[0]
    found = spec
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


def test_a_member_of_a_oneof_clears_the_other():
    _, spec = assigned("coco_config.num_partitions=1")
    assign(spec, "kitti_config.num_partitions=2")
    assert (spec.coco_config, spec.kitti_config.num_partitions) == (None, 2)
    assign(spec, "kitti_config.num_shards=3")
    assert spec.kitti_config.num_partitions == 2


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("kitti_config.val_splt=20", "did you mean val_split?"),
        ("kitticonfig.val_split=20", "did you mean kitti_config"),
        ("val_split=20", "val_split belongs to KITTIConfig"),
        ("kitti_config.num_shards=-1x", "a whole number"),
        ("kitti_config.num_shards=[1", "broken YAML"),
        ("kitti_config.image_dir_name=3", "a quoted string"),
        ("coco_config.num_shards.0=3", r"=\[...\] sets the whole list"),
        ("kitti_config.val_split.x=3", "holds no fields"),
        ("coco_config={num: 1}", "command line: coco_config.num"),
        ("kitti_config.val_split", "path.to.field=value"),
        ("=3", "path.to.field=value"),
    ],
)
def test_refusals(item, words):
    with pytest.raises(SpecError, match=words) as info:
        assigned(item)
    assert "command line" in str(info.value)


def test_any_kind_of_spec():
    _, spec = assigned("training_config.early_stopping.patience=3", Experiment())
    assert spec.training_config.early_stopping.patience == 3

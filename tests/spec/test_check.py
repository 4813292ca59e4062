"""Every problem of a spec is reported at once, with its place, its value and what is allowed."""

import pytest
import yaml
from project import ROOT
from specs import TINY

from frcnn.bridge import prototxt
from frcnn.errors import SpecError
from frcnn.spec.check import check
from frcnn.spec.model import ImageType
from frcnn.spec.values import class_names, dead_fields, iou_thresholds, replace_zeros


def problems(text, **options):
    document = prototxt.parse(text, source="spec.txt")
    with pytest.raises(SpecError) as caught:
        check(document.spec, locate=document.locate, **options)
    return str(caught.value)


def test_a_complete_spec_passes():
    check(prototxt.loads(TINY))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("width: 192", "width: 100", ["size_height_width.width", "found: 100", "at least 128"]),
        ("'bgr'", "'BGR'", ["image_channel_order", "bgr or rgb or l"]),
        ("'b' value: 103.9", "'b' value: 0.0", ["image_channel_mean.b", "above 0 and below 255"]),
        ("key: 'r'", "key: 'x'", ["image_channel_mean", "lacks r"]),
        ("'resnet:10'", "'resnet:20'", ["model_config.arch", "resnet:18"]),
        ("scale: 16", "scale: -16", ["anchor_box_config.scale.0"]),
        ("rpn_stride: 16", "rpn_stride: 8", ["rpn_stride", "found: 8"]),
        ("freeze_bn: False", "freeze_blocks: 4", ["freeze_blocks.0", "0 to 3"]),
        ("num_epochs: 1", "", ["training_config.num_epochs", "is required"]),
        ("rpn_max_overlap: 0.7", "rpn_max_overlap: 0.2", ["rpn_max_overlap", "exceed rpn_min_overlap"]),
        ("lambda_cls_class: 1", "lambda_cls_class: 0", ["lambda_cls_class", "above 0"]),
        ("rpn_nms_max_boxes: 60", "rpn_nms_max_boxes: 400", ["rpn_nms_max_boxes", "less than"]),
        ("weight: 1e-4", "weight: 0", ["regularizer.weight", "above 0 and below 1"]),
        ("key: 'w'", "key: 'v'", ["classifier_regr_std", "lacks w"]),
        ("optimizer { adam { lr: 1e-3 } }", "", ["training_config.optimizer", "adam or sgd or rmsprop"]),
        ("annealing_points: 0.8", "annealing_points: 0.05", ["annealing_points", "behind the warm-up"]),
        ("output_image_width: 192", "output_image_width: 200", ["output_image_width", "192 or 0"]),
        ("output_image_channel: 3", "output_image_channel: 1", ["output_image_channel", "RGB"]),
        ("hflip_probability: 0.5", "hflip_probability: 1.5", ["hflip_probability", "from 0 to 1"]),
        ("zoom_min: 1", "zoom_min: 2", ["zoom_max", "zoom_min"]),
        ("zoom_min: 1", "rotate_rad_max: 30", ["rotate_rad_max", "run.tao_quirks", "0.5236"]),
        ("image_extension: 'png'", "image_extension: 'bmp'", ["image_extension", "png, jpg, jpeg"]),
        ("key: 'Car' value: 'car'", "key: 'background' value: 'car'", ["background"]),
        ("key: 'Car' value: 'car'", "key: 'Van' value: 'CAR'", ["differ only in case", "CAR, car"]),
        (
            "target_class_mapping { key: 'Car' value: 'car' }",
            "target_class_mapping { key: 'a b' value: 'car' } target_class_mapping { key: 'Ab' value: 'x' }",
            ["differ only in spaces"],
        ),
        ("size_height_width { height: 128 width: 192 }", "", ["has no size", "size_min"]),
        ("size_height_width { height: 128 width: 192 }", "size_min { min: 128 }", ["output_image_max"]),
        (
            "enable_auto_resize: True",
            "crop_right: 100 crop_bottom: 128",
            ["crop_right", "192: crop_left plus"],
        ),
        ("enable_auto_resize: True", "crop_left: 9 crop_right: 9", ["crop_right", "must exceed crop_left"]),
        (
            "size_height_width { height: 128 width: 192 }",
            "size_min { min: 128 } } } augmentation_config { preprocessing { scale_width: 2 output_image_max: 200 "
            "output_image_min: 128 } } model_config { input_image_config {",
            ["crop and scale need a fixed input size"],
        ),
    ],
)
def test_problems(old, new, words):
    assert old in TINY
    message = problems(TINY.replace(old, new))
    assert all(word in message for word in words), message


def test_several_problems_come_together_with_their_lines():
    message = problems(TINY.replace("width: 192", "width: 1").replace("num_epochs: 1", "num_epochs: 0"))
    assert message.count("\n- spec.txt:") == 2


def test_radians_may_be_degrees_with_the_originals_quirks():
    check(prototxt.loads(TINY.replace("zoom_min: 1", "rotate_rad_max: 30")), tao_quirks=True)


def test_two_members_of_a_oneof():
    spec = prototxt.loads(TINY)
    other = prototxt.loads("training_config { learning_rate { step { base_lr: 1 } } }")
    spec.training_config.learning_rate.step = other.training_config.learning_rate.step
    with pytest.raises(SpecError, match="only one may be set"):
        check(spec)


def test_zeros_that_stand_for_one():
    spec = prototxt.loads(
        TINY + "evaluation_config { batch_size: 0 } training_config { checkpoint_interval: 0 }"
    )
    check(spec)
    assert sorted(replace_zeros(spec)) == [
        "evaluation_config.batch_size is 0, which means 1",
        "training_config.checkpoint_interval is 0, which means 1",
    ]
    assert spec.evaluation_config.batch_size == 1


def test_dead_fields_are_named():
    spec = prototxt.loads(
        TINY + "model_config { rfcn_mode: True } training_config { output_model: '/x.tlt' }"
    )
    assert [line.partition(" ")[0] for line in dead_fields(spec)] == [
        "model_config.rfcn_mode",
        "training_config.output_model",
    ]


@pytest.mark.parametrize(
    ("arch", "named"),
    [
        ("resnet:18", ["dropout_rate", "drop_connect_rate", "activation"]),
        ("googlenet", ["all_projections", "use_pooling", "dropout_rate", "drop_connect_rate", "activation"]),
        ("vgg16", ["use_bias", "all_projections", "use_pooling", "drop_connect_rate", "activation"]),
        ("efficientnet:b0", ["all_projections", "use_pooling"]),
    ],
)
def test_options_of_other_networks_are_named(arch, named):
    spec = prototxt.loads(
        TINY + "model_config { use_bias: True use_pooling: True dropout_rate: 0.5 drop_connect_rate: 0.2 "
        "activation { activation_type: 'relu' } }"
    )
    spec.model_config.arch = arch
    lines = list(dead_fields(spec))
    assert [line.partition(" ")[0].removeprefix("model_config.") for line in lines] == named
    assert all(line.endswith(f"{arch} has no such option") for line in lines)


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "backbone").glob("*.yaml")), ids=lambda p: p.stem)
def test_our_own_backbones_set_no_options_of_others(path):
    spec = prototxt.loads(TINY)
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            setattr(spec.model_config, line.partition(": ")[0], yaml.safe_load(line.partition(": ")[2]))
    assert list(dead_fields(spec)) == []


def test_colour_of_gray_images_is_named():
    spec = prototxt.loads(
        TINY + "augmentation_config { color_augmentation { hue_rotation_max: 9 contrast_center: 0.5 } }"
    )
    assert list(dead_fields(spec)) == []
    spec.model_config.input_image_config.image_type = ImageType.GRAY_SCALE
    assert list(dead_fields(spec)) == [
        "augmentation_config.color_augmentation.hue_rotation_max has no effect: images are gray"
    ]


def test_sizes_without_effect_are_named():
    text = "augmentation_config { preprocessing { output_image_min: 130 output_image_max: 400 } }"
    assert "fixed size" in next(dead_fields(prototxt.loads(TINY + text)))
    varying = TINY.replace("size_height_width { height: 128 width: 192 }", "size_min { min: 128 }")
    assert list(dead_fields(prototxt.loads(varying + text))) == [
        "augmentation_config.preprocessing.enable_auto_resize has no effect: with size_min every image is resized",
        "augmentation_config.preprocessing.output_image_min 130 counts, not size_min 128",
    ]


def test_class_names_are_sorted_by_code_point():
    data = prototxt.loads("dataset_config { target_class_mapping: [{key: 'a' value: 'van'}, {key: 'b' value: 'Car'},"
                          "{key: 'c' value: 'bus'}, {key: 'd' value: 'van'}] }").dataset_config  # fmt: skip
    assert class_names(data) == ["Car", "bus", "van"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [0.5]),
        ("gt_matching_iou_threshold: 0.7", [0.7]),
        (
            "gt_matching_iou_threshold_range { start: 0.5 end: 1.0 step: 0.05 }",
            [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95],  # spec-and-data 2.5: end excluded
        ),
    ],
)
def test_iou_thresholds(text, expected):
    assert iou_thresholds(prototxt.loads(f"evaluation_config {{ {text} }}").evaluation_config) == expected

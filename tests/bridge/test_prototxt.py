"""Everything of TAO's text format is accepted or rejected as the original's loader does (spec-and-data 1.9)."""

import pytest

from frcnn.bridge import prototxt
from frcnn.errors import RunError, SpecError
from frcnn.spec.model import ImageType


def model(text):
    return prototxt.loads(f"model_config {{ {text} }}").model_config


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("arch: 'a' arch: 'b'", "arch", "b"),
        (
            "roi_pooling_config { pool_size: 3 } roi_pooling_config { pool_size_2x: t }",
            "roi_pooling_config.pool_size",
            3,
        ),
        ("arch: 'res' \"net\"", "arch", "resnet"),
        (r"arch: 'a\n\x41\101'", "arch", "a\nAA"),
        ("use_bias: True", "use_bias", True),
        ("use_bias: true", "use_bias", True),
        ("use_bias: 1", "use_bias", True),
        ("use_bias: f", "use_bias", False),
        ("roi_mini_batch: 0x10", "roi_mini_batch", 16),
        ("roi_mini_batch: 010", "roi_mini_batch", 8),
        ("dropout_rate: 1e-4", "dropout_rate", 1e-4),
        ("dropout_rate: .5", "dropout_rate", 0.5),
        ("dropout_rate: 0.5f", "dropout_rate", 0.5),
        ("dropout_rate: 1E4", "dropout_rate", 1e4),
        ("dropout_rate: inf", "dropout_rate", float("inf")),
        ("dropout_rate:0.5", "dropout_rate", 0.5),
        ("dropout_rate :0.5", "dropout_rate", 0.5),
        ("use_bias: t, use_pooling: t; arch: 'x'", "arch", "x"),
        ("anchor_box_config { scale: [64, 128.0] scale: 3 }", "anchor_box_config.scale", [64, 128, 3]),
        ("anchor_box_config < ratio: 1 >", "anchor_box_config.ratio", [1]),
        ("anchor_box_config: { ratio: 1 }", "anchor_box_config.ratio", [1]),
        (
            "input_image_config { image_type: GRAY_SCALE }",
            "input_image_config.image_type",
            ImageType.GRAY_SCALE,
        ),
        ("input_image_config { image_type: 1 }", "input_image_config.image_type", ImageType.GRAY_SCALE),
        ("input_image_config { image_type: 7 }", "input_image_config.image_type", 7),
        ("freeze_blocks: 0 freeze_blocks: 1.0", "freeze_blocks", [0, 1]),
        ("use_bias: t # comment\n", "use_bias", True),
        ("use_bias: t\r\nuse_pooling: t", "use_pooling", True),
    ],
)
def test_accepted(text, path, value):
    found = model(text)
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize(
    "text",
    [
        "arch = 'x'",
        "arch: x",
        "arch: 'a\nb'",
        "use_bias: TRUE",
        "use_bias: yes",
        "roi_mini_batch: -1",
        "roi_mini_batch: 42.0",
        "roi_mini_batch: 4294967296",
        "anchor_box_config { scale: [64, ] }",
        "input_image_config { image_type: rgb }",
        "input_image_config { image_type: 'RGB' }",
        "use_bias: t // comment",
        "use_bias: t } }",
        "arch: 'x",
    ],
)
def test_rejected(text):
    with pytest.raises(SpecError, match=r"<string>:\d+:\d+"):
        model(text)


def test_maps_accumulate_and_the_last_entry_of_a_key_wins():
    mapping = prototxt.loads(
        "dataset_config { target_class_mapping { key: 'car' value: 'a' } target_class_mapping { key: 'van' }"
        " target_class_mapping: [{ key: 'car' value: 'b' }] }"
    ).dataset_config.target_class_mapping
    assert mapping == {"car": "b", "van": ""}


def test_the_last_member_of_a_oneof_wins_and_the_same_member_merges():
    optimizer = prototxt.loads(
        "training_config { optimizer { adam { lr: 1 } sgd { lr: 2 } sgd { momentum: 0.5 } } }"
    ).training_config.optimizer
    assert optimizer.adam is None
    assert (optimizer.sgd.lr, optimizer.sgd.momentum) == (2, 0.5)


def test_presence_of_an_empty_block_counts():
    assert prototxt.loads("inference_config { trt_inference { } }").inference_config.trt_inference is not None
    assert prototxt.loads("").inference_config.trt_inference is None


def test_an_empty_file_and_a_byte_order_mark_are_fine():
    assert prototxt.loads("\ufeffrandom_seed: 3").random_seed == 3
    assert prototxt.loads("") == prototxt.loads("# nothing\n")


def test_what_a_file_spelled_out_is_printed_again():
    text = prototxt.dumps(prototxt.loads("model_config { freeze_bn: False } augmentation_config "
                                         "{ spatial_augmentation { rotate_probability: 0 } }"))  # fmt: skip
    assert "freeze_bn: false" in text
    assert "rotate_probability: 0.0" in text
    assert "use_bias" not in text


def test_small_numbers_stay_as_written():
    spec = prototxt.loads("training_config { regularizer { weight: 1e-4 } rpn_max_overlap: 0.7 }")
    assert spec.training_config.regularizer.weight == 1e-4
    assert "rpn_max_overlap: 0.7\n" in prototxt.dumps(spec)


def test_unknown_names_are_reported_together_with_line_column_and_nearest_name():
    text = "model_config {\n  freez_bn: True\n}\nevaluation_config { use_voc07_11point: 1 }\n"
    with pytest.raises(SpecError) as caught:
        prototxt.loads(text, source="their.txt")
    message = str(caught.value)
    assert "their.txt:2:3: model_config.freez_bn" in message
    assert "did you mean freeze_bn" in message
    assert "their.txt:4:21: evaluation_config.use_voc07_11point" in message
    assert "did you mean use_voc07_11point_metric?" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("evaluation_config { use_voc_11_point_metric: True }", "use_voc07_11point_metric"),
        ("model_config { num_epochs: 3 }", "belongs to TrainingConfig"),
        ("kitti_config { }", "dataset_convert"),
        ("dataset_config { target_class_mapping { key: 'a' valeu: 'b' } }", "key, value"),
        ("bbox_rasterizer_config { }", "DetectNet_v2"),
        ("network_config { }", "TLT 1.x"),
    ],
)
def test_names_from_elsewhere_are_explained(text, words):
    with pytest.raises(SpecError, match=words):
        prototxt.loads(text)


def test_a_wrong_value_names_its_field_and_what_is_allowed():
    with pytest.raises(SpecError) as caught:
        prototxt.loads("training_config {\n  num_epochs: 42.0\n}", source="their.txt")
    assert "their.txt:2:15: training_config.num_epochs" in str(caught.value)
    assert "a whole number from 0 to 4294967295" in str(caught.value)


def test_deep_nesting_is_an_error_not_a_crash():
    with pytest.raises(SpecError):
        prototxt.loads("model_config {" * 5000)


@pytest.mark.parametrize("value", [-1, 2**40])
def test_values_that_the_schema_cannot_hold_are_not_written(value):
    spec = prototxt.loads("")
    spec.training_config.num_epochs = value
    with pytest.raises(SpecError, match="training_config.num_epochs"):
        prototxt.dumps(spec)


def test_files(tmp_path):
    path = tmp_path / "spec.txt"
    path.write_text("random_seed: 7\n")
    spec = prototxt.load(path)
    spec.verbose = True
    prototxt.save(spec, path)
    assert path.read_text() == "random_seed: 7\nverbose: true\n"
    with pytest.raises(SpecError, match=r"no such file[\s\S]*spec.txt"):
        prototxt.load(tmp_path / "spek.txt")
    with pytest.raises(RunError, match="cannot be written"):
        prototxt.save(spec, tmp_path / "none" / "spec.txt")
    (tmp_path / "latin.txt").write_bytes(b"enc_key: '\xe9'")
    with pytest.raises(SpecError, match="UTF-8"):
        prototxt.load(tmp_path / "latin.txt")


def test_a_second_member_of_a_oneof_is_said(caplog):
    spec = prototxt.loads(
        "dataset_config { validation_fold: 1\n validation_data_source { } }", source="s.txt"
    )
    assert spec.dataset_config.validation_fold is None  # TAO: the last one counts
    place = "s.txt:1: dataset_config.validation_fold does not count"
    assert place in caplog.text
    caplog.clear()
    prototxt.loads("dataset_config { validation_fold: 1 } dataset_config { validation_fold: 0 }")
    assert not caplog.records

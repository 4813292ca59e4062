"""Settings become parts with the right numbers in them."""

import logging

import numpy as np
import pytest
import torch
from specs import TINY
from tiny_data import label, write_kitti

from frcnn import build
from frcnn.bridge import prototxt
from frcnn.data import augment
from frcnn.data.sampling import expected_draws, is_even
from frcnn.errors import SpecError
from frcnn.optim.optimizers import SGD, Adam
from frcnn.spec.model import ImageType
from frcnn.spec.run import App, Run

SPATIAL = "hflip_probability: 0.5 zoom_min: 1 zoom_max: 1"


def spec(old="", new=""):
    assert old in TINY
    return prototxt.loads(TINY.replace(old, new) if old else TINY)


def test_the_detector_takes_every_setting():
    network = build.build_detector(spec("rpn_mini_batch: 64", "rpn_mini_batch: 32 gt_as_roi: True"))
    assert (network.num_classes, network.roi_sample, network.rpn_sample) == (2, 8, 32)
    assert network.ground_truth_regions
    assert network.loss_weights == {"rpn_class": 1.0, "rpn_box": 1.0, "rcnn_class": 1.0, "rcnn_box": 1.0}
    assert network.roi_stds.tolist() == [10, 10, 5, 5]
    assert (network.training_proposals.pre_nms_top_n, network.training_proposals.post_nms_top_n) == (400, 60)
    assert network.cell_anchors.shape == (9, 4)
    assert network.crop_size == 2


def test_loss_weights_belong_to_their_losses():
    text = TINY.replace("lambda_rpn_regr: 1", "lambda_rpn_regr: 2").replace(
        "lambda_cls_class: 1", "lambda_cls_class: 3"
    )
    weights = build.build_detector(prototxt.loads(text)).loss_weights
    assert weights == {"rpn_class": 1.0, "rpn_box": 2.0, "rcnn_class": 3.0, "rcnn_box": 1.0}


def test_detection_settings_of_each_block():
    settings = build.detection_settings(spec().evaluation_config)
    assert (settings.pre_nms_top_n, settings.post_nms_top_n, settings.max_detections) == (200, 40, 100)
    assert not settings.unused_proposals
    assert build.detection_settings(spec().evaluation_config, tao_quirks=True).unused_proposals
    # The defaults of a block that is not there (interface 14).
    settings = build.detection_settings(spec().inference_config)
    assert (settings.pre_nms_top_n, settings.post_nms_top_n, settings.rpn_nms_iou) == (6000, 300, 0.7)
    assert (settings.max_detections, settings.nms_iou, settings.score_threshold) == (100, 0.3, 1e-4)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("adam { beta_1: 0.5 amsgrad: True }", Adam),
        ("sgd { momentum: 0.9 }", SGD),
        ("rmsprop { }", torch.optim.RMSprop),
    ],
)
def test_optimizers(text, kind):
    built = build.optimizer(spec("adam { lr: 1e-3 }", text))(torch.nn.Conv2d(1, 1, 1))
    assert isinstance(built, kind)
    decay = sorted(group["weight_decay"] for group in built.param_groups)
    assert decay == [0.0, 2e-4]  # TAO's w * x^2 without 1/2


def test_schedules():
    rate = build.schedule(spec())
    # tao/model-and-training 7.3: warm up to 0.1, divided by 10 strictly after 0.8
    assert [rate(step, 100) for step in (0, 5, 10, 80, 81)] == pytest.approx([1e-4, 5.5e-4, 1e-3, 1e-3, 1e-4])
    soft = "soft_start { base_lr: 1e-3 start_lr: 1e-4 soft_start: 0.1 annealing_points: 0.8 annealing_divider: 10 }"
    step = spec(soft, "step { base_lr: 0.01 gamma: 0.1 step_size: 30 }")
    assert build.schedule(step)(45, 100) == pytest.approx(0.001)
    smooth = build.schedule(step, tao_quirks=True)
    assert [smooth(15, 100), smooth(100, 100)] == pytest.approx([0.00316, 4.64e-6], rel=2e-3)


def test_decay_divides_the_rate():
    rate = build.schedule(spec("adam { lr: 1e-3 }", "adam { lr: 1e-3 decay: 0.1 }"))
    assert rate(50, 100) == pytest.approx(1e-3 / 6)


def test_images_land_where_preprocessing_says():
    sizes = np.array([[64, 96]])
    content, corner, output = build.geometry(spec())(sizes)
    assert (content.tolist(), corner, output.tolist()) == ([[128, 192]], (0, 0), [[128, 192]])
    cut = "scale_height: 2 scale_width: 3 crop_left: 8 crop_top: 4 crop_right: 200 crop_bottom: 132"
    content, corner, output = build.geometry(spec("enable_auto_resize: True", cut))(sizes)
    assert (content.tolist(), corner, output.tolist()) == ([[128, 288]], (8, 4), [[128, 192]])
    varying = spec("enable_auto_resize: True", "output_image_min: 128 output_image_max: 160")
    varying.model_config.input_image_config.size_height_width = None
    assert build.geometry(varying)(sizes).output.tolist() == [[106, 160]]


def test_augmentation_takes_every_setting():
    text = (
        "hflip_probability: 0.1 vflip_probability: 0.2 zoom_min: 0.8 zoom_max: 1.2 translate_max_x: 3 "
        "translate_max_y: 4 rotate_rad_max: 0.5 rotate_probability: 0.6 } color_augmentation { "
        "color_shift_stddev: 0.01 hue_rotation_max: 20 saturation_shift_max: 0.3 contrast_scale_max: 0.4 "
        "contrast_center: 0.5"
    )
    move, recolour = build.augmentation(spec(SPATIAL, text))
    assert move.keywords == {
        "hflip_probability": 0.1,
        "vflip_probability": 0.2,
        "zoom": (0.8, 1.2),
        "translate": (3.0, 4.0),
        "rotate_max": 0.5,
        "rotate_probability": 0.6,
    }
    assert recolour.keywords == {
        "brightness_std": 0.01,
        "hue_max": 20.0,
        "saturation_max": 0.3,
        "contrast_max": 0.4,
        "contrast_center": 0.5,
    }
    degrees = spec("hflip_probability: 0.5", "rotate_rad_max: 90")
    assert build.augmentation(degrees, tao_quirks=True)[0].keywords["rotate_max"] == pytest.approx(
        1.5708, abs=1e-4
    )


def test_gray_images_have_no_colour_to_change():
    gray = spec(SPATIAL, "hflip_probability: 0.5 } color_augmentation { hue_rotation_max: 20")
    gray.model_config.input_image_config.image_type = ImageType.GRAY_SCALE
    assert [step.func for step in build.augmentation(gray)] == [augment.move]


def app(old="", new=""):
    return App(**_fields(spec(old, new)))


def _fields(experiment):
    return {name: value for name, value in vars(experiment).items() if not name.startswith("_")}


def two_sources(root, *, weight=1.0, mode="USER_DEFINED", train=True, **options):
    """Data of three images and of one, which weighs `weight`; the same images validate."""
    for name, images in (("a", 3), ("b", 1)):
        lines = [label("car", 1, 1, 9, 9), label("DontCare", 4, 4, 8, 8, occlusion=-1)]
        write_kitti(root / name, {f"{name}{i}": lines for i in range(images)})
    text = TINY.replace("'training", f"'{root}/a").replace("'validation", f"'{root}/a")
    second = f"data_sources {{ tfrecords_path: '{root}/b/label_2' image_directory_path: '{root}/b'"
    text = text.replace(
        "  validation_data_source", f"  {second} source_weight: {weight} }}\n  validation_data_source"
    )
    text = text.replace("image_extension", f"sampling_mode: {mode} image_extension")
    text = text.replace("  target_class_mapping { key: 'pedestrian' value: 'pedestrian' }\n", "")
    return build.build_data(prototxt.loads(text), Run(**options), num_workers=0, train=train)


@pytest.mark.parametrize(
    ("mode", "weight", "draws"),
    [
        ("USER_DEFINED", 3, (2.0, 2.0)),  # 3 images x 1 against 1 image x 3
        ("UNIFORM", 3, (2.0, 2.0)),
        ("USER_DEFINED", 1, None),
        ("PROPORTIONAL", 3, None),  # by images whatever the weight: each once
    ],
)
def test_sources_share_an_epoch_as_the_mode_says(tmp_path, caplog, mode, weight, draws):
    with caplog.at_level(logging.INFO):
        module = two_sources(tmp_path, mode=mode, weight=weight).module
    assert is_even(module.shares) == (draws is None)
    if draws:
        assert tuple(expected_draws(module.shares)) == pytest.approx(draws)
        said = [message for message in caplog.messages if "samples of an epoch" in message]
        assert said == [
            f"2 of the 4 samples of an epoch come from the {images} images of {tmp_path}/{name}/label_2"
            for name, images in (("a", 3), ("b", 1))
        ]
    else:
        assert "samples of an epoch" not in caplog.text
    assert len(module.val_dataloader().sampler) == 3


def test_labels_to_ignore_become_areas_in_every_batch(tmp_path):
    data = two_sources(tmp_path, ignore_classes=["dontcare"])
    for loader in (data.module.train_dataloader(), data.module.val_dataloader()):
        batch = next(iter(loader))
        assert batch.ignored.shape[1:] == (1, 4)
        assert (batch.ignored_labels == -1).all()
        assert ((batch.labels >= 0).sum(1) == 1).all()
    assert data.training.sources[0].areas["dontcare"].ignored == 3
    plain = two_sources(tmp_path)
    assert next(iter(plain.module.train_dataloader())).ignored.shape[1] == 0
    assert plain.training.sources[0].unmapped == {"dontcare": 3}


def test_a_class_to_learn_cannot_be_ignored(tmp_path):
    with pytest.raises(SpecError) as caught:
        two_sources(tmp_path, ignore_classes=["dontcare", "CAR"])
    assert str(caught.value).splitlines()[:2] == [
        "run.ignore_classes: are classes to learn, too",
        "  found: CAR",
    ]

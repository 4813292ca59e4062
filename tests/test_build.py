"""Settings become parts with the right numbers in them."""

import pytest
import torch
from specs import TINY

from frcnn import build
from frcnn.bridge import prototxt
from frcnn.errors import SpecError
from frcnn.optim.optimizers import SGD, Adam
from frcnn.spec.run import App
from frcnn.unavailable import refuse_unavailable


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


def app(old="", new=""):
    return App(**_fields(spec(old, new)))


def _fields(experiment):
    return {name: value for name, value in vars(experiment).items() if not name.startswith("_")}


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("'resnet:10'", "'vgg:16'", "model_config.arch"),
        ("zoom_max: 1", "zoom_max: 2", "spatial_augmentation.zoom_max"),
        ("hflip_probability: 0.5", "vflip_probability: 0.5", "spatial_augmentation.vflip_probability"),
        ("num_epochs: 1", "num_epochs: 1 model_parallelism: 0.5", "training_config.model_parallelism"),
        (
            "image_directory_path: 'training'",
            "image_directory_path: 't' source_weight: 2",
            "data_sources.0.source_weight",
        ),
        ("enable_auto_resize: True", "crop_right: 100 crop_bottom: 100", "preprocessing.crop_right"),
    ],
)
def test_what_this_version_cannot_do_is_refused(old, new, path):
    with pytest.raises(SpecError, match="is not available in this version") as caught:
        refuse_unavailable(app(old, new), "train")
    assert path in str(caught.value)


def test_neutral_values_are_no_reason_to_stop():
    refuse_unavailable(app(), "train")
    text = "spatial_augmentation { zoom_min: 2 zoom_max: 3 } color_augmentation { hue_rotation_max: 20 }"
    # Augmentation that is switched off does nothing in the original either.
    off = TINY.replace("enable_augmentation: True", "enable_augmentation: False")
    switched_off = App(**_fields(prototxt.loads(off + f"augmentation_config {{ {text} }}")))
    refuse_unavailable(switched_off, "train")
    # Settings of training do not stop an evaluation.
    refuse_unavailable(app("num_epochs: 1", "num_epochs: 1 enable_qat: True"), "evaluate")

"""Checkpoints of small networks that nobody trained: what they find is rubbish, and always the same."""

from pathlib import Path

import torch
from specs import TINY

from frcnn import build, results
from frcnn.bridge import prototxt
from frcnn.spec.run import App
from frcnn.weights.checkpoint import save_detector

SIZE = "size_height_width { height: 128 width: 192 }"
OUTPUT = "output_image_width: 192 output_image_height: 128"
DYNAMIC = {SIZE: "size_min { min: 128 }", OUTPUT: "output_image_min: 128 output_image_max: 224"}
GRAY = {
    "image_type: RGB": "image_type: GRAY_SCALE",
    "image_channel_mean { key: 'b' value: 103.9 }": "image_channel_mean { key: 'l' value: 117 }",
    "    image_channel_mean { key: 'g' value: 116.8 }\n    image_channel_mean { key: 'r' value: 123.7 }\n": "",
    "output_image_channel: 3": "output_image_channel: 1",
}
INFERENCE = """
inference_config { rpn_pre_nms_top_N: 100 rpn_nms_max_boxes: 12 bbox_visualize_threshold: 0.3 bbox_caption_on: True }
"""


def settings(changes=None, *, more: str = INFERENCE) -> App:
    """The tiny spec with parts of it replaced."""
    text = TINY
    for old, new in (changes or {}).items():
        assert old in text
        text = text.replace(old, new)
    return App.of(prototxt.loads(text + more))


def write_model(path: Path, changes=None, *, more: str = INFERENCE) -> Path:
    """A checkpoint of `settings`."""
    app = settings(changes, more=more)
    torch.manual_seed(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_detector(build.build_detector(app), path, stored=results.stored_texts(app))
    return path

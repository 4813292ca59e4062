"""What DeepStream does with frames and with a model's outputs, in a few lines of numpy."""

import numpy as np


def nvinfer_input(frame, config):
    """nvinfer's preprocessing of an RGB frame (H, W, 3) or a gray one (H, W) of the network's size.

    `y = net-scale-factor * (x - offset)`, channels in the order of model-color-format (0 RGB, 1 BGR, 2 gray).
    """
    values = dict(line.split("=") for line in config.splitlines() if "=" in line and not line.startswith("#"))
    channels, height, width = map(int, values["infer-dims"].split(";"))
    planes = np.asarray(frame, np.float32).reshape(height, width, channels).transpose(2, 0, 1)
    if values["model-color-format"] == "1":
        planes = planes[::-1]
    offsets = np.array([float(text) for text in values["offsets"].split(";")], np.float32)
    return np.float32(values["net-scale-factor"]) * (planes - offsets[:, None, None])


def parse_nms_tlt(rows, count, *, size, classes, threshold):
    """The documented logic of NvDsInferParseCustomNMSTLT for one image: left, top, width, height, class, score.

    Two outputs by position; the first `count` rows; class 0's threshold for all; normalised corners times the
    network's width and height; a label beyond num-detected-classes is an assertion.
    """
    (height, width), found = size, []
    for row in np.asarray(rows).reshape(-1, 7)[: int(np.asarray(count).reshape(()))]:
        _, label, score, left, top, right, bottom = row.tolist()
        assert 0 <= label < classes
        if score < threshold:
            continue
        box = (left * width, top * height, (right - left) * width, (bottom - top) * height)
        if box[2] > 0 and box[3] > 0:
            found.append((*box, int(label), score))
    return found

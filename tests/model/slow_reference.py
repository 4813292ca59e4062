"""The original's rules once more, with loops and numpy and nothing shared with the package."""

import math

import numpy as np


def overlap(a, b, offset):
    # In float32, as there: it decides between anchors that hold an object equally well.
    a, b, offset = np.float32(a), np.float32(b), np.float32(offset)
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    if width <= 0 or height <= 0:
        return 0.0
    area = (a[2] - a[0] + offset) * (a[3] - a[1] + offset)
    other = (b[2] - b[0] + offset) * (b[3] - b[1] + offset)
    return width * height / (area + other - width * height)


def anchors(height, width, scales, ratios, stride=16):
    """(height * width * A, 4) in (row, column, anchor) order."""
    out = []
    for row in range(height):
        for column in range(width):
            x, y = stride * (column + 0.5), stride * (row + 0.5)
            for scale in scales:
                for ratio in ratios:
                    w, h = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
                    out.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return np.array(out)


def encode(box, reference):
    wr, hr = reference[2] - reference[0] + 1, reference[3] - reference[1] + 1
    w, h = box[2] - box[0] + 1, box[3] - box[1] + 1
    dx = (box[0] + w / 2 - reference[0] - wr / 2) / wr
    dy = (box[1] + h / 2 - reference[1] - hr / 2) / hr
    return [dx, dy, math.log(w / wr), math.log(h / hr)]


def rpn_labels(anchor_boxes, objects, size, negative_iou, positive_iou):
    """Labels 1, 0, -1 and matched object per anchor of one image, before sampling."""
    height, width = size
    table = np.zeros((len(anchor_boxes), len(objects)))
    usable = np.zeros(len(anchor_boxes), bool)
    for i, a in enumerate(anchor_boxes):
        usable[i] = a[0] >= 0 and a[1] >= 0 and a[2] <= width - 1 and a[3] <= height - 1
        if usable[i]:
            table[i] = [overlap(a, g, 1) for g in objects]
    labels, matched = np.full(len(anchor_boxes), -1), np.full(len(anchor_boxes), -1)
    for i in np.flatnonzero(usable):
        best = table[i].max() if len(objects) else 0.0
        if len(objects) and best >= positive_iou:
            labels[i], matched[i] = 1, table[i].argmax()
        elif best <= negative_iou:
            labels[i] = 0
    claimed = set(matched[labels == 1])
    for g in range(len(objects)):
        if g not in claimed and table[:, g].max() > 0:
            best = table[:, g].argmax()
            labels[best], matched[best] = 1, g
    return labels, matched


def nms(boxes, scores, threshold, limit):
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    kept = []
    for i in order:
        if len(kept) < limit and all(overlap(boxes[k], boxes[i], 0) <= threshold for k in kept):
            kept.append(i)
    return kept


def proposals(scores, deltas, height, width, scales, ratios, size, pre, post, threshold):
    """scores (A, H, W), deltas (4A, H, W) of one image -> (n, 4)."""
    grid = anchors(height, width, scales, ratios).reshape(height, width, -1, 4)
    boxes, values = [], []
    for a in range(grid.shape[2]):
        for row in range(height):
            for column in range(width):
                x1, y1, x2, y2 = grid[row, column, a]
                dx, dy, dw, dh = deltas[4 * a : 4 * a + 4, row, column]
                w, h = x2 - x1, y2 - y1
                cx, cy = dx * w + x1 + w / 2, dy * h + y1 + h / 2
                w, h = math.exp(dw) * w, math.exp(dh) * h
                box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
                box = [min(max(v, 0), size[1 - i % 2] - 1) for i, v in enumerate(box)]
                if box[2] - box[0] > 1 and box[3] - box[1] > 1:
                    boxes.append(box)
                    values.append(scores[a, row, column])
    order = sorted(range(len(boxes)), key=lambda i: (-values[i], i))[:pre]
    boxes, values = [boxes[i] for i in order], [values[i] for i in order]
    return np.array([boxes[i] for i in nms(boxes, values, threshold, post)])


def crop_and_resize(feature, box, size, input_size):
    """feature (C, Hf, Wf), one box in input pixels -> (C, size, size)."""
    channels, height, width = feature.shape
    scale_y, scale_x = (height - 1) / (input_size[0] - 1), (width - 1) / (input_size[1] - 1)
    out = np.zeros((channels, size, size))
    for i in range(size):
        for j in range(size):
            share = (i / (size - 1), j / (size - 1)) if size > 1 else (0.5, 0.5)
            y = (box[1] + share[0] * (box[3] - box[1])) * scale_y
            x = (box[0] + share[1] * (box[2] - box[0])) * scale_x
            top, left = math.floor(y), math.floor(x)
            for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                weight = (1 - abs(y - row)) * (1 - abs(x - column))
                if weight > 0:
                    out[:, i, j] += weight * feature[:, min(row, height - 1), min(column, width - 1)]
    return out


def detections(probabilities, deltas, regions, stds, size, threshold, nms_iou, limit):
    """probabilities (R, K + 1), deltas (R, 4K), regions (R, 4) -> rows of (label, score, box)."""
    rows = []
    for c in range(probabilities.shape[1] - 1):
        boxes, scores = [], []
        for region, p, d in zip(regions, probabilities[:, c], deltas[:, 4 * c : 4 * c + 4], strict=True):
            if p <= threshold:
                continue
            d = d / stds
            w, h = region[2] - region[0] + 1, region[3] - region[1] + 1
            cx, cy = d[0] * w + region[0] + w / 2, d[1] * h + region[1] + h / 2
            w, h = math.exp(d[2]) * w, math.exp(d[3]) * h
            box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
            boxes.append([min(max(v, 0), size[1 - i % 2] - 1) for i, v in enumerate(box)])
            scores.append(p)
        rows += [(c, scores[i], boxes[i]) for i in nms(boxes, scores, nms_iou, limit)]
    return sorted(rows, key=lambda row: -row[1])[:limit]

"""Small ONNX files that look like a detector to an engine: convolution, GridSample, TopK, rows of detections."""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH, CHANNELS, CELLS, SLOTS = 16, 24, 4, 70, 5
ROW = (0.0, 2.0, 1.0, 0.25, 0.25, 0.5, 0.5)  # times what was found, plus:
OFFSET = (0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def weights(seed=0):
    chance = np.random.default_rng(seed)
    kernel = chance.standard_normal((CHANNELS, 3, 3, 3)).astype(np.float32) * 0.1
    grid = chance.uniform(-1, 1, (1, CELLS, CELLS, 2)).astype(np.float32)
    return kernel, grid


def in_torch(images: torch.Tensor) -> torch.Tensor:
    """What the graph computes: (B, 1, SLOTS, 7)."""
    kernel, grid = (torch.from_numpy(part).to(images.device) for part in weights())
    features = torch.relu(torch.nn.functional.conv2d(images, kernel, padding=1))
    grid = grid.expand(len(images), -1, -1, -1)
    found = torch.nn.functional.grid_sample(features, grid, align_corners=True).sum(1).flatten(1)
    scores = found.topk(SLOTS, dim=1).values[..., None]
    return (scores * 0 + scores.new_tensor(OFFSET) + scores * scores.new_tensor(ROW)).unsqueeze(1)


def write(path, *, batch: str | int = "N", slots: int = SLOTS, node=None):
    """The graph with any number of images, or a fixed one; `node` takes the place of the ReLU."""
    kernel, grid = weights()
    make = helper.make_node
    nodes = [
        make(
            "Conv", ["input_image", "kernel"], ["convolved"], kernel_shape=[3, 3], pads=[1] * 4, name="/conv"
        ),
        node or make("Relu", ["convolved"], ["features"], name="/relu"),
        make("Shape", ["features"], ["count"], start=0, end=1),
        make("Concat", ["count", "cells"], ["expanded"], axis=0),
        make("Expand", ["grid", "expanded"], ["grids"]),
        make("GridSample", ["features", "grids"], ["sampled"], align_corners=1, name="/crop"),
        make("ReduceSum", ["sampled", "one"], ["summed"], keepdims=0),
        make("Reshape", ["summed", "flat"], ["flattened"]),
        make("TopK", ["flattened", "slots"], ["scores", "places"], axis=1, name="/topk"),
        make("Unsqueeze", ["scores", "two"], ["column"]),
        make("Mul", ["column", "row"], ["scaled"]),
        make("Add", ["scaled", "offset"], ["rows"]),
        make("Unsqueeze", ["rows", "one"], ["nms_out"]),
        make("ReduceSum", ["places", "one"], ["number"], keepdims=1),
        make("Reshape", ["number", "single"], ["shaped"]),
        make("Cast", ["shaped"], ["nms_out_1"], to=TensorProto.INT32),
    ]
    constants = {
        **{"kernel": kernel, "grid": grid, "row": np.float32(ROW), "offset": np.float32(OFFSET)},
        **{name: np.int64([value]) for name, value in {"one": 1, "two": 2, "slots": slots}.items()},
        **{"cells": np.int64([CELLS, CELLS, 2]), "flat": np.int64([0, -1]), "single": np.int64([0, 1, 1, 1])},
    }
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "graph",
        [info("input_image", TensorProto.FLOAT, [batch, 3, HEIGHT, WIDTH])],
        [
            info("nms_out", TensorProto.FLOAT, [batch, 1, slots, 7]),
            info("nms_out_1", TensorProto.INT32, [batch, 1, 1, 1]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    if node is not None and node.domain:
        opset.append(helper.make_opsetid(node.domain, 1))
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path

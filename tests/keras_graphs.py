"""TAO's networks once more, in Keras, from the layer tables of tao/model-and-training.md 2.

Nothing is shared with the package. Channels come last and every padding is a layer of its own. Layers bear
TAO's names. Needs TensorFlow (`make test-tensorflow`); run as a script it writes tests/model/data again.
"""

import math
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import seeded_weights
from keras import layers as L

OUTPUTS = ("feature_map", "rpn_out_class", "rpn_out_regress", "vectors", "dense_class", "dense_regress")
STORED = {"mobilenet_v1": {}, "googlenet": {"use_bias": True, "pool_size_2x": True}}
"""Cases whose results are stored: images of 32 x 32, crops of 2 x 2 after halving, every fourth channel."""


class Graph:
    """Layers in the order in which a network applies them."""

    def __init__(self, *, bias, act="relu", bn_name="{}_bn", eps=1e-3):
        self.bias, self.act, self.bn_name, self.eps = bias, act, bn_name, eps

    def conv(self, x, name, filters, k=3, s=1, *, bn=True, act=True, bias=None, pad=None):
        pad = k // 2 if pad is None else pad
        x = L.ZeroPadding2D(pad)(x) if pad else x
        bias = self.bias if bias is None else bias
        x = L.Conv2D(filters, k, strides=s, use_bias=bias, name=name)(x)
        x = self.bn(x, self.bn_name.format(name)) if bn is True else self.bn(x, bn) if bn else x
        return self.activate(x) if act else x

    def depthwise(self, x, name, bn, k=3, s=1, pad=None):
        x = L.ZeroPadding2D(k // 2 if pad is None else pad)(x)
        x = L.DepthwiseConv2D(k, strides=s, use_bias=self.bias, name=name)(x)
        return self.activate(self.bn(x, bn))

    def bn(self, x, name):
        return L.BatchNormalization(epsilon=self.eps, name=name)(x)

    def activate(self, x):
        return L.LeakyReLU(negative_slope=0.1)(x) if self.act == "leaky" else L.Activation(self.act)(x)


def pool(x, k=2, s=2, pad=0):
    return L.MaxPooling2D(k, s)(L.ZeroPadding2D(pad)(x) if pad else x)


def resnet_stage(g, x, stage, units, stride, *, bottleneck, projections):
    f = {1: 64, 2: 128, 3: 256, 4: 512}[stage]
    for u in range(units):
        name, s, shortcut = f"block_{stage}{'abcdefghijklmnopqrstuvwxyz'[u]}_", stride if u == 0 else 1, x

        def bn(part, name=name):
            return f"{name}bn_{part}"

        if bottleneck:
            y = g.conv(x, name + "conv_1", f, 1, s, bn=bn(1))
            y = g.conv(y, name + "conv_2", f, 3, bn=bn(2))
            y = g.conv(y, name + "conv_3", 4 * f, 1, bn=bn(3), act=False)
        else:
            y = g.conv(x, name + "conv_1", f, 3, s, bn=bn(1))
            y = g.conv(y, name + "conv_2", f, 3, bn=bn(2), act=False)
        if u == 0 or projections:
            out = 4 * f if bottleneck else f
            shortcut = g.conv(x, name + "conv_shortcut", out, 1, s, bn=bn("shortcut"), act=False)
        x = L.Activation("relu")(L.Add()([y, shortcut]))
    return x


def resnet(depth, o):
    units = {10: [1, 1, 1, 1], 18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}[
        depth
    ]
    g = Graph(bias=o["use_bias"])
    options = {"bottleneck": depth > 34, "projections": o["all_projections"]}

    def trunk(x):
        x = g.conv(x, "conv1", 64, 7, 2, bn="bn_conv1")
        x = pool(x, 3, 2, pad=1) if o["use_pooling"] else x
        x = resnet_stage(g, x, 1, units[0], 1 if o["use_pooling"] else 2, **options)
        x = resnet_stage(g, x, 2, units[1], 2, **options)
        return resnet_stage(g, x, 3, units[2], 2, **options)

    return trunk, lambda x: resnet_stage(g, x, 4, units[3], 2 if o["pool_size_2x"] else 1, **options)


def resnet101_legacy(_, o):
    g = Graph(bias=True, eps=1.001e-5)

    def stack(x, name, filters, blocks, stride):
        for b in range(1, blocks + 1):
            s, p = stride if b == 1 else 1, f"{name}_block{b}_"
            shortcut = x
            if b == 1:
                shortcut = g.conv(x, p + "0_conv", 4 * filters, 1, s, bn=p + "0_bn", act=False)
            x = g.conv(x, p + "1_conv", filters, 1, s, bn=p + "1_bn")
            x = g.conv(x, p + "2_conv", filters, 3, bn=p + "2_bn")
            x = g.conv(x, p + "3_conv", 4 * filters, 1, bn=p + "3_bn", act=False)
            x = L.Activation("relu")(L.Add()([shortcut, x]))
        return x

    def trunk(x):
        x = g.conv(x, "conv1_conv", 64, 7, 2, bn="conv1_bn", bias=o["use_bias"])
        x = pool(x, 3, 2, pad=1)
        for name, *shape in (("conv2", 64, 3, 1), ("conv3", 128, 4, 2), ("conv4", 256, 23, 2)):
            x = stack(x, name, *shape)
        return x

    return trunk, lambda x: stack(x, "conv5", 512, 3, 2 if o["pool_size_2x"] else 1)


def vgg_head(o):
    def body(x):
        x = pool(x) if o["pool_size_2x"] else x
        # Channels first, as the original flattens.
        x = L.Flatten()(L.Permute((3, 1, 2))(x))
        x = L.Dense(4096, activation="relu", name="fc1")(x)
        return L.Dense(4096, activation="relu", name="fc2")(x)

    return body


def vgg(depth, o):
    g = Graph(bias=o["use_bias"])

    def trunk(x):
        for block, (filters, units16, units19) in enumerate(
            [
                (64, "ab", "ab"),
                (128, "ab", "ab"),
                (256, "abc", "abcd"),
                (512, "abc", "abcd"),
                (512, "abc", "abcd"),
            ],
            start=1,
        ):
            for u in units16 if depth == 16 else units19:
                s = 2 if u == "a" and block > 1 and not o["use_pooling"] else 1
                x = g.conv(x, f"block_{block}{u}_conv_1", filters, 3, s, bn=f"block_{block}{u}_bn_1")
            x = pool(x) if o["use_pooling"] and block < 5 else x
        return x

    return trunk, vgg_head(o)


def vgg16_legacy(_, o):
    g = Graph(bias=True)

    def trunk(x):
        for block, (filters, convs) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], start=1):
            for j in range(1, convs + 1):
                x = g.conv(x, f"block{block}_conv{j}", filters, bn=False)
            x = pool(x) if block < 5 else x
        return x

    return trunk, vgg_head(o)


def googlenet(_, o):
    g = Graph(bias=o["use_bias"])

    def inception(x, name, f1, r3, f3, r5, f5, fp):
        p = f"inception_{name}_"
        a = g.conv(x, p + "1x1", f1, 1)
        b = g.conv(g.conv(x, p + "3x3_reduce", r3, 1), p + "3x3", f3, 3)
        c = g.conv(g.conv(x, p + "5x5_reduce", r5, 1), p + "5x5", f5, 5)
        d = g.conv(pool(x, 3, 1, pad=1), p + "pool_proj", fp, 1)
        return L.Concatenate()([a, b, c, d])

    def trunk(x):
        x = pool(g.conv(x, "conv1", 64, 7, 2, bn="bn_conv1"))
        x = g.conv(x, "conv2_reduce", 64, 1, bn="bn_conv2_reduce")
        x = pool(g.conv(x, "conv2", 192, 3, bn="bn_conv2"))
        x = inception(x, "3a", 64, 96, 128, 16, 32, 32)
        x = pool(inception(x, "3b", 128, 128, 192, 32, 96, 64))
        x = inception(x, "4a", 192, 96, 208, 16, 48, 64)
        x = inception(x, "4b", 160, 112, 224, 24, 64, 64)
        x = inception(x, "4c", 128, 128, 256, 24, 64, 64)
        x = inception(x, "4d", 112, 144, 288, 32, 64, 64)
        return inception(x, "4e", 256, 160, 320, 32, 128, 128)

    def body(x):
        x = pool(x) if o["pool_size_2x"] else x
        x = inception(x, "5a", 256, 160, 320, 32, 128, 128)
        return inception(x, "5b", 384, 192, 384, 48, 128, 128)

    return trunk, body


def mobilenet_v1(_, o):
    g = Graph(bias=o["use_bias"])

    def block(x, k, filters, s=1):
        x = g.depthwise(x, f"conv_dw_{k}", f"conv_dw_{k}_bn", 3, s)
        return g.conv(x, f"conv_pw_{k}", filters, 1)

    def trunk(x):
        x = g.conv(x, "conv1", 32, 3, 2)
        for k, (filters, s) in enumerate(
            [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)], start=1
        ):
            x = block(x, k, filters, s)
        for k in range(7, 12):
            x = block(x, k, 512)
        return x

    return trunk, lambda x: block(block(x, 12, 1024, 2 if o["pool_size_2x"] else 1), 13, 1024)


def mobilenet_v2(_, o):
    g = Graph(bias=o["use_bias"])

    def block(x, b, filters, s=1):
        p, inputs = f"block_{b}_" if b else "expanded_conv_", x
        x = g.conv(x, p + "expand", 6 * x.shape[-1], 1) if b else x
        x = g.depthwise(x, p + "depthwise", p + "depthwise_bn", 3, s)
        x = g.conv(x, p + "project", filters, 1, act=False)
        if s == 1 and inputs.shape[-1] == filters:
            if o["all_projections"]:
                inputs = g.conv(inputs, p + "projected_inputs", filters, 1, bn=False, act=False)
            x = L.Add()([inputs, x])
        return x

    def trunk(x):
        x = g.conv(x, "conv1", 32, 3, 2, bn="bn_conv1")
        outs = [16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96]
        for b, filters in enumerate(outs):
            x = block(x, b, filters, 2 if b in (1, 3, 6) else 1)
        return x

    def body(x):
        x = block(x, 13, 160, 2 if o["pool_size_2x"] else 1)
        for b, filters in ((14, 160), (15, 160), (16, 320)):
            x = block(x, b, filters)
        return g.conv(x, "conv_1", 1280, 1)

    return trunk, body


def darknet19(_, o):
    g = Graph(bias=o["use_bias"], act="leaky")

    def trunk(x):
        x = pool(g.conv(x, "conv1", 32))
        x = pool(g.conv(x, "b1_conv1", 64))
        x = pool(stage(x, 2, [(3, 128), (1, 64), (3, 128)]))
        x = pool(stage(x, 3, [(3, 256), (1, 128), (3, 256)]))
        return stage(x, 4, [(3, 512), (1, 256), (3, 512), (1, 256), (3, 512)])

    def stage(x, k, convs, s=1):
        for i, (kernel, filters) in enumerate(convs, start=1):
            x = g.conv(x, f"b{k}_conv{i}", filters, kernel, s if i == 1 else 1)
        return x

    head = [(3, 1024), (1, 512), (3, 1024), (1, 512), (3, 1024)]
    return trunk, lambda x: stage(x, 5, head, 2 if o["pool_size_2x"] else 1)


def darknet53(_, o):
    g = Graph(bias=o["use_bias"], act="leaky")

    def stage(x, k, filters, pairs, s=2):
        x = g.conv(x, f"conv{k + 1}", filters, 3, s)
        for i in range(1, pairs + 1):
            y = g.conv(x, f"b{k}_conv{i}_1", filters // 2, 1)
            x = L.Add()([x, g.conv(y, f"b{k}_conv{i}_2", filters, 3)])
        return x

    def trunk(x):
        x = g.conv(x, "conv1", 32)
        for k, filters, pairs in ((1, 64, 1), (2, 128, 2), (3, 256, 8), (4, 512, 8)):
            x = stage(x, k, filters, pairs)
        return x

    return trunk, lambda x: stage(x, 5, 1024, 4, 2 if o["pool_size_2x"] else 1)


EFFICIENTNETS = {  # stem, outs 1..7, repeats 1..7, top
    "b0": (32, [16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 3, 3, 4, 1], 1280),
    "b1": (32, [16, 24, 40, 80, 112, 192, 320], [2, 3, 3, 4, 4, 5, 2], 1280),
    "b2": (32, [16, 24, 48, 88, 120, 208, 352], [2, 3, 3, 4, 4, 5, 2], 1408),
    "b3": (40, [24, 32, 48, 96, 136, 232, 384], [2, 3, 3, 5, 5, 6, 2], 1536),
    "b4": (48, [24, 32, 56, 112, 160, 272, 448], [2, 4, 4, 6, 6, 8, 2], 1792),
    "b5": (48, [24, 40, 64, 128, 176, 304, 512], [3, 5, 5, 7, 7, 9, 3], 2048),
    "b6": (56, [32, 40, 72, 144, 200, 344, 576], [3, 6, 6, 8, 8, 11, 3], 2304),
    "b7": (64, [32, 48, 80, 160, 224, 384, 640], [4, 7, 7, 10, 10, 13, 4], 2560),
}


def efficientnet(scale, o):
    stem, outs, repeats, top = EFFICIENTNETS[scale]
    g = Graph(bias=o["use_bias"], act="relu" if o["activation"] == "relu" else "silu")
    kernels, strides = [3, 3, 5, 3, 5, 5, 3], [1, 2, 2, 2, 1, 2 if o["pool_size_2x"] else 1, 1]

    def strided_pad(x, k):
        def axis(n):
            odd = n % 2 and not o["dynamic_size"]
            return (k // 2, k // 2) if odd else (k // 2 - 1, k // 2)

        return axis(x.shape[1]), axis(x.shape[2])

    def stage(x, i):
        for j in range(repeats[i - 1]):
            p, inputs, k = f"block{i}{'abcdefghijklmnopqrstuvwxyz'[j]}_", x, kernels[i - 1]
            s = strides[i - 1] if j == 0 else 1
            if i > 1:
                x = g.conv(x, p + "expand_conv", 6 * x.shape[-1], 1, bn=p + "expand_bn")
            x = g.depthwise(x, p + "dwconv", p + "bn", k, s, strided_pad(x, k) if s == 2 else None)
            squeezed = L.GlobalAveragePooling2D(keepdims=True)(x)
            count = max(1, math.floor(0.25 * inputs.shape[-1]))
            squeezed = g.conv(squeezed, p + "se_reduce", count, 1, bn=False, bias=True)
            gate = g.conv(squeezed, p + "se_expand", x.shape[-1], 1, bn=False, act=False, bias=True)
            x = L.Multiply()([x, L.Activation("sigmoid")(gate)])
            x = g.conv(x, p + "project_conv", outs[i - 1], 1, bn=p + "project_bn", act=False, bias=False)
            if s == 1 and inputs.shape[-1] == outs[i - 1]:
                x = L.Add()([x, inputs])
        return x

    def trunk(x):
        x = g.conv(x, "stem_conv", stem, 3, 2, bn="stem_bn", pad=strided_pad(x, 3))
        for i in range(1, 6):
            x = stage(x, i)
        return x

    return trunk, lambda x: g.conv(stage(stage(x, 6), 7), "top_conv", top, 1, bn="top_bn")


FAMILIES = {
    "resnet": lambda size, o: resnet(int(size), o),
    "resnet101": resnet101_legacy,
    "vgg": lambda size, o: vgg(int(size), o),
    "vgg16": vgg16_legacy,
    "googlenet": googlenet,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "darknet": lambda size, o: {"19": darknet19, "53": darknet53}[size](size, o),
    "efficientnet": efficientnet,
}


def detector(arch, *, size=(64, 64), in_channels=3, pool_size=2, classes=3, anchors=9, **options):
    """A model of `image` (H, W, C) and `crops` (P, P, Cf) with `OUTPUTS`, filled by `seeded_weights`.

    Class scores are left as they are before sigmoid and softmax.
    """
    o = {"use_bias": False, "use_pooling": False, "all_projections": False, "pool_size_2x": False}
    o |= {"activation": "", "dynamic_size": False} | options
    keras.backend.clear_session()
    family, _, member = arch.partition(":")
    trunk, body = FAMILIES[family](member, o)
    image = L.Input((*size, in_channels), name="image")
    features = trunk(image)
    rpn = L.Conv2D(512, 3, activation="relu", name="rpn_conv1")(L.ZeroPadding2D(1)(features))
    rpn_class = L.Conv2D(anchors, 1, name="rpn_out_class")(rpn)
    rpn_regress = L.Conv2D(4 * anchors, 1, name="rpn_out_regress")(rpn)

    side = pool_size * 2 if o["pool_size_2x"] else pool_size
    crops = L.Input((side, side, features.shape[-1]), name="crops")
    vectors = body(crops)
    if len(vectors.shape) == 4:
        vectors = L.Flatten()(L.AveragePooling2D(pool_size, 1)(vectors))
    scores = L.Dense(classes + 1, name="dense_class")(vectors)
    deltas = L.Dense(4 * classes, name="dense_regress")(vectors)
    model = keras.Model([image, crops], [features, rpn_class, rpn_regress, vectors, scores, deltas])
    for layer in model.layers:
        for variable in layer.weights:
            # Keras 3 calls the kernel of a depthwise convolution plainly kernel.
            depthwise = isinstance(layer, L.DepthwiseConv2D) and variable.name == "kernel"
            kind = "depthwise_kernel" if depthwise else variable.name
            variable.assign(seeded_weights.array(layer.name, kind, variable.shape))
    return model


def outputs(model, count=2):
    """Name -> result for seeded images and crops, channels first."""
    inputs = [
        seeded(count, x.shape[3], x.shape[1], x.shape[2]).transpose(0, 2, 3, 1)
        for seeded, x in zip((seeded_weights.images, seeded_weights.crops), model.inputs, strict=True)
    ]
    found = (np.asarray(x) for x in model(inputs, training=False))
    return {
        name: x.transpose(0, 3, 1, 2) if x.ndim == 4 else x for name, x in zip(OUTPUTS, found, strict=True)
    }


def stored(arch):
    """What tests/model/data holds of a case."""
    results = outputs(detector(arch, size=(32, 32), **STORED[arch]))
    return {name: results[name][:, ::4] for name in ("feature_map", "vectors")}


if __name__ == "__main__":
    for arch in STORED:
        np.savez_compressed(Path(sys.argv[1]) / f"{arch}.npz", **stored(arch))

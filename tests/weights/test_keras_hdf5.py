"""What is read from Keras files, and what is refused."""

import gzip
import json
import sys

import h5py
import numpy as np
import pytest
import torch
from keras_files import keras_weights, make, narrow_plan, randomise, write, write_detector

from frcnn.errors import WeightsError
from frcnn.model.backbones import build_backbone
from frcnn.reference import write_hdf5
from frcnn.weights.keras_hdf5 import name_head, read_hdf5

KERNEL = np.arange(24, dtype=np.float32).reshape(2, 2, 3, 2)  # h, w, in, out


@pytest.fixture
def small(tmp_path):
    return write(tmp_path / "a.h5", {"conv1": {"kernel": KERNEL, "bias": np.ones(2, np.float32)}})


def test_a_convolution_by_hand(small):
    tensors = read_hdf5(small).layers["conv1"]
    assert tensors["weight"].shape == (2, 3, 2, 2)
    # Kernel position (1, 0), input channel 2, output channel 1: the number 1*12 + 0*6 + 2*2 + 1.
    assert tensors["weight"][1, 2, 1, 0] == 17
    assert tensors["bias"].tolist() == [1, 1]


def test_depthwise_dense_and_batch_norm(tmp_path):
    layers = {
        "dw": {"depthwise_kernel": np.arange(12, dtype=np.float32).reshape(2, 2, 3, 1)},
        "fc1": {"kernel": np.arange(6, dtype=np.float32).reshape(3, 2)},
        "bn": {
            n: np.full(3, i, np.float32)
            for i, n in enumerate(("gamma", "beta", "moving_mean", "moving_variance"))
        },
    }
    found = read_hdf5(write(tmp_path / "a.hdf5", layers, config={"config": {"layers": []}})).layers
    assert found["dw"]["weight"].shape == (3, 1, 2, 2)
    assert found["dw"]["weight"][2, 0, 1, 0] == 8  # 1*6 + 0*3 + 2
    assert found["fc1"]["weight"].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert [t[0].item() for t in found["bn"].values()] == [0, 1, 2, 3]
    assert list(found["bn"]) == ["weight", "bias", "running_mean", "running_var"]


def test_layers_without_weights_are_left_out(small):
    assert list(read_hdf5(small).layers) == ["conv1"]


def test_quantised_names_and_scales(tmp_path):
    """Weights as conv1_1/kernel:0, scales in NAME_qdq, activations that end at 6."""
    scales = {
        "input_image_qdq": 151.5,
        "conv1_qdq": 6.0,
        "conv1_act_qdq": 5.5,
        "time_distributed_1_qdq": 3.25,
    }
    detector = randomise(make(channels=narrow_plan()))
    file = read_hdf5(write_detector(tmp_path / "q.hdf5", detector, middle="_1", scales=scales, relu6=True))
    assert file.activation_scales == {
        "input_image": 151.5,
        "conv1": 6.0,
        "conv1_act": 5.5,
        "block_4a_conv_1": 3.25,
    }
    assert file.relu6
    assert torch.equal(file.layers["block_4a_conv_1"]["weight"], detector.head.body.block_4a_conv_1.weight)


def test_a_plain_relu_does_not_end_at_6(tmp_path):
    assert not read_hdf5(write_detector(tmp_path / "a.hdf5", make(channels=narrow_plan()))).relu6


def test_long_lists_of_names_are_cut_in_parts(small):
    with h5py.File(small, "a") as file:
        names = list(file.attrs["layer_names"])
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[1:], names[:1]
    assert list(read_hdf5(small).layers) == ["conv1"]


@pytest.mark.parametrize("case", ["resnet10", "mobilenet_v2"])
def test_numbered_heads_get_the_names_that_the_original_gave_them(shared_data, tmp_path, case):
    with gzip.open(shared_data / "tao_reference" / f"{case}.json.gz", "rt") as text:
        whole = json.load(text)
    write_hdf5(whole, tmp_path / "whole.hdf5")
    write_hdf5({**whole, "attrs": {}}, tmp_path / "bare.hdf5")
    named, bare = read_hdf5(tmp_path / "whole.hdf5"), read_hdf5(tmp_path / "bare.hdf5")
    assert "time_distributed_1" in bare.layers
    body = build_backbone(whole["options"]["arch"], all_projections=True).body
    found = name_head(bare, body).layers
    assert found.keys() == named.layers.keys()
    assert all(torch.equal(found[n][t], named.layers[n][t]) for n in found for t in found[n])


# tao/model-and-training.md 2.9, layers with weights only.
ORDERS = {
    "resnet:18": "4a_conv_1 4a_bn_1 4a_conv_2 4a_bn_2 4a_conv_shortcut 4a_bn_shortcut 4b_conv_1 4b_bn_1",
    "resnet101": "0_conv 0_bn 1_conv 1_bn 2_conv 2_bn 3_conv 3_bn block2_1_conv block2_1_bn",
    "vgg:16": "fc1 fc2",
    "googlenet": "1x1 1x1_bn 3x3_reduce 3x3_reduce_bn 3x3 3x3_bn 5x5_reduce 5x5_reduce_bn 5x5 5x5_bn "
    "pool_proj pool_proj_bn 5b_1x1",
    "mobilenet_v1": "dw_12 dw_12_bn pw_12 pw_12_bn dw_13 dw_13_bn pw_13 pw_13_bn",
    "darknet:19": "conv1 conv1_bn conv2 conv2_bn conv3 conv3_bn conv4 conv4_bn conv5 conv5_bn",
    "darknet:53": "conv6 conv6_bn b5_conv1_1 b5_conv1_1_bn b5_conv1_2 b5_conv1_2_bn b5_conv2_1 b5_conv2_1_bn",
    "efficientnet:b0": "expand_conv expand_bn dwconv bn se_reduce se_expand project_conv project_bn block6b_expand_conv",
}


@pytest.mark.parametrize("arch", ORDERS)
def test_numbering_of_each_family(tmp_path, arch):
    plan = narrow_plan(arch)
    detector = make(arch, channels=plan)
    layers = {
        f"time_distributed_{10 + 3 * i}": keras_weights(layer)  # others consume numbers, too
        for i, layer in enumerate(_in_order(arch, detector.head.body))
    }
    file = name_head(read_hdf5(write(tmp_path / "a.h5", layers)), detector.head.body)
    named = list(file.layers)
    assert all(name.endswith(end) for name, end in zip(named, ORDERS[arch].split(), strict=False))
    own = dict(detector.head.body.named_modules())
    assert all(file.layers[name]["weight"].shape == own[name].weight.shape for name in named)


def _in_order(arch, body):
    own = [layer for layer in body.modules() if hasattr(layer, "weight")]
    return own if arch != "resnet101" else [*own[6:8], *own[:6], *own[8:]]


def test_heads_of_another_shape_keep_their_numbers(tmp_path):
    detector = make(channels=narrow_plan())
    file = read_hdf5(write_detector(tmp_path / "a.h5", detector, config=False))
    assert name_head(file, build_backbone("vgg:16").body) is file


def refusal(path):
    with pytest.raises(WeightsError) as error:
        read_hdf5(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_files_that_are_none(tmp_path):
    assert "no such" in refusal(tmp_path / "none.h5")
    (tmp_path / "a.h5").write_bytes(b"version https://git-lfs")
    assert "no HDF5" in refusal(tmp_path / "a.h5")
    assert "version https" in refusal(tmp_path / "a.h5")
    (tmp_path / "a.tlt").write_bytes(b"\x00\x01")
    assert "original container" in refusal(tmp_path / "a.tlt")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("x", data=KERNEL)
    assert "no Keras" in refusal(tmp_path / "b.h5")


def test_every_cut_is_noticed(small):
    whole = small.read_bytes()
    for size in range(100, len(whole) - 1, len(whole) // 5):
        small.write_bytes(whole[:size])
        assert "broken" in refusal(small)


def test_a_file_on_which_the_library_crashes(small, tmp_path, monkeypatch):
    """Random bytes in a header do that now and then (h5py 3.16): it ends a process, not ours."""
    crash = tmp_path / "crash"
    crash.write_text("#!/bin/sh\nkill -11 $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crash))
    assert "cannot cope" in refusal(small)


def test_a_checksum_that_fails_at_the_last_tensor(small):
    """What the library says of it must not become numbers."""
    with h5py.File(small, "a") as file:
        group = file["conv1/conv1"]
        del group["bias:0"]
        data = group.create_dataset("bias:0", data=np.ones(2, np.float32), chunks=(2,), fletcher32=True)
        place = data.id.get_chunk_info(0).byte_offset
    content = bytearray(small.read_bytes())
    content[place] ^= 0xFF
    small.write_bytes(content)
    assert "broken" in refusal(small)


@pytest.mark.parametrize("end", ["exit 1", "printf 12345"])
def test_a_reader_that_fails_or_says_too_much(small, tmp_path, monkeypatch, end):
    reader = tmp_path / "reader"
    header = '{"tensors": [["conv1", "bias", [1]]], "model_config": null}'
    reader.write_text(f"#!/bin/sh\necho '{header}'; printf 1234; {end}\n")
    reader.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(reader))
    assert "cannot cope" in refusal(small)


@pytest.mark.parametrize("names", [7, h5py.Empty("f")])
def test_names_of_layers_that_are_no_list(small, names):
    with h5py.File(small, "a") as file:
        file.attrs["layer_names"] = names
    assert "layer_names is" in refusal(small)


def test_a_folder(tmp_path):
    (tmp_path / "a.hdf5").mkdir()
    assert "is a folder" in refusal(tmp_path / "a.hdf5")


def rewrite(path, value, **options):
    """Put another dataset in place of the kernel."""
    with h5py.File(path, "a") as file:
        del file["conv1/conv1/kernel:0"]
        if value is not None:
            file["conv1/conv1"].create_dataset("kernel:0", data=value, **options)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "is listed and not there"),
        (KERNEL.astype(int), "floating-point"),
        (np.array(["a", "b"], dtype=object), "floating-point"),
        (np.ones((1, 1, 1, 1, 1, 1), np.float32), "absurd size"),
        (np.ones((3, 0, 2), np.float32), "absurd size"),
    ],
)
def test_tensors_that_are_none(small, value, words):
    rewrite(small, value)
    assert words in refusal(small)


def test_a_bomb_is_not_unpacked(small):
    rewrite(small, None)
    with h5py.File(small, "a") as file:
        options = {
            "shape": (3, 3, 2**14, 2**14),
            "dtype": "f4",
            "chunks": (3, 3, 64, 64),
            "compression": "gzip",
        }
        file["conv1/conv1"].create_dataset("kernel:0", **options)
    assert small.stat().st_size < 100_000
    assert "absurd size" in refusal(small)
    rewrite(small, np.zeros((1024, 1024), np.float32), compression="gzip", compression_opts=9)
    assert "absurd size" in refusal(small)


@pytest.mark.parametrize("linked", [False, True])
def test_a_bomb_of_many_small_tensors(tmp_path, linked):
    """Each of 1 MiB without storage; or one of 1 MiB that is stored, under 300 names."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        names = [f"l{i}" for i in range(300)]
        stored = file.create_dataset("one", data=np.ones((512, 512), np.float32)) if linked else None
        for name in names:
            group = file.create_group(name)
            group.attrs["weight_names"] = [b"kernel:0"]
            if linked:
                group["kernel:0"] = stored
            else:
                group.create_dataset("kernel:0", shape=(512, 512), dtype="f4", chunks=(512, 512))
        file.attrs["layer_names"] = [name.encode() for name in names]
    assert "holds too much" in refusal(path)


@pytest.mark.parametrize("target", ["external", "soft"])
def test_links_are_not_followed(small, tmp_path, target):
    write(tmp_path / "other.h5", {"conv1": {"kernel": KERNEL}})
    rewrite(small, None)
    with h5py.File(small, "a") as file:
        external = h5py.ExternalLink(str(tmp_path / "other.h5"), "conv1/conv1/kernel:0")
        file["conv1/conv1/kernel:0"] = (
            external if target == "external" else h5py.SoftLink("/conv1/conv1/bias:0")
        )
    assert "links are not followed" in refusal(small)


def test_weights_of_a_model_are_not_taken_from_another_file(tmp_path):
    write(tmp_path / "other.h5", {"conv1": {"kernel": KERNEL}})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["model_weights"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")
    assert "links are not followed" in refusal(tmp_path / "a.h5")


def test_numbers_in_other_files_are_not_read(small, tmp_path):
    (tmp_path / "raw").write_bytes(KERNEL.tobytes())
    rewrite(small, None)
    with h5py.File(small, "a") as file:
        file["conv1/conv1"].create_dataset(
            "kernel:0",
            shape=KERNEL.shape,
            dtype="f4",
            external=[(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)],
        )
    assert "another file" in refusal(small)
    rewrite(small, None)
    with h5py.File(small, "a") as file:
        layout = h5py.VirtualLayout(shape=(2,), dtype="f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", shape=(2,))
        file["conv1/conv1"].create_virtual_dataset("kernel:0", layout)
    assert "another file" in refusal(small)


@pytest.mark.parametrize("text", ["{", "[]", '{"config": 3}', '{"config": {"layers": [{}]}}', "[" * 100_000])
def test_broken_model_config(small, text):
    with h5py.File(small, "a") as file:
        file.attrs["model_config"] = text
    assert "broken" in refusal(small)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_scales_that_are_none(tmp_path, scale):
    path = write(tmp_path / "a.h5", {"conv1": {"kernel": KERNEL}}, scales={"conv1_qdq": scale})
    assert "scale" in refusal(path)

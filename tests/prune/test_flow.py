"""Which layers hang together, against lists that were made by hand from the architectures' tables."""

import pytest
import torch
from keras_files import make

from frcnn.prune.flow import Source, trace


def flow(arch, **options):
    with torch.device("meta"):
        return trace(make(arch, **options))


def shared(found):
    """Groups of more than one layer."""
    return [group for group in found.groups if len(group) > 1]


def test_an_identity_stage_shares_one_set_and_projections_divide_it():
    assert shared(flow("resnet:18")) == [
        ("block_1a_conv_2", "block_1a_conv_shortcut", "block_1b_conv_2"),
        ("block_2a_conv_2", "block_2a_conv_shortcut", "block_2b_conv_2"),
        ("block_3a_conv_2", "block_3a_conv_shortcut", "block_3b_conv_2"),
        ("block_4a_conv_2", "block_4a_conv_shortcut", "block_4b_conv_2"),
    ]
    pairs = shared(flow("resnet:18", all_projections=True))
    assert pairs == [
        (f"block_{s}{u}_conv_2", f"block_{s}{u}_conv_shortcut") for s in (1, 2, 3, 4) for u in "ab"
    ]
    bottleneck = shared(flow("resnet:50"))
    assert bottleneck[0] == (
        *("block_1a_conv_3", "block_1a_conv_shortcut"),
        *("block_1b_conv_3", "block_1c_conv_3"),
    )


def test_a_depthwise_convolution_keeps_what_comes_before_it():
    found = shared(flow("mobilenet_v1"))
    assert found[:2] == [("conv1", "conv_dw_1"), ("conv_pw_1", "conv_dw_2")]
    assert found[11] == ("conv_pw_11", "conv_dw_12")  # from trunk to head, through the crops
    assert len(found) == 13
    found = shared(flow("mobilenet_v2"))
    assert ("block_1_project", "block_2_project") in found
    assert ("block_13_project", "block_14_project", "block_15_project") in found
    assert ("block_3_expand", "block_3_depthwise") in found


def test_squeeze_and_excitation_joins_the_gates_to_what_they_multiply():
    found = flow("efficientnet:b1")
    assert shared(found)[:3] == [
        ("stem_conv", "block1a_dwconv", "block1a_se_expand"),
        # The second unit of stage 1 does not expand: its depthwise convolution runs on the residual stream.
        ("block1a_project_conv", "block1b_dwconv", "block1b_se_expand", "block1b_project_conv"),
        ("block2a_expand_conv", "block2a_dwconv", "block2a_se_expand"),
    ]
    assert ("block1a_se_reduce",) in found.groups


def test_darknet_adds_behind_the_activation():
    assert shared(flow("darknet:53"))[1] == ("conv3", "b2_conv1_2", "b2_conv2_2")
    assert shared(flow("darknet:19")) == []


def test_a_concatenation_is_of_its_branches_in_order():
    found = flow("googlenet")
    branches = tuple(Source(f"inception_3a_{part}") for part in ("1x1", "3x3", "5x5", "pool_proj"))
    for part in ("1x1", "3x3_reduce", "5x5_reduce", "pool_proj"):
        assert found.inputs[f"inception_3b_{part}"] == branches
    assert found.inputs["rpn_conv1"] == found.inputs["inception_5a_1x1"]
    assert shared(found) == []


def test_a_flattened_channel_is_as_many_features_as_the_patch_has_cells():
    found = flow("vgg:16", pool_size=3)
    assert found.inputs["fc1"] == (Source("block_5c_conv_1", 9),)
    assert found.inputs["fc2"] == (Source("fc1"),)
    assert found.inputs["dense_class"] == found.inputs["dense_regress"] == (Source("fc2"),)


def test_every_layer_is_seen_and_the_image_is_nobodys():
    found = flow("resnet:10")
    assert found.inputs["conv1"] == ()
    assert found.inputs["bn_conv1"] == (Source("conv1"),)
    assert found.inputs["rpn_out_class"] == (Source("rpn_conv1"),)
    assert found.widths["rpn_conv1"] == 512
    assert sorted(name for group in found.groups for name in group) == sorted(found.widths)


def test_an_addition_of_a_concatenation_is_refused():
    with torch.device("meta"):
        detector = make("googlenet")
    run = detector.trunk.run_block

    def add_another(block, x, valid):
        y = run(block, x, valid)
        # Module 3a concatenates to 256 channels, which are added to those of one convolution.
        return y + detector.trunk.get_submodule("lonely")(y) if block == 1 else y

    with torch.device("meta"):
        detector.trunk.add(1, "lonely", torch.nn.Conv2d(256, 256, 1))
    detector.trunk.run_block = add_another
    with pytest.raises(NotImplementedError, match=r"inception_3a_1x1\+inception_3a_3x3.* and lonely"):
        trace(detector)

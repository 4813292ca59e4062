"""The network block by block: what each block hands on."""

import torch
from keras_files import make

from frcnn.report.summary import summary_rows


def outputs(arch, part, **options):
    with torch.device("meta"):
        detector = make(arch, **options)
    rows = summary_rows(detector, size=(256, 384), channels=3, regions=5)
    return {row["block"]: row["output"] for row in rows if row["part"] == part}


def test_an_inception_module_hands_on_all_of_its_branches():
    """Facts 2.4: 3a 256, 4a 512, 4e 832, 5b 1024."""
    trunk = outputs("googlenet", "trunk")
    assert (trunk[1], trunk[3], trunk[7]) == ("256x32x48", "512x16x24", "832x16x24")
    assert outputs("googlenet", "head", pool_size=3) == {8: "832x3x3", 9: "1024x3x3"}


def test_a_stage_hands_on_its_sum_and_dense_layers_vectors():
    assert outputs("resnet:50", "trunk")[3] == "1024x16x24"
    assert outputs("vgg:16", "head", pool_size=3) == {6: "4096"}

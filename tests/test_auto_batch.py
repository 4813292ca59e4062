"""How much a step takes, and which batch fits into that."""

import contextlib
from functools import partial

import pytest
import torch
from torch import nn

from frcnn.auto_batch import StepMemory, _Peak, free_memory, largest_batch, step_memory
from frcnn.errors import RunError
from frcnn.model.backbones import build_backbone
from frcnn.model.detector import FasterRCNN

CPU = torch.device("cpu")


def test_the_largest_power_of_two_that_fits():
    memory = StepMemory(fixed=100, per_image=10)
    assert memory.images(189) == 8
    assert largest_batch(memory, available=189, most=1000) == 8
    assert largest_batch(memory, available=179, most=1000) == 4
    assert largest_batch(memory, available=10**6, most=33) == 32
    with pytest.raises(RunError, match="not even one image"):
        largest_batch(memory, available=105, most=1000)


def test_the_peak_is_what_lives_at_once():
    with _Peak(CPU) as peak:
        a = torch.ones(1000)  # 4,000 bytes
        a.add_(1)
        b = a + 1  # 8,000
        del a
        c = b[:10] + 1  # 4,040; the view takes nothing
    assert peak.bytes == 8000
    del b, c


def test_a_step_of_a_known_network():
    """Weights, gradients and Adam's two moments are 16 bytes each; frozen ones are 4."""
    make = partial(
        FasterRCNN, num_classes=3, anchor_scales=[16, 32], anchor_ratios=[1.0], roi_sample=2, freeze_bn=True
    )
    detector = make(backbone=build_backbone("resnet:10", pool_size=2), freeze_blocks=[0, 1, 2, 3])
    measure = partial(
        step_memory,
        size=(288, 384),
        channels=3,
        max_objects=5,
        make_optimizer=lambda network: torch.optim.Adam(p for p in network.parameters() if p.requires_grad),
        device=CPU,
        precision=contextlib.nullcontext,
    )
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    frozen = measure(detector)
    trained = [p.numel() for p in detector.parameters() if p.requires_grad]
    rest = [p.numel() for p in detector.parameters() if not p.requires_grad]
    buffers = sum(b.nbytes for b in detector.buffers())
    steps = 4 * len(trained)  # Adam counts per tensor
    assert frozen.fixed == 16 * sum(trained) + 4 * sum(rest) + buffers + steps
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())
    whole = measure(make(backbone=build_backbone("resnet:10", pool_size=2)))
    # Blocks that train keep what they computed.
    assert whole.per_image > 1.5 * frozen.per_image > 0
    assert free_memory(CPU) > 2**20


@pytest.mark.slow
def test_more_objects_need_more():
    few, many = (
        step_memory(
            FasterRCNN(
                backbone=build_backbone("resnet:10", pool_size=2),
                num_classes=3,
                anchor_scales=[16, 32],
                anchor_ratios=[1.0],
                roi_sample=8,
            ),
            size=(96, 128),
            channels=3,
            max_objects=objects,
            make_optimizer=lambda network: torch.optim.SGD(nn.ParameterList(network.parameters()), lr=0.1),
            device=CPU,
            precision=contextlib.nullcontext,
        ).per_image
        for objects in (5, 20000)
    )
    assert many > few

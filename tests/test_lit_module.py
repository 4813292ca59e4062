"""What the Lightning module adds to the detector: the rate of each step, the sum it logs, the guard."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from frcnn.data.sample import Batch
from frcnn.errors import RunError
from frcnn.lit_module import FINITE_EVERY, LitFasterRCNN
from frcnn.model.detector import DetectionSettings
from frcnn.optim.optimizers import SGD


class Detector(nn.Module):
    """One 1x1 convolution of weight 2; its losses follow from `value`."""

    def __init__(self, value=1.0):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.conv.weight, 2.0)
        self.value, self.generators = value, []

    def losses(self, images, boxes, labels, *, image_sizes, ignored, generator):
        self.generators.append(torch.rand(1, generator=generator).item())
        return {"rpn_class": self.conv.weight.sum() * self.value, "rcnn_box": self.conv.weight.sum()}


def batch(name="a.png"):
    empty = torch.zeros(1, 1)
    return Batch(torch.zeros(1, 1, 2, 2), *[empty] * 7, [name])


def module(value=1.0, world_size=1, last=False, **options):
    lit = LitFasterRCNN(detector=Detector(value), evaluation=DetectionSettings(), **options)
    lit.logged = {}
    lit.log_dict = lambda values, **_: lit.logged.update({k: float(v) for k, v in values.items()})
    lit._trainer = SimpleNamespace(
        world_size=world_size,
        current_epoch=0,
        global_rank=0,
        estimated_stepping_batches=10,
        is_last_batch=last,
    )
    return lit


def test_penalties_are_part_of_the_logged_loss_and_l1_of_the_gradient():
    total = module(l1=0.5).training_step(batch(), 0)
    assert total.item() == 2 + 2 + 0.5 * 2
    lit = module(l2=0.5)
    assert lit.training_step(batch(), 0).item() == 4  # the optimizer's weight decay is the rest
    assert lit.logged["train/loss"] == 4 + 0.5 * 2**2
    assert lit.logged["train/loss_rpn_class"] == 2


def test_an_epoch_is_logged_as_the_mean_over_its_images():
    lit = module()
    lit.training_step(batch("a.png"), 0)
    lit.on_train_batch_end(None, batch("a.png"), 0)
    assert "train/loss_epoch" not in lit.logged
    three = Batch(torch.zeros(3, 1, 2, 2), *[torch.zeros(3, 1)] * 7, ["b.png", "c.png", "d.png"])
    lit.detector.value = 3.0
    lit._trainer.is_last_batch = True
    lit.training_step(three, 1)
    lit.on_train_batch_end(None, three, 1)
    assert lit.logged["train/loss_epoch"] == (1 * (2 + 2) + 3 * (6 + 2)) / 4
    assert lit.logged["train/loss_rpn_class_epoch"] == (1 * 2 + 3 * 6) / 4


def test_the_rate_is_set_per_step_and_grows_with_the_devices():
    lit = module(
        world_size=2,
        make_optimizer=lambda detector: SGD(detector.parameters(), lr=1.0),
        rate=lambda step, steps: step / steps,
    )
    made = lit.configure_optimizers()
    rates = []
    for _ in range(3):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == [0.0, 0.2, 0.4]


def test_a_module_for_evaluation_does_not_train():
    with pytest.raises(RunError):
        module().configure_optimizers()


def test_a_loss_that_is_no_number_is_remembered_until_someone_looks():
    lit = module(float("nan"))
    lit.training_step(batch("bad.png"), 0)
    lit.detector.value = 1.0
    lit.training_step(batch(), 1)  # good again: the weights are not
    with pytest.raises(RunError, match=r"epoch 1, step 1(.|\n)*bad\.png"):
        lit.on_train_batch_end(None, batch(), 1)
    assert FINITE_EVERY > 1


def test_random_choices_depend_on_the_place_in_the_run_only():
    first, again = module(seed=3), module(seed=3)
    for step in (0, 1):
        first.training_step(batch(), step)
    again.training_step(batch(), 1)
    assert again.detector.generators == first.detector.generators[1:]
    assert first.detector.generators[0] != first.detector.generators[1]

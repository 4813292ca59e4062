"""The moving average: its decay, its buffers and its counters."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from frcnn.callbacks import WeightEMA


def test_the_decay_grows_to_its_limit_and_counters_are_copied():
    layer = nn.BatchNorm1d(1)
    ema = WeightEMA(decay=0.25)
    average = AveragedModel(layer, use_buffers=True, **ema._kwargs)
    expected = None
    for step, value in enumerate([4.0, 8.0, 16.0]):
        with torch.no_grad():
            layer.weight.fill_(value)
            layer.running_mean.fill_(10 * value)
            layer.num_batches_tracked.fill_(step)
        average.update_parameters(layer)
        # The first update copies; then (1 + 1) / (10 + 1) and min(0.25, (1 + 2) / (10 + 2)).
        decay = [0.0, 2 / 11, 0.25][step]
        expected = value if expected is None else decay * expected + (1 - decay) * value
        torch.testing.assert_close(average.module.weight, torch.tensor([expected]))
        torch.testing.assert_close(average.module.running_mean, torch.tensor([10 * expected]))
        assert average.module.num_batches_tracked == step

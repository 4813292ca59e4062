"""Batch norm over processes: two that have half a batch each do what one with the whole batch does."""

import copy
import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from frcnn.model.batch_norm import BatchNorm2d

ROWS = 6
MASKS = {
    "all": torch.ones(ROWS, dtype=torch.bool),
    "some": torch.tensor([True, False, True, True, True, False]),
    "none in the second": torch.tensor([True, True, False, False, False, False]),
    "none": torch.zeros(ROWS, dtype=torch.bool),
}


def inputs():
    generator = torch.Generator().manual_seed(0)
    # A mean that is large beside the deviation: sums of squares would cancel.
    x = torch.randn(ROWS, 3, 4, 5, generator=generator) + 300
    return x, torch.randn(x.shape, generator=generator)


def layer():
    bn = BatchNorm2d(3)
    torch.nn.init.normal_(bn.weight, generator=torch.Generator().manual_seed(1))
    bn.synced = True
    return bn


def step(bn, x, upstream, valid):
    """Two passes, so that the running statistics move twice; what each process feels of the second."""
    module = getattr(bn, "module", bn)
    bn(x, valid)
    x = x.clone().requires_grad_()
    y = bn(x * 1.5, valid)
    ((y * upstream).flatten(1).sum(1).where(valid, 0)).mean().backward()
    return {
        "y": y.detach()[valid],
        "dx": x.grad[valid],
        "weight": module.weight.grad,
        "bias": module.bias.grad,
        "mean": module.running_mean,
        "var": module.running_var,
        "steps": module.num_batches_tracked,
    }


def half(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    x, upstream = inputs()
    mine = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
    found = {
        name: step(DistributedDataParallel(layer()), x[mine], upstream[mine], valid[mine])
        for name, valid in MASKS.items()
    }
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    folder = tmp_path_factory.mktemp("halves")
    mp.spawn(half, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.skipif(sys.platform == "win32", reason="gloo")
@pytest.mark.parametrize("mask", MASKS)
def test_two_processes_equal_one(halves, mask):
    whole = step(layer(), *inputs(), MASKS[mask])
    first, second = (half[mask] for half in halves)
    torch.testing.assert_close(torch.cat([first["y"], second["y"]]), whole["y"], rtol=1e-4, atol=1e-4)
    # Each process' loss is the mean of its half, so twice the share of the whole's.
    dx = torch.cat([first["dx"], second["dx"]]) / 2
    torch.testing.assert_close(dx, whole["dx"], rtol=1e-4, atol=1e-5)
    for name in ("weight", "bias"):
        torch.testing.assert_close(first[name], whole[name], rtol=1e-4, atol=1e-4)
    for name in ("weight", "bias", "mean", "var", "steps"):
        torch.testing.assert_close(first[name], second[name])
    for name in ("mean", "var", "steps"):
        torch.testing.assert_close(first[name], whole[name], rtol=1e-5, atol=1e-5)


def test_alone_it_is_ordinary():
    x, _ = inputs()
    synced, plain = layer(), copy.deepcopy(layer())
    plain.synced = False
    torch.testing.assert_close(synced(x), plain(x), rtol=0, atol=0)

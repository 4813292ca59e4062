"""Inference of a network against that of its pruned one: `prune.py WHOLE.ckpt PRUNED.ckpt`.

`prune.py ANY.ckpt` takes every backbone in turn: filters of random strength, a fifth of the parameters.
"""

import argparse
import time
from collections.abc import Iterator
from statistics import median

import torch
from torch import Tensor

from frcnn import build
from frcnn.model.backbones import BACKBONES
from frcnn.model.detector import DetectionSettings, FasterRCNN
from frcnn.pruning import Pruner
from frcnn.spec.run import App
from frcnn.weights.checkpoint import Checkpoint
from frcnn.weights.load import weighted_layers

SHARE = 0.2


def load(path: str) -> FasterRCNN:
    """The detector of a checkpoint."""
    stored = Checkpoint(path)
    detector = build.build_detector(stored.settings, plan=stored.channels)
    stored.load_into(detector)
    return detector


def pairs(path: str, archs: list[str]) -> Iterator[tuple[str, FasterRCNN, FasterRCNN]]:
    """Backbones, each whole and pruned, with all other settings of a checkpoint."""
    for arch in archs:
        app = App.of(Checkpoint(path).settings)
        app.model_config.arch = arch
        torch.manual_seed(0)
        whole = build.build_detector(app)
        for layer in weighted_layers(whole).values():
            if (weight := layer.get_parameter("weight")).dim() > 1:
                weight.data *= torch.rand(len(weight)).view(-1, *[1] * (weight.dim() - 1))
        pruner = Pruner(app, whole)
        pruned = pruner.prune(pruner.threshold_for(SHARE, "parameters"))
        shares = pruner.shares(pruned.size)
        yield f"{arch} ({shares['parameters']:.1%}, {shares['flops']:.1%})", whole, pruned.detector


def seconds(detector: FasterRCNN, images: Tensor) -> float:
    """One inference, images to detections, with the usual 6000 and 300 proposals."""
    start = time.perf_counter()
    detector.detect(images, settings=DetectionSettings())
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Alternate the two and print medians, and the median of the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("whole")
    parser.add_argument("pruned", nargs="?")
    parser.add_argument("--archs", nargs="+", default=list(BACKBONES), help="without PRUNED")
    parser.add_argument("--size", default="384x1248", help="height x width")
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    height, width = map(int, arguments.size.split("x"))
    images = torch.randn(1, 3, height, width, device=arguments.device)
    if arguments.pruned:
        networks = iter([(arguments.whole, load(arguments.whole), load(arguments.pruned))])
    else:
        networks = pairs(arguments.whole, arguments.archs)
    for name, *detectors in networks:
        for detector in detectors:
            detector.to(arguments.device).eval()
        rounds = [[seconds(detector, images) for detector in detectors] for _ in range(arguments.steps + 1)]
        rounds = rounds[1:]  # the first is slower
        whole, pruned = (median(times) for times in zip(*rounds, strict=True))
        ratio = median(a / b for a, b in rounds)
        print(f"{name:40} {whole:8.4f} s, pruned {pruned:8.4f} s: {ratio:.2f}x as fast", flush=True)


if __name__ == "__main__":
    main()

"""Inference of a network against that of its pruned one: `prune.py WHOLE.ckpt PRUNED.ckpt`."""

import argparse
import time
from statistics import median

import torch
from torch import Tensor

from frcnn import build
from frcnn.model.detector import DetectionSettings, FasterRCNN
from frcnn.weights.checkpoint import Checkpoint


def load(path: str, device: str) -> FasterRCNN:
    """The detector of a checkpoint, ready to detect."""
    stored = Checkpoint(path)
    detector = build.build_detector(stored.settings, plan=stored.channels)
    stored.load_into(detector)
    return detector.to(device).eval()


def seconds(detector: FasterRCNN, images: Tensor) -> float:
    """One inference, images to detections, with the usual 6000 and 300 proposals."""
    start = time.perf_counter()
    detector.detect(images, settings=DetectionSettings())
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Alternate the two and print medians, and the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("whole")
    parser.add_argument("pruned")
    parser.add_argument("--size", default="384x1248", help="height x width")
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    paths = (arguments.whole, arguments.pruned)
    detectors = [load(path, arguments.device) for path in paths]
    height, width = map(int, arguments.size.split("x"))
    images = torch.randn(1, 3, height, width, device=arguments.device)
    rounds = [[seconds(detector, images) for detector in detectors] for _ in range(arguments.steps + 2)][
        2:
    ]  # the first are slower
    for path, detector, times in zip(paths, detectors, zip(*rounds, strict=True), strict=True):
        parameters = sum(p.numel() for p in detector.parameters())
        print(f"{median(times):8.4f} s  {parameters:12,} parameters  {path}")
    print(f"{median(whole / pruned for whole, pruned in rounds):.2f}x as fast pruned")


if __name__ == "__main__":
    main()

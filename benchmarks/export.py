"""An exported graph in ONNX Runtime against the same network in torch, from network input to detections.

Both compute in float32, on the same number of threads, the same images, at the same limits, taking turns.
"torch" is the network as `evaluate` runs it, with Winograd's convolutions in the region head; "eager" is the
network with torch's own kernels alone.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from frcnn.deploy.graph import DetectionGraph
from frcnn.deploy.onnx_file import export_onnx
from frcnn.export import FORMS
from frcnn.model.backbones import build_backbone
from frcnn.model.detector import DetectionSettings, FasterRCNN
from frcnn.ops import winograd

CASES = {
    "toy": {"size": (128, 192), "regions": 60, "pool_size": 3},
    "video": {"size": (272, 480), "regions": 100, "pool_size": 7},
    "kitti": {"size": (384, 1248), "regions": 300, "pool_size": 7},
}


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Without Winograd's algorithm."""
    kept = winograd.worthwhile
    winograd.worthwhile = lambda *_, **__: False
    try:
        yield
    finally:
        winograd.worthwhile = kept


def build(
    arch: str, case: dict[str, Any], options: argparse.Namespace, folder: str
) -> tuple[FasterRCNN, DetectionSettings, onnxruntime.InferenceSession]:
    """The detector, its settings, and a session of its export."""
    torch.manual_seed(0)
    detector = FasterRCNN(
        backbone=build_backbone(arch, pool_size=case["pool_size"]),
        num_classes=3,
        anchor_scales=[64, 128, 256],
        anchor_ratios=[1, 0.5, 2],
    ).eval()
    settings = DetectionSettings(pre_nms_top_n=2000, post_nms_top_n=case["regions"])
    graph = DetectionGraph(detector, settings=settings, size=case["size"], nms_form=FORMS[options.nms])
    path = Path(folder) / "model.onnx"
    path.write_bytes(export_onnx(graph, opset=18, images=1).SerializeToString())
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = options.threads
    return detector, settings, onnxruntime.InferenceSession(str(path), session)


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print a line per network and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", nargs="*", default=["resnet:18", "mobilenet_v2"])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--nms", choices=sorted(FORMS), default="matrix")
    parser.add_argument("--case", nargs="*", choices=sorted(CASES), default=list(CASES))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'':45} {'ORT ms':>8} {'eager':>8} {'torch':>8} {'eager/ORT':>10} {'torch/ORT':>10}")
    for arch in options.arch:
        for name, case in ((name, CASES[name]) for name in options.case):
            with tempfile.TemporaryDirectory() as folder:
                detector, settings, session = build(arch, case, options, folder)
            image = torch.randn(1, 3, *case["size"])
            calls = {
                "ort": lambda: session.run(None, {"input_image": image.numpy()}),  # noqa: B023
                "torch": lambda: detector.detect(image, settings=settings),  # noqa: B023
            }
            taken = {"ort": [], "eager": [], "torch": []}
            for turn in range(options.runs + 2):
                with plain_kernels():
                    eager = seconds(calls["torch"])
                row = {"ort": seconds(calls["ort"]), "eager": eager, "torch": seconds(calls["torch"])}
                if turn > 1:
                    for key, value in row.items():
                        taken[key].append(value)
            middle = {key: 1000 * statistics.median(values) for key, values in taken.items()}
            ratios = [
                statistics.median(a / b for a, b in zip(taken[key], taken["ort"], strict=True))
                for key in ("eager", "torch")
            ]
            label = f"{arch}, {name}: {case['size'][1]}x{case['size'][0]}, {case['regions']} regions"
            print(
                f"{label:45} {middle['ort']:8.1f} {middle['eager']:8.1f} {middle['torch']:8.1f} "
                f"{ratios[0]:10.2f} {ratios[1]:10.2f}"
            )


if __name__ == "__main__":
    main()

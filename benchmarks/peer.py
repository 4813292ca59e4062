"""Our detector and torchvision's Faster R-CNN on the same network, and how the two are compared.

The peer is what one would pick instead: torchvision's `FasterRCNN` with torchvision's ResNet-18 up to stride
16, its stage 4 on every region, the same RPN convolution, anchors, proposal and region counts. Ours has one
1x1 convolution more, the projection that TAO puts on stage 1.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from frcnn.model.backbones import build_backbone
from frcnn.model.detector import DetectionSettings, FasterRCNN

CLASSES = 3
SCALES, RATIOS = (64.0, 128.0, 256.0), (1.0, 0.5, 2.0)
CONTENDERS = ("ours", "torchvision", "torchvision channels_last")
MATRIX_OPS = (
    "convolution",
    "conv2d",
    "addmm",
    "aten::mm",
    "bmm",
    "gemm",
    "wgrad",
    "dgrad",
    "cudnn",
    "cutlass",
    "_Conv3x3",
)
INFERENCE = DetectionSettings()


class _RpnHead(nn.Module):
    """TAO's RPN: 512 hidden channels where torchvision has as many as the feature map."""

    def __init__(self) -> None:
        super().__init__()
        anchors = len(SCALES) * len(RATIOS)
        self.conv = nn.Sequential(nn.Conv2d(256, 512, 3, padding=1), nn.ReLU(inplace=True))
        self.score, self.delta = nn.Conv2d(512, anchors, 1), nn.Conv2d(512, 4 * anchors, 1)

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        hidden = [self.conv(x) for x in maps]
        return [self.score(x) for x in hidden], [self.delta(x) for x in hidden]


def _peer(size: tuple[int, int], rois: int, frozen: list[int]) -> nn.Module:
    network = resnet18()
    blocks = [nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)]
    blocks += [network.layer1, network.layer2, network.layer3]
    for block in frozen:
        blocks[block].requires_grad_(False)
    trunk = nn.Sequential(*blocks)
    trunk.out_channels = 256  # type: ignore[assignment]
    network.layer4[0].conv1.stride = network.layer4[0].downsample[0].stride = (1, 1)
    return TorchvisionFasterRCNN(
        trunk,
        rpn_anchor_generator=AnchorGenerator((SCALES,), (RATIOS,)),
        rpn_head=_RpnHead(),
        box_roi_pool=MultiScaleRoIAlign(["0"], 7, sampling_ratio=1),
        box_head=nn.Sequential(network.layer4, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        box_predictor=FastRCNNPredictor(512, CLASSES + 1),
        min_size=min(size),
        max_size=max(size),
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_pre_nms_top_n_train=12000,
        rpn_post_nms_top_n_train=2000,
        rpn_pre_nms_top_n_test=INFERENCE.pre_nms_top_n,
        rpn_post_nms_top_n_test=INFERENCE.post_nms_top_n,
        box_batch_size_per_image=rois,
        box_score_thresh=INFERENCE.score_threshold,
        box_nms_thresh=INFERENCE.nms_iou,
        box_detections_per_img=INFERENCE.max_detections,
        _skip_resize=True,
    )


def _ours(rois: int, frozen: list[int]) -> FasterRCNN:
    return FasterRCNN(
        backbone=build_backbone("resnet:18", use_pooling=True),
        num_classes=CLASSES,
        anchor_scales=SCALES,
        anchor_ratios=RATIOS,
        roi_sample=rois,
        freeze_blocks=frozen,
    )


def contender(name: str, args: argparse.Namespace, *, training: bool) -> Callable[[], object]:
    """A function that does one training step (forward and backward) or one inference."""
    torch.manual_seed(0)
    height, width = args.size
    images = torch.randn(args.batch, 3, height, width, device=args.device)
    corners = torch.rand(args.batch, 10, 2, 2, device=args.device) * torch.tensor([width, height]).to(images)
    boxes = torch.cat([corners.amin(2), corners.amax(2)], dim=-1)
    labels = torch.randint(CLASSES, (args.batch, 10), device=args.device)
    ours = name == "ours"
    model = _ours(args.rois, args.frozen) if ours else _peer(args.size, args.rois, args.frozen)
    model = model.to(args.device).train(training)
    if name.endswith("channels_last"):
        model = model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    targets = [{"boxes": b, "labels": c + 1} for b, c in zip(boxes, labels, strict=True)]

    def train() -> None:
        model.zero_grad()
        found = model.losses(images, boxes, labels) if ours else model(list(images), targets)
        sum(found.values()).backward()

    @torch.no_grad()
    def infer() -> object:
        return model.detect(images, settings=INFERENCE) if ours else model(list(images))

    return train if training else infer


def seconds(step: Callable[[], object], device: str) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _peak_rss() -> int:
    # Not getrusage: its maximum survives exec and would be the parent's.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def share_outside_matrices(step: Callable[[], object], device: str) -> float:
    """Share of a call's time that is neither convolution nor matrix product, after torch.profiler.

    What a convolution calls, such as Winograd's transforms, belongs to it.
    """
    cuda = device == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as record:
        seconds(step, device)
    total = inside = 0.0
    for event in record.events():
        time = event.self_device_time_total if cuda else event.self_cpu_time_total
        total += time
        inside += time * any(op in name for name in _callers(event) for op in MATRIX_OPS)
    return 1 - inside / total


def _callers(event: FunctionEvent | None) -> Iterator[str]:
    while event is not None:
        yield event.name
        event = event.cpu_parent


def compare(description: str, *, training: bool) -> None:
    """Command line, measurement, table."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", default="384x1248", type=lambda s: tuple(map(int, s.split("x"))))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rois", type=int, default=256, help="regions per image in training")
    parser.add_argument("--steps", type=int, default=5, help="measured rounds, each contender once")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--frozen", default=[], type=lambda s: [int(b) for b in s.split(",") if b])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    parser.add_argument("--memory-of", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        step = contender(args.memory_of, args, training=training)
        for _ in range(2):
            step()
        print(torch.cuda.max_memory_allocated() if args.device == "cuda" else _peak_rss())
        return

    steps = {name: contender(name, args, training=training) for name in CONTENDERS}
    for step in steps.values():
        step()
    rounds = [{name: seconds(step, args.device) for name, step in steps.items()} for _ in range(args.steps)]
    share = share_outside_matrices(steps["ours"], args.device)
    rows = {}
    for name in CONTENDERS:
        command = [sys.executable, *sys.argv, "--memory-of", name]
        peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows[name] = {"seconds": statistics.median(r[name] for r in rounds), "peak_mib": peak / 2**20}
    # Rounds are paired: what disturbs the machine disturbs all contenders of a round.
    ratio = statistics.median(min(v for k, v in r.items() if k != "ours") / r["ours"] for r in rounds)

    print(f"{'':28}{'s':>8}{'peak MiB':>10}")
    for name, row in rows.items():
        print(f"{name:28}{row['seconds']:8.3f}{row['peak_mib']:10.0f}")
    print(f"speed against the better peer layout: {ratio:.3f}x; outside convolution and matmul: {share:.1%}")
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k not in ("json", "memory_of")}
        result = {"settings": settings, "contenders": rows, "ratio": ratio, "share_outside": share}
        args.json.write_text(json.dumps(result | {"torch": torch.__version__}, indent=2) + "\n")

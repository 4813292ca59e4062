"""Greedy non-maximum suppression of batches, in forms for the CPU, for CUDA and for export."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms as torchvision_nms

from frcnn.errors import SpecError
from frcnn.ops.boxes import iou

NmsForm = Literal["auto", "greedy", "blocked", "matrix", "operator"]


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest per row of scores (B, M), descending, ties by position: values and indices (B, k)."""
    if torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export():
        values, indices = torch.topk(scores, k, dim=1)  # ONNX's TopK breaks ties by position
        return values, indices
    values, indices = torch.sort(scores, dim=1, descending=True, stable=True)
    return values[:, :k], indices[:, :k]


def take(values: Tensor, indices: Tensor) -> Tensor:
    """Rows of values (B, M, ...) at indices (B, N): (B, N, ...)."""
    shape = indices.shape + values.shape[2:]
    return values.gather(1, indices.reshape(indices.shape + (1,) * (values.dim() - 2)).expand(shape))


def nms(
    boxes: Tensor,
    scores: Tensor,
    valid: Tensor,
    *,
    iou_threshold: float,
    max_output: int,
    form: NmsForm = "auto",
) -> tuple[Tensor, Tensor]:
    """Keep boxes by falling score unless a kept one overlaps by more than the threshold (IoU without +1).

    Args:
        boxes: (B, M, 4).
        scores: (B, M).
        valid: (B, M) bool; other boxes neither stay nor suppress.
        iou_threshold: strict: IoU equal to it does not suppress.
        max_output: at most so many boxes per image are kept.
        form: "greedy" is torchvision's per image. "blocked" and "matrix" have static shapes and never wait
            for the device; they resolve suppression chains of up to 17 boxes (within 512 neighbours in score,
            or over all), and drop what longer ones leave open. "operator" is greedy as one operator, for
            which an exporter has a word of its own. "auto": greedy on the CPU, else blocked.

    Returns:
        indices (B, max_output) into M by falling score, and which of them count (B, max_output) bool.
    """
    if form == "auto":
        form = "greedy" if boxes.device.type == "cpu" else "blocked"
    try:
        suppress = _FORMS[form]
    except KeyError:
        raise SpecError(
            "unknown form of non-maximum suppression", found=form, allowed=", ".join(_FORMS)
        ) from None
    count = boxes.shape[1]
    ranked, order = top_k(scores.masked_fill(~valid, -torch.inf), count)
    keep = suppress(take(boxes, order), take(valid, order), iou_threshold, max_output)
    best, rank = top_k(ranked.masked_fill(~keep, -torch.inf), min(max_output, count))
    missing = max(max_output - count, 0)
    indices = F.pad(order.gather(1, rank), (0, missing))
    return indices, F.pad(best > -torch.inf, (0, missing))


def _greedy(boxes: Tensor, valid: Tensor, iou_threshold: float, max_output: int) -> Tensor:
    # The tensor forms compare in float32; torchvision's kernel compares with a double.
    threshold = torch.tensor(iou_threshold, dtype=boxes.dtype).item()
    keep = torch.zeros_like(valid)
    for row, image_boxes, count in zip(keep, boxes, valid.sum(1).tolist(), strict=True):
        # What survives in a prefix survives in the whole, and the cost grows with its square: mostly the
        # first 1.5 * max_output boxes are enough.
        prefix = min(max_output * 3 // 2, count)
        while True:
            rank = torch.arange(prefix, 0, -1, dtype=boxes.dtype)
            kept = torchvision_nms(image_boxes[:prefix], rank, threshold)
            if len(kept) >= max_output or prefix == count:
                break
            prefix = min(2 * prefix, count)
        row[kept] = True
    return keep


@torch.library.custom_op("frcnn::suppress", mutates_args=())
def suppress(boxes: Tensor, valid: Tensor, iou_threshold: float, max_output: int) -> Tensor:
    """Which of boxes (B, M, 4), by falling score, stay: (B, M) bool; beyond `max_output` not all."""
    return _greedy(boxes, valid, iou_threshold, max_output)


@suppress.register_fake
def _(boxes: Tensor, valid: Tensor, iou_threshold: float, max_output: int) -> Tensor:
    return torch.empty_like(valid)


def _blocked(boxes: Tensor, valid: Tensor, iou_threshold: float, _: int, *, block: int | None) -> Tensor:
    block = block or boxes.shape[1]
    kept, alive = [], valid
    for start in range(0, boxes.shape[1], block):
        over = iou(boxes[:, start : start + block], boxes[:, start:], plus_one=False) > iou_threshold
        size = over.shape[1]
        candidates, alive = alive[:, :size], alive[:, size:]
        keep = candidates
        inner = over[:, :, :size].triu(1).float()
        # Each round settles one more link of every chain. An odd number: what is still open is dropped.
        for _round in range(17):
            keep = candidates & ~_any_over(keep, inner)
        alive = alive & ~_any_over(keep, over[:, :, size:].float())
        kept.append(keep)
    return torch.cat(kept, dim=1)


def _any_over(keep: Tensor, over: Tensor) -> Tensor:
    """Which of N boxes some kept one of M suppresses: (B, M) bool, (B, M, N) -> (B, N) bool."""
    return torch.bmm(keep.unsqueeze(1).float(), over).squeeze(1) > 0


_FORMS: dict[str, Callable[[Tensor, Tensor, float, int], Tensor]] = {
    "greedy": _greedy,
    "blocked": partial(_blocked, block=512),
    "matrix": partial(_blocked, block=None),
    "operator": suppress,
}

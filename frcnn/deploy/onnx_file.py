"""ONNX files: made of a detection graph, checked, written with what belongs to them, and read."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import onnx
import torch

from frcnn.deploy.graph import INPUT, OUTPUTS, STAGES, DetectionGraph
from frcnn.deploy.graph_texts import PREFIX
from frcnn.errors import RunError

log = logging.getLogger(__name__)


def export_onnx(graph: DetectionGraph, *, opset: int, images: int) -> onnx.ModelProto:
    """The graph in ONNX's standard operators.

    Args:
        graph: to export.
        opset: version of the operator set, 18 at least.
        images: per batch; -1: any number.

    Raises:
        RunError: the exporter failed, or ONNX's checker refuses what it made.
    """
    fixed = images > 0
    # Two images: torch.export takes a number of one for fixed.
    example = graph.eval().example(images if fixed else 2)
    dynamic = None if fixed else ({0: torch.export.Dim("batch", min=1)},)
    try:
        with torch.no_grad(), _quiet():
            program: Any = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[*OUTPUTS, *STAGES],
                dynamic_shapes=dynamic,
                opset_version=opset,
                custom_translation_table=_translations(),
                verbose=False,
            )
        model: onnx.ModelProto = program.model_proto
        inner = list(model.graph.output)[len(OUTPUTS) :]
        del model.graph.output[len(OUTPUTS) :]
        known = {value.name for value in inner}
        others = [value for value in model.graph.value_info if value.name not in known]
        del model.graph.value_info[:]
        model.graph.value_info.extend([*others, *inner])
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        found = str(error).strip().split("\n")[0][:300]
        raise RunError("the graph cannot be exported", where="export", found=found) from error
    return model


def with_metadata(model: onnx.ModelProto, texts: Mapping[str, str]) -> onnx.ModelProto:
    """The model, which keeps texts from now on."""
    onnx.helper.set_model_props(model, {PREFIX + key: text for key, text in texts.items()})
    return model


def versions() -> dict[str, str]:
    """Of the packages that made a file."""
    return {name: version(name) for name in ("onnx", "onnxscript", "onnxruntime")}


def _translations() -> dict[Any, Callable[..., Any]]:
    """ONNX's words for our own operators."""
    import onnxscript

    op: Any = onnxscript.opset18

    def suppress(boxes: Any, valid: Any, iou_threshold: float, max_output: int) -> Any:
        # Scores that only say the order; what is not valid has none above the threshold of zero.
        flags = op.Cast(valid, to=onnx.TensorProto.FLOAT)
        one, middle, last = (op.Constant(value_ints=[axis]) for axis in (1, 1, -1))
        count = op.Shape(flags, start=1, end=2)
        steps = op.CumSum(
            op.Expand(op.Constant(value_floats=[1.0]), count), op.Constant(value_int=0), reverse=1
        )
        scores = op.Unsqueeze(op.Mul(flags, steps), middle)
        chosen = op.NonMaxSuppression(
            boxes,
            scores,
            op.Constant(value_ints=[max_output]),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[0.0]),
        )
        places = op.Gather(chosen, op.Constant(value_ints=[0, 2]), axis=1)
        ones = op.Cast(
            op.Add(op.Squeeze(op.Gather(chosen, one, axis=1), last), one), to=onnx.TensorProto.FLOAT
        )
        kept = op.ScatterND(op.Mul(flags, op.Constant(value_float=0.0)), places, ones)
        return op.Cast(kept, to=onnx.TensorProto.BOOL)

    return {torch.ops.frcnn.suppress.default: suppress}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own commentary."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

"""Detection metrics: matching, average precision, and the evaluator that applies both to a data set."""

from frcnn.metrics.average_precision import OperatingPoint
from frcnn.metrics.evaluator import ClassResult, DetectionEvaluator, EvaluationResult
from frcnn.metrics.verdict import ImageRecord

__all__ = ["ClassResult", "DetectionEvaluator", "EvaluationResult", "ImageRecord", "OperatingPoint"]

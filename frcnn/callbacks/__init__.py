"""What happens around training steps: checkpoints, validation figures, progress, status, an early end."""

from frcnn.callbacks.checkpoint_interval import CheckpointInterval
from frcnn.callbacks.early_stopping import LossEarlyStopping
from frcnn.callbacks.ema import WeightEMA
from frcnn.callbacks.first_batch import FirstBatch
from frcnn.callbacks.optimized import OptimizedMetric
from frcnn.callbacks.progress import TrainingProgress
from frcnn.callbacks.status import StatusWriter
from frcnn.callbacks.validation_map import ValidationMap, ValidationSample

__all__ = [
    "CheckpointInterval",
    "FirstBatch",
    "LossEarlyStopping",
    "OptimizedMetric",
    "StatusWriter",
    "TrainingProgress",
    "ValidationMap",
    "ValidationSample",
    "WeightEMA",
]

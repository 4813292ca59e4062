"""What happens around training steps: checkpoints, validation figures, progress, status, an early end."""

from frcnn.callbacks.checkpoint_interval import CheckpointInterval
from frcnn.callbacks.early_stopping import LossEarlyStopping
from frcnn.callbacks.ema import WeightEMA
from frcnn.callbacks.first_samples import FirstSamples
from frcnn.callbacks.history import History
from frcnn.callbacks.last_words import LastWords
from frcnn.callbacks.lr_monitor import LrMonitor
from frcnn.callbacks.optimized import OptimizedMetric
from frcnn.callbacks.progress import TrainingProgress
from frcnn.callbacks.qat import QuantizationAware
from frcnn.callbacks.stage_times import StageTimes
from frcnn.callbacks.status import StatusWriter
from frcnn.callbacks.tensorboard_media import TensorBoardMedia
from frcnn.callbacks.throughput import Throughput
from frcnn.callbacks.validation_map import ValidationMap, ValidationSample
from frcnn.callbacks.wandb_media import WandbMedia

__all__ = [
    "CheckpointInterval",
    "FirstSamples",
    "History",
    "LastWords",
    "LossEarlyStopping",
    "LrMonitor",
    "OptimizedMetric",
    "QuantizationAware",
    "StageTimes",
    "StatusWriter",
    "TensorBoardMedia",
    "Throughput",
    "TrainingProgress",
    "ValidationMap",
    "ValidationSample",
    "WandbMedia",
    "WeightEMA",
]

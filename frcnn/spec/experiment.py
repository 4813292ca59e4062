"""The root of a TAO FasterRCNN spec file."""

from dataclasses import dataclass

from frcnn.spec.augmentation import AugmentationConfig
from frcnn.spec.dataset import DatasetConfig
from frcnn.spec.evaluation import EvaluationConfig, InferenceConfig
from frcnn.spec.fields import Message, setting
from frcnn.spec.model import ModelConfig
from frcnn.spec.training import TrainingConfig


@dataclass
class Experiment(Message):
    """Everything a TAO FasterRCNN spec file can say."""

    random_seed: int = setting(1, "seed of weights, data order and sampling", default=0)
    verbose: bool = setting(2, "write debug messages to log.txt", default=False)
    model_config: ModelConfig = setting(3, "network", factory=ModelConfig)
    training_config: TrainingConfig = setting(4, "training", factory=TrainingConfig)
    dataset_config: DatasetConfig = setting(5, "data", factory=DatasetConfig)
    enc_key: str = setting(6, "key of encrypted models; never written to a run", default="")
    augmentation_config: AugmentationConfig = setting(7, "images", factory=AugmentationConfig)
    inference_config: InferenceConfig = setting(8, "inference", factory=InferenceConfig)
    evaluation_config: EvaluationConfig = setting(9, "evaluation", factory=EvaluationConfig)

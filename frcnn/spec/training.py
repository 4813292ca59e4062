"""TAO's `training_config` block: targets, losses, optimizer, schedule and what a run reports."""

from dataclasses import dataclass
from enum import IntEnum

from frcnn.spec.fields import Message, Rule, above, at_least, inside, one_of, setting, within

CLEARML = "ClearML is not supported; the run folder and W&B hold the same values"


class RegularizationType(IntEnum):
    """Penalty on the kernels."""

    NO_REG = 0
    L1 = 1
    L2 = 2


class WandBMode(IntEnum):
    """How W&B reaches its server."""

    ONLINE = 0
    OFFLINE = 1
    DISABLED = 2


@dataclass
class RegularizerConfig(Message):
    """Penalty on the kernels of convolutions and dense layers."""

    type: RegularizationType = setting(
        1, "kind of penalty", default=RegularizationType.NO_REG, rule=one_of(*RegularizationType)
    )
    weight: float = setting(2, "weight w of w*|x| or w*x^2; no 1/2", default=0.0, rule=at_least(0))


@dataclass
class AdamOptimizerConfig(Message):
    """Adam as Keras computes it."""

    lr: float = setting(1, "learning rate; the schedule overrides it", default=0.0, rule=at_least(0))
    beta_1: float = setting(2, "decay of the first moment", default=0.9, rule=within(0, 1))
    beta_2: float = setting(3, "decay of the second moment", default=0.999, rule=within(0, 1))
    epsilon: float = setting(4, "added to the root of the second moment", default=1e-7, rule=at_least(0))
    decay: float = setting(5, "divides the rate by 1 + decay * step", default=0.0, rule=at_least(0))
    amsgrad: bool = setting(6, "use the largest second moment so far", default=False)


@dataclass
class SgdOptimizerConfig(Message):
    """SGD as Keras computes it: the learning rate is part of the velocity."""

    lr: float = setting(1, "learning rate; the schedule overrides it", default=0.0, rule=at_least(0))
    momentum: float = setting(2, "momentum", default=0.0, rule=within(0, 1))
    decay: float = setting(3, "divides the rate by 1 + decay * step", default=0.0, rule=at_least(0))
    nesterov: bool = setting(4, "Nesterov momentum", default=False)


@dataclass
class RmspropOptimizerConfig(Message):
    """RMSprop with rho 0.9 and epsilon 1e-7."""

    lr: float = setting(1, "learning rate; the schedule overrides it", default=0.0, rule=at_least(0))


@dataclass
class OptimizerConfig(Message):
    """One optimizer."""

    adam: AdamOptimizerConfig | None = setting(1, "Adam", default=None, oneof="optim")
    sgd: SgdOptimizerConfig | None = setting(2, "SGD", default=None, oneof="optim")
    rmsprop: RmspropOptimizerConfig | None = setting(3, "RMSprop", default=None, oneof="optim")


@dataclass
class SoftStartAnnealingConfig(Message):
    """Linear warm-up, then a division at each annealing point."""

    base_lr: float = setting(1, "learning rate after the warm-up", rule=at_least(0))
    start_lr: float = setting(2, "learning rate of the first step", default=0.0, rule=at_least(0))
    soft_start: float = setting(3, "share of the run that warms up", default=0.0, rule=within(0, 1))
    annealing_points: list[float] = setting(
        4, "shares of the run after which the rate is divided, ascending", factory=list, rule=within(0, 1)
    )
    annealing_divider: float = setting(5, "divisor at each annealing point", default=1.0, rule=above(0))


@dataclass
class StepLrConfig(Message):
    """A staircase: the rate is multiplied by gamma every step_size percent of the run."""

    base_lr: float = setting(1, "learning rate of the first step", rule=at_least(0))
    gamma: float = setting(2, "factor at each step", default=1.0, rule=within(0, 1))
    step_size: float = setting(
        3,
        "length of a step, percent of the run",
        default=100.0,
        rule=Rule("above 0 and at most 100", lambda percent: 0 < percent <= 100),
    )


@dataclass
class LRConfig(Message):
    """One learning rate schedule."""

    soft_start: SoftStartAnnealingConfig | None = setting(
        1, "warm-up and annealing", default=None, oneof="lr_config"
    )
    step: StepLrConfig | None = setting(2, "staircase", default=None, oneof="lr_config")


@dataclass
class EarlyStopping(Message):
    """Ends a run whose training loss no longer falls."""

    monitor: str = setting(1, "value to watch", default="loss", rule=one_of("loss"))
    min_delta: float = setting(2, "smallest fall that counts", default=0.0, rule=at_least(0))
    patience: int = setting(3, "epochs without a fall before stopping", rule=above(0))


@dataclass
class WandBConfig(Message):
    """Weights & Biases; the presence of this block switches it on."""

    enabled: bool = setting(
        1, "accepted", default=False, inert="the presence of wandb_config switches W&B on"
    )
    key: str = setting(2, "accepted", default="", inert="W&B reads its key from WANDB_API_KEY or its netrc")
    project: str = setting(3, "project; empty means frcnn", default="")
    entity: str = setting(4, "user or team", default="")
    reinit: bool = setting(5, "accepted", default=False, inert="each run opens a W&B run of its own")
    name: str = setting(6, "run name; the time is appended", default="")
    tags: list[str] = setting(7, "tags of the run", factory=list)
    wandb_dir: str = setting(8, "accepted", default="", inert="W&B writes into the run folder")
    notes: str = setting(9, "notes of the run", default="")
    mode: WandBMode = setting(
        10, "online, offline or disabled", default=WandBMode.ONLINE, rule=one_of(*WandBMode)
    )


@dataclass
class ClearMLConfig(Message):
    """ClearML; accepted and without effect."""

    project: str = setting(1, "project", default="")
    task: str = setting(2, "task", default="")
    tags: list[str] = setting(3, "tags", factory=list)
    reuse_last_task_id: bool = setting(4, "reuse the last task", default=False)
    continue_last_task: bool = setting(5, "continue the last task", default=False)
    deferred_init: bool = setting(6, "initialise in the background", default=False)


@dataclass
class VisualizerConfig(Message):
    """Dashboards."""

    enabled: bool = setting(1, "write TensorBoard logs, with augmented images", default=False)
    num_images: int = setting(2, "augmented images to log, at most", default=0)
    weight_histograms: bool = setting(3, "TensorBoard: histograms of all weights, every epoch", default=False)
    wandb_config: WandBConfig | None = setting(4, "Weights & Biases", default=None)
    clearml_config: ClearMLConfig | None = setting(5, "accepted", default=None, inert=CLEARML)


@dataclass
class TrainingConfig(Message):
    """How the network is trained."""

    retrain_pruned_model: str = setting(3, "pruned model to train again", default="")
    rpn_min_overlap: float = setting(4, "anchors of at most this IoU are background", rule=inside(0, 1))
    rpn_max_overlap: float = setting(5, "anchors of at least this IoU are objects", rule=within(0, 1))
    classifier_min_overlap: float = setting(
        6, "regions below this IoU are unused", default=0.0, rule=within(0, 1)
    )
    classifier_max_overlap: float = setting(7, "regions of at least this IoU are objects", rule=within(0, 1))
    std_scaling: float = setting(8, "multiplies the RPN's box targets", rule=above(0))
    classifier_regr_std: dict[str, float] = setting(
        9,
        "multiplies the head's box targets x, y, w, h",
        factory=dict,
        keys=("x", "y", "w", "h"),
        rule=above(0),
    )
    pretrained_weights: str = setting(10, "weights to start from", default="")
    num_epochs: int = setting(11, "epochs", rule=above(0))
    output_model: str = setting(
        13, "accepted", default="", inert="checkpoints go to the run folder under frcnn_<arch>.epoch_<n>.ckpt"
    )
    rpn_nms_max_boxes: int = setting(16, "proposals after NMS", rule=above(0))
    rpn_nms_overlap_threshold: float = setting(17, "IoU of the proposals' NMS", rule=inside(0, 1))
    regularizer: RegularizerConfig = setting(20, "penalty on the kernels", factory=RegularizerConfig)
    rpn_pre_nms_top_N: int = setting(35, "proposals before NMS", rule=above(0))
    rpn_mini_batch: int = setting(36, "anchors per image that train the RPN", rule=above(0))
    gt_as_roi: bool = setting(38, "train the head on ground truth boxes too", default=False)
    lambda_rpn_regr: float = setting(39, "weight of the RPN's box loss", rule=above(0))
    lambda_rpn_class: float = setting(40, "weight of the RPN's class loss", rule=above(0))
    lambda_cls_regr: float = setting(41, "weight of the head's box loss", rule=above(0))
    lambda_cls_class: float = setting(42, "weight of the head's class loss", rule=above(0))
    optimizer: OptimizerConfig = setting(43, "optimizer", factory=OptimizerConfig)
    learning_rate: LRConfig = setting(45, "learning rate schedule", factory=LRConfig)
    batch_size_per_gpu: int = setting(46, "images per step and device", rule=at_least(1))
    resume_from_model: str = setting(47, "checkpoint to go on from", default="")
    enable_augmentation: bool = setting(48, "augment the training images", default=False)
    checkpoint_interval: int = setting(49, "epochs between checkpoints", default=1, zero_means=1)
    enable_qat: bool = setting(50, "quantisation-aware training", default=False)
    model_parallelism: list[float] = setting(
        51, "share of the layers on each device of a process", factory=list, rule=above(0)
    )
    early_stopping: EarlyStopping | None = setting(52, "early stopping", default=None)
    visualizer: VisualizerConfig | None = setting(53, "dashboards", default=None)

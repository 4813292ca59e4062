"""What TAO has no word for: how a run behaves, on which devices, and where it reports."""

import re
from dataclasses import dataclass
from typing import Any

from frcnn.spec.experiment import Experiment
from frcnn.spec.fields import Message, Rule, at_least, one_of, setting, settings_of


def option(doc: str, **rest: Any) -> Any:
    """Declare a setting that has no place, and so no number, in TAO's schema."""
    return setting(0, doc, **rest)


PART = Rule(
    "a share such as 0.1 or 1.0, or a whole number of batches",
    lambda text: bool(re.fullmatch(r"0?\.\d*[1-9]\d*|1\.0*|[1-9]\d*", text)),
)


@dataclass
class Natural(Message):
    """What suits a data set; conf/dataset files set it and conf/model reads it."""

    height: int = option("height of the network input, pixels", default=0)
    width: int = option("width of the network input, pixels", default=0)
    scale: list[float] = option("anchor scales, pixels", factory=list)
    pool_size: int = option("side of the region crops, feature cells", default=7)
    roi_mini_batch: int = option("regions per image that train the head", default=256)
    proposals: int = option("proposals per image in evaluation", default=300)


@dataclass
class Run(Message):
    """How a run behaves."""

    name: str = option("name of the run; empty means arch and data set", default="")
    source: str = option("data set or spec that the settings come from; part of the name", default="")
    data_root: str = option("folder that holds the data set of conf/dataset", default="")
    model_path: str = option(
        "model to evaluate, infer with, prune or quantise; given as model_path=FILE", default=""
    )
    compare: list[str] = option("parity: the two model files; given as parity.py FIRST SECOND", factory=list)
    generate: str = option("data set to draw before training: toy", default="", rule=one_of("", "toy"))
    natural: Natural = option("what suits the data set", factory=Natural)
    mounts: dict[str, str] = option("prefixes of a spec's paths and where they are here", factory=dict)
    difficult: str = option(
        "ignore: difficult objects do not count in evaluation; none: they do",
        default="ignore",
        rule=one_of("ignore", "none"),
    )
    ignore_classes: list[str] = option(
        "names in the labels, such as dontcare, whose boxes are areas to ignore", factory=list
    )
    allow_missing_labels: bool = option("KITTI: images without a label file have no objects", default=False)
    allow_label_scores: bool = option("KITTI: labels may have a score in column 16", default=False)
    tao_quirks: bool = option("the original's conventions where its manual says otherwise", default=False)
    num_workers: int = option("loader processes; -1: by the number of cores", default=-1, rule=at_least(-1))
    resume: str = option(
        "last: go on from the last checkpoint; auto: if there is one, else begin",
        default="",
        rule=one_of("", "last", "auto"),
    )
    save_every_n_steps: int = option(
        "optimizer steps between two updates of last.ckpt within an epoch; 0: none",
        default=0,
        rule=at_least(0),
    )
    ema_decay: float = option(
        "decay of a moving average of the weights, which is validated and stored, such as 0.999; 0: none",
        default=0.0,
        rule=Rule("0, or a share below 1", lambda decay: 0 <= decay < 1),
    )
    channels_last: bool = option("interleaved channels in memory, which convolutions prefer", default=True)
    compile: bool = option("compile trunk, RPN and head with torch.compile", default=False)
    deterministic: bool = option(
        "the same weights to the last bit from the same settings on the same device; costs time on a GPU",
        default=False,
    )
    auto_batch: bool = option(
        "find the largest batch that fits into memory; batch_size_per_gpu is set to it", default=False
    )
    keep_checkpoints: int = option("numbered checkpoints that stay; 0: all", default=0, rule=at_least(0))
    spec_folder: str = option("folder of the spec; relative paths are tried there too", default="")
    overwrite: bool = option("replace a run that the folder holds", default=False)
    stride_on_3x3: bool = option(
        "bottlenecks of ResNets stride as torchvision's do, not on the first 1x1 as TAO's", default=False
    )
    relu6: bool = option("ReLUs end at 6, as in torchvision's and timm's MobileNets", default=False)
    only_classes: list[str] = option("infer: classes to draw and write; none: all", factory=list)
    draw: bool = option(
        "infer: write annotated images, which takes longer than finding objects", default=True
    )
    optimize: str = option(
        "metric that train returns and a sweep looks at: any that is logged, such as train/loss_epoch",
        default="val/mAP",
    )
    encrypt_checkpoints: bool = option(
        "checkpoints are encrypted with enc_key, as .ckpt.enc, which every command opens with it",
        default=False,
    )
    log_checkpoints: bool = option("W&B: keep the best and the last checkpoint as an artifact", default=False)
    check_steps: int = option(
        "check: training steps to time; 0: neither time nor memory is measured", default=3, rule=at_least(0)
    )
    check_decode: bool = option("check: decode every image, not only its header", default=False)
    dry_run: bool = option("describe the network and stop", default=False)
    debug: bool = option("show stack traces", default=False)


@dataclass
class Trainer(Message):
    """Devices and precision, in Lightning's words; epochs and periods are TAO's fields."""

    accelerator: str = option("kind of device", default="auto", rule=one_of("auto", "cpu", "gpu", "mps"))
    devices: str = option("auto, a number, or a list such as '0,2'", default="auto")
    processes: int = option(
        "processes that share a machine's devices, refused if they cannot; 0: as many as devices and "
        "model_parallelism make",
        default=0,
        rule=at_least(0),
    )
    num_nodes: int = option("machines", default=1, rule=at_least(1))
    strategy: str = option("how devices share the work", default="auto", rule=one_of("auto", "ddp"))
    precision: str = option(
        "precision of the network", default="32-true", rule=one_of("32-true", "bf16-mixed", "16-mixed")
    )
    gradient_clip_val: float = option("largest gradient norm; 0 means any", default=0.0, rule=at_least(0))
    sync_batchnorm: bool = option(
        "batch norm's statistics in training are those of all devices together", default=False
    )
    accumulate_grad_batches: int = option("batches per optimizer step", default=1, rule=at_least(1))
    limit_train_batches: str = option("1.0: all, 0.1: a tenth, 10: ten batches", default="1.0", rule=PART)
    limit_val_batches: str = option("likewise in validation", default="1.0", rule=PART)


@dataclass
class Logger(Message):
    """Where metrics go besides the console."""

    csv: bool = option("metrics.csv in the run folder", default=False)
    tensorboard: bool = option("TensorBoard files in the run folder", default=False)
    wandb: bool = option("Weights & Biases, as visualizer.wandb_config says", default=False)


@dataclass
class Prune(Message):
    """How channels are pruned; TAO's options of its command `prune`."""

    threshold: float = option("filters whose strength does not exceed it go", default=0.1, rule=at_least(0))
    normalizer: str = option(
        "what the norms of a layer's filters are divided by: the largest, or their L2 norm over their number",
        default="max",
        rule=one_of("max", "L2"),
    )
    equalization_criterion: str = option(
        "strength of a channel that several layers have to keep together",
        default="union",
        rule=one_of("union", "intersection", "arithmetic_mean", "geometric_mean"),
    )
    granularity: int = option(
        "filters that stay are rounded up to a multiple of it", default=8, rule=at_least(1)
    )
    min_num_filters: int = option(
        "fewest filters that stay in a layer, where it has as many", default=16, rule=at_least(1)
    )
    excluded_layers: list[str] = option("layers that keep all of their filters", factory=list)
    target_ratio: float = option(
        "share of the network to leave, such as 0.2; the threshold is searched. 0: the threshold counts",
        default=0.0,
        rule=Rule("0, or a share below 1", lambda share: 0 <= share < 1),
    )
    target: str = option(
        "what target_ratio is a share of", default="parameters", rule=one_of("parameters", "flops")
    )
    sensitivity: bool = option("measure mAP over thresholds, without retraining", default=False)
    output_file: str = option("pruned checkpoint; empty: pruned.ckpt in the run folder", default="")


@dataclass
class Quantize(Message):
    """How weights and activations are quantised to int8, after a training or, with `enable_qat`, in it."""

    method: str = option(
        "what a calibration takes as the range of an activation",
        default="entropy",
        rule=one_of("max", "entropy", "percentile", "mse"),
    )
    percentile: float = option(
        "per cent of the values that method percentile keeps",
        default=99.99,
        rule=Rule("above 0, at most 100", lambda percent: 0 < percent <= 100),
    )
    batches: int = option("batches of images that a calibration sees", default=10, rule=at_least(1))
    image_dir: str = option(
        "images to calibrate with, a folder, list or pattern; empty: the training images", default=""
    )
    skip: list[str] = option(
        "layers that stay in float; NAME_entry: what is added to the output of layer NAME", factory=list
    )
    ranges: str = option(
        "enable_qat: averaged over the steps, learned, or fixed as calibrated",
        default="averaged",
        rule=one_of("averaged", "learned", "fixed"),
    )
    freeze_at: float = option(
        "enable_qat: share of the training after which ranges and batch norm's statistics stay as they are",
        default=0.8,
        rule=Rule("a share from 0 to 1", lambda share: 0 <= share <= 1),
    )
    output_file: str = option("quantised checkpoint; empty: quantized.ckpt in the run folder", default="")


@dataclass
class Export(Message):
    """How a checkpoint is exported; options of TAO's command `export` among them."""

    output_file: str = option("the model; empty: model.onnx in the run folder", default="")
    data_type: str = option(
        "precision: fp16 writes a half-precision graph, int8 a second file with Q/DQ nodes",
        default="fp32",
        rule=one_of("fp32", "fp16", "int8"),
    )
    batch_size: int = option(
        "images per batch of the graph; -1: any number",
        default=-1,
        rule=Rule("-1, or a whole number from 1", lambda size: size == -1 or size > 0),
    )
    opset: int = option(
        "version of ONNX's operators",
        default=18,
        rule=Rule("a whole number from 18 to 23", lambda version: 18 <= version <= 23),
    )
    nms: str = option(
        "matrix: plain tensors, for TensorRT and all others; standard: ONNX's NonMaxSuppression",
        default="matrix",
        rule=one_of("matrix", "standard"),
    )
    preprocess: bool = option("the graph takes uint8 pixels and subtracts the means itself", default=False)
    height: int = option("height of the input of a model of size_min", default=0, rule=at_least(0))
    width: int = option("its width", default=0, rule=at_least(0))
    parity: bool = option("compare the file with the checkpoint, and fail where they part", default=True)
    parity_images: int = option("images to compare stage by stage", default=8, rule=at_least(1))
    cal_image_dir: str = option(
        "int8: images to calibrate with, a folder, list or pattern; empty: the training images", default=""
    )
    cal_data_file: str = option("int8: tensorfile to calibrate with; written where there is none", default="")
    batches: int = option("int8: batches of a calibration", default=10, rule=at_least(1))
    cal_batch_size: int = option("int8: images of each", default=16, rule=at_least(1))
    cal_cache_file: str = option(
        "int8: calibration cache for TensorRT up to 10; empty: cal.bin beside the model", default=""
    )
    cal_json_file: str = option("int8: the same ranges as JSON; empty: cal.json beside it", default="")
    cal_version: int = option(
        "int8: version of TensorRT in the cache's first line: 8501 is 8.5.1, 100300 is 10.3.0",
        default=100300,
        rule=at_least(1),
    )
    force_ptq: bool = option("int8: calibrate, whatever ranges the checkpoint has", default=False)
    at_end: bool = option("export the best checkpoint at the end of a training", default=False)
    encrypt: bool = option("the model is encrypted with enc_key, as .onnx.enc", default=False)
    engine_file: str = option("TensorRT engine to build of the model; empty: none", default="")
    min_batch_size: int = option("engine: fewest images of a call", default=1, rule=at_least(1))
    opt_batch_size: int = option("engine: images of a call to be fastest for", default=1, rule=at_least(1))
    max_batch_size: int = option("engine: most images of a call", default=1, rule=at_least(1))
    max_workspace_size: int = option(
        "engine: memory of the network, bytes", default=2 << 30, rule=at_least(1 << 20)
    )
    strict_type_constraints: bool = option("engine: no type but data_type, on TensorRT 10", default=False)


@dataclass
class App(Experiment):
    """The whole tree of settings: a TAO experiment and what stands beside it."""

    run: Run = option("how the run behaves", factory=Run)
    trainer: Trainer = option("devices and precision", factory=Trainer)
    logger: Logger = option("where metrics go", factory=Logger)
    prune: Prune = option("how channels are pruned", factory=Prune)
    export: Export = option("how a model is exported", factory=Export)
    quantize: Quantize = option("how the network is quantised", factory=Quantize)

    @classmethod
    def of(cls, spec: Experiment, *, run: Run | None = None, trainer: Trainer | None = None) -> "App":
        """A spec with what stands beside it; defaults for what is not given."""
        app = cls(run=run or Run(), trainer=trainer or Trainer())
        for field in settings_of(Experiment):
            setattr(app, field.name, getattr(spec, field.name))
        return app

    def origins(self) -> dict[str, str]:
        """Where values come from, by path, for people to read; filled in by the entry point."""
        return self.__dict__.setdefault("_origins", {})  # type: ignore[no-any-return]

    def experiment(self) -> Experiment:
        """TAO's part, without the key, which is written nowhere."""
        spec = Experiment(**{field.name: getattr(self, field.name) for field in settings_of(Experiment)})
        spec.enc_key = ""
        return spec

"""The table of verbs: TAO's, with its flags as documented and as implemented, and ours."""

from dataclasses import dataclass

from frcnn.cli.flags import Flag

SPEC = Flag(
    ("-e", "--experiment_spec", "--experiment_spec_file"),
    "TAO spec file, or a YAML one",
    "FILE",
    sets=("spec={raw}",),
)
KEY = Flag(
    ("-k", "--key", "--enc_key"),
    "key of encrypted files; in $FRCNN_ENC_KEY it is in no process list",
    "KEY",
    sets=("enc_key='{raw}'",),
)
RESULTS = Flag(
    ("-r", "--results_dir"),
    "folder of the run, with status.json; default: results/...",
    "DIR",
    sets=("-r", "{raw}"),
)
MODEL = Flag(
    ("-m", "--model_path", "--model"),
    "checkpoint (.ckpt); else the one that the spec names",
    "FILE",
    sets=("model_path={raw}",),
    was="a .tlt or .hdf5 file, which `frcnn import_weights` turns into a checkpoint (.hdf5)",
)
VERBOSE = Flag(("-v", "--verbose"), "debug messages in log.txt", sets=("verbose=true",))

LAUNCH = (
    Flag(("--gpus",), "GPUs to use; train and evaluate take more than one", "G", was="train only"),
    Flag(
        ("--gpu_index",),
        "which GPUs: as many numbers as --gpus says, counted among those that CUDA_VISIBLE_DEVICES leaves",
        "I ...",
        was="replaces CUDA_VISIBLE_DEVICES",
    ),
    Flag(
        ("--num_processes", "-np"),
        "processes; -1: one per GPU. Fewer: each has several GPUs, as model_parallelism splits the network",
        "N",
    ),
    Flag(("--use_amp",), "mixed precision, train only (trainer.precision=16-mixed)"),
    Flag(("--log_file",), "append everything that is said to this file instead of showing it", "FILE"),
    Flag(("--launch_cuda_blocking",), "wait for each CUDA kernel, to find the one that fails"),
    Flag(
        ("--multi-node",),
        "several machines",
        inert="torchrun or srun starts `frcnn train ... trainer.num_nodes=N` on every machine",
    ),
    Flag(("--mpirun-arg",), "arguments of mpirun", "TEXT", inert="processes are started without MPI"),
)
"""Flags of the original's wrapper around every task."""

PRUNE = (
    MODEL,
    Flag(
        ("-o", "--output_file"),
        "pruned checkpoint; another suffix becomes .ckpt, as is said",
        "FILE",
        sets=("prune.output_file={}",),
        was="a .hdf5 file",
        suffix=".ckpt",
    ),
    KEY,
    SPEC,
    Flag(("-n", "--normalizer"), "max or L2", "NAME", sets=("prune.normalizer={}",)),
    Flag(
        ("-eq", "--equalization_criterion"),
        "union, intersection, arithmetic_mean or geometric_mean",
        "NAME",
        sets=("prune.equalization_criterion={}",),
    ),
    Flag(("-pg", "--pruning_granularity"), "filters stay in multiples of it", "N", ("prune.granularity={}",)),
    Flag(
        ("-pth", "--pruning_threshold"), "filters that do not exceed it go", "SHARE", ("prune.threshold={}",)
    ),
    Flag(("-nf", "--min_num_filters"), "fewest that stay in a layer", "N", ("prune.min_num_filters={}",)),
    Flag(
        ("-el", "--excluded_layers"),
        "layers that keep all filters",
        "NAME ...",
        sets=("prune.excluded_layers={}",),
        was="a name that does not exist is accepted",
    ),
    RESULTS,
    VERBOSE,
)

CONVERT = (
    Flag(("-d", "--dataset_export_spec", "--dataset_spec"), "dataset_convert spec", "FILE"),
    Flag(("-o", "--output_filename"), "folder and stem of the records", "OUT"),
    Flag(("-f", "--validation_fold"), "fold that the sample modifier leaves as it is", "N"),
    Flag(("-r", "--results_dir"), "folder for status.json and the report", "DIR"),
    Flag(("-v", "--verbose"), "tell more, with stack traces of errors"),
    Flag(("--allow-missing-labels",), "images without a label file have no objects"),
    Flag(("--allow-scores",), "accept labels with a 16th column"),
    Flag(("--mount",), "FROM=TO: where a container's path is here", "FROM=TO"),
    Flag(("--processes",), "default: one per core", "N"),
)


EXPORT = (
    MODEL,
    Flag(
        ("-o", "--output_file"),
        "the model; another suffix becomes .onnx, as is said; default: model.onnx in the run folder",
        "FILE",
        sets=("export.output_file={}",),
        was="stem of the model; the manual says .etlt",
        suffix=".onnx",
    ),
    KEY,
    SPEC,
    Flag(
        ("--gen_ds_config",),
        "files for DeepStream",
        inert="labels.txt and nvinfer_config.txt are always written",
    ),
    Flag(("--target_opset",), "version of ONNX's operators, 18 to 23", "N", ("export.opset={}",), was="12"),
    Flag(("--static_batch_size",), "images per batch; -1: any number", "N", ("export.batch_size={}",)),
    Flag(("--data_type",), "fp32, fp16 or int8", "TYPE", ("export.data_type={}",)),
    Flag(
        ("--cal_json_file",),
        "scales as JSON, to be written; default: cal.json beside the model",
        "FILE",
        sets=("export.cal_json_file={}",),
    ),
    Flag(
        ("--cal_cache_file",),
        "calibration cache, to be written for TensorRT 10; default: cal.bin beside the model",
        "FILE",
        sets=("export.cal_cache_file={}",),
        was="an old one is silently used again",
    ),
    Flag(("--cal_image_dir",), "images to calibrate with", "DIR", sets=("export.cal_image_dir={}",)),
    Flag(
        ("--cal_data_file",),
        "tensorfile to calibrate with; written where there is none",
        "FILE",
        sets=("export.cal_data_file={}",),
    ),
    Flag(("--batches",), "batches of a calibration", "N", sets=("export.batches={}",)),
    Flag(("--batch_size",), "images of each", "N", sets=("export.cal_batch_size={}",)),
    Flag(("--force_ptq",), "calibrate, whatever scales a QAT model has", sets=("export.force_ptq=true",)),
    Flag(("--engine_file",), "TensorRT engine to build too", "FILE", sets=("export.engine_file={}",)),
    Flag(("--min_batch_size",), "engine: fewest images", "N", sets=("export.min_batch_size={}",)),
    Flag(("--opt_batch_size",), "engine: what to be fastest for", "N", sets=("export.opt_batch_size={}",)),
    Flag(("--max_batch_size",), "engine: most images", "N", sets=("export.max_batch_size={}",)),
    Flag(
        ("--max_workspace_size",),
        "engine: memory, bytes",
        "BYTES",
        sets=("export.max_workspace_size={}",),
    ),
    Flag(
        ("-s", "--strict_type_constraints"),
        "engine: no type but --data_type, TensorRT 10",
        sets=("export.strict_type_constraints=true",),
    ),
    Flag(("--onnx_route",), "way to ONNX", "NAME", inert="there is one"),
    RESULTS,
    VERBOSE,
)

ENGINE = (
    Flag(("--data_type", "-t"), "fp32, fp16 or int8; fp32 leaves a typed graph as it is", "TYPE"),
    Flag(
        ("--engine_file",),
        "engine to write; default: beside the graph",
        "FILE",
        was="nothing is built without it",
    ),
    Flag(("--min_batch_size",), "fewest images of a call", "N"),
    Flag(("--opt_batch_size",), "what to be fastest for; default: the most", "N"),
    Flag(("--max_batch_size",), "most images of a call", "N"),
    Flag(("--max_workspace_size",), "memory for the network, GiB", "GIB"),
    Flag(("--cal_cache_file", "-c"), "int8 scales of an export, for TensorRT 10", "FILE"),
    Flag(("--cal_json_file",), "the same as JSON", "FILE"),
    Flag(("--strict_type_constraints", "-s"), "TensorRT 10: no other type than --data_type"),
    Flag(("--batch_size", "-b"), "of a calibration", "N", inert="engines are built of scales that are there"),
    Flag(("--batches",), "of a calibration", "N", inert="engines are built of scales that are there"),
    Flag(
        ("--force_ptq",), "leave scales of a training out", inert="the export decides which scales there are"
    ),
    *(
        Flag((name,), doc, value, refused="frcnn export --data_type int8 writes the cache for -c")
        for name, doc, value in (
            ("--cal_image_dir", "images to calibrate with", "DIR"),
            ("--cal_data_file", "tensorfile to calibrate with", "FILE"),
        )
    ),
    Flag(("--dla_core", "-u"), "core of a DLA", "CORE"),
    Flag(("--library",), "tensorrt or tensorrt_rtx; default: the first that is installed", "NAME"),
    Flag(("--timing_cache",), "timings, read and written: later builds are faster", "FILE"),
    Flag(("--hardware",), "other devices that it should run on", "NAME"),
    Flag(("--version_compatible",), "runs on later versions of the same first number"),
    Flag(("--optimization_level",), "0 builds fastest, 5 runs fastest", "LEVEL"),
    Flag(("--compute_capability",), "RTX: device to build for; repeat it for several", "8.6"),
    Flag(("--no_tf32",), "multiply fp32 as fp32"),
    Flag(("--results_dir", "-r"), "folder for status.json", "DIR"),
    Flag(("--verbose", "-v"), "all that the library says, stack traces"),
    Flag(("--key", "-k", "--enc_key"), "of an .onnx.enc file", "KEY"),
)
"""What both builders of engines take."""

GEN_TRT_ENGINE = (
    Flag(("--model_path", "-m", "--model"), ".onnx file of an export", "FILE", was=".onnx, .uff or .etlt"),
    Flag(
        ("--experiment_spec", "-e", "--experiment_spec_file"),
        "experiment spec",
        "FILE",
        inert="the graph has all of it in itself",
    ),
    *ENGINE,
)

CONVERTER = (
    Flag(("-e",), "engine to write; default: beside the graph", "FILE"),
    Flag(("-d",), "C,H,W of the input, compared with the graph's", "DIMS"),
    Flag(("-o",), "outputs, compared with the graph's; NMS is nms_out", "NAMES"),
    Flag(("-i",), "only nchw there is", "ORDER", was="nchw, nhwc or nc"),
    Flag(("-m",), "most images of a call", "N"),
    Flag(("-w",), "memory for the network, bytes", "BYTES"),
    Flag(("-p",), "NAME,MIN,OPT,MAX: shapes such as 1x3x384x1248; once per input", "PROFILE"),
    Flag(("--model_path", "--model"), "the graph, if it is not the argument", "FILE"),
    *ENGINE,
)


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    Attributes:
        name: the verb.
        doc: one line.
        flags: its own flags.
        command: the command of conf/ that it runs, or "".
        module: else the module whose `main` takes the arguments.
        aliases: other names.
        tao: whether it is one of TAO's, with the launcher's flags and its last line.
        usage: what comes after the flags.
    """

    name: str
    doc: str
    flags: tuple[Flag, ...]
    command: str = ""
    module: str = ""
    aliases: tuple[str, ...] = ()
    tao: bool = False
    usage: str = "[group=choice ...] [setting=value ...]"

    @property
    def all_flags(self) -> tuple[Flag, ...]:
        """Its own flags and the launcher's."""
        return self.flags + (LAUNCH if self.tao else ())


VERBS = (
    Verb("train", "train a detector", (SPEC, KEY, RESULTS), "train", tao=True),
    Verb(
        "evaluate",
        "evaluate a checkpoint on its validation data",
        (
            SPEC,
            KEY,
            MODEL,
            RESULTS,
            Flag(
                ("-i", "--image_dir"),
                "folder of images to evaluate on, with -l",
                "DIR",
                sets=("dataset_config.validation_data_source.image_directory_path={}",),
                was="ignored, except by the TensorRT package",
            ),
            Flag(
                ("-l", "--label_dir"),
                "their KITTI labels; also records, COCO .json or VOC",
                "DIR",
                sets=("dataset_config.validation_data_source.tfrecords_path={}",),
                was="ignored, except by the TensorRT package",
            ),
            Flag(
                ("-b", "--batch_size"),
                "images per batch",
                "N",
                sets=("evaluation_config.batch_size={}",),
                was="ignored, except by the TensorRT package",
            ),
        ),
        "evaluate",
        tao=True,
    ),
    Verb(
        "inference",
        "detect objects in images",
        (
            SPEC,
            KEY,
            MODEL,
            RESULTS,
            Flag(
                ("-i", "--image_dir"),
                "images, or inference_config.images_dir of the spec",
                "DIR",
                sets=("images={raw}",),
                was="the TensorRT package only",
            ),
            Flag(
                ("-b", "--batch_size"),
                "images per batch",
                "N",
                sets=("inference_config.batch_size={}",),
                was="the TensorRT package only",
            ),
        ),
        "infer",
        aliases=("infer",),
        tao=True,
    ),
    Verb("prune", "cut weak channels out of a network", PRUNE, "prune", tao=True),
    Verb("export", "export a checkpoint as ONNX, with what runs it", EXPORT, "export", tao=True),
    Verb(
        "dataset_convert",
        "convert a KITTI or COCO data set to TFRecords",
        CONVERT,
        module="frcnn.convert",
        aliases=("convert_dataset",),
        tao=True,
        usage="[path=value ...]",
    ),
    Verb(
        "gen_trt_engine",
        "build a TensorRT engine of an export, with the flags of the deploy package",
        GEN_TRT_ENGINE,
        module="frcnn.build_engine",
        tao=True,
        usage="",
    ),
    Verb(
        "converter",
        "the same with the flags of tao-converter",
        CONVERTER,
        module="frcnn.build_engine",
        aliases=("build_engine",),
        tao=True,
        usage="ONNX",
    ),
    Verb(
        "quantize",
        "calibrate a network for int8",
        (MODEL, KEY, SPEC, RESULTS, VERBOSE),
        "quantize",
    ),
    Verb(
        "parity",
        "compare two model files, stage by stage",
        (KEY, SPEC, RESULTS, VERBOSE),
        "parity",
        usage="FIRST SECOND [setting=value ...]",
    ),
    Verb(
        "check",
        "say whether something will train, without training",
        (SPEC, KEY, RESULTS, Flag(("--json",), "the findings as JSON")),
        module="frcnn.entry.check",
        usage="[fix=anchors] [group=choice ...] [setting=value ...]",
    ),
    Verb(
        "convert_spec",
        "convert a spec between TAO's text and YAML",
        (
            Flag(("--full",), "write every value to YAML, defaults too"),
            Flag(("--no-check",), "convert whatever parses"),
            Flag(("-r", "--results_dir"), "folder for status.json", "DIR"),
        ),
        module="frcnn.bridge.convert",
        usage="IN OUT",
    ),
    Verb(
        "import_weights",
        "make a checkpoint of a TAO detector (.hdf5) or of a backbone's weights",
        (
            Flag(("-e", "--spec", "--experiment_spec"), "experiment spec; spec=FILE is the same", "FILE"),
            Flag(("-k", "--key", "--enc_key"), "of an encrypted checkpoint", "KEY"),
            Flag(("-r", "--results_dir"), "folder for status.json", "DIR"),
            Flag(("-v", "--verbose"), "stack traces of errors"),
            Flag(("--overwrite",), "replace OUT.ckpt if it is there"),
        ),
        module="frcnn.import_weights",
        usage="IN OUT.ckpt [spec=FILE] [path=value ...]",
    ),
    Verb(
        "preview_augmentation",
        "draw what augmentation does to training images",
        (SPEC, RESULTS),
        "preview_augmentation",
    ),
)


def find(name: str) -> Verb | None:
    """The verb of that name or alias."""
    return next((verb for verb in VERBS if name in (verb.name, *verb.aliases)), None)

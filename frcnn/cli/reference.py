"""The generated page docs/tao-words.md: `python -m frcnn.cli.reference > docs/tao-words.md`."""

import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from frcnn.cli.flags import Flag
from frcnn.cli.verbs import LAUNCH, VERBS
from frcnn.spec.dataset_export import DatasetExportConfig
from frcnn.spec.experiment import Experiment
from frcnn.spec.fields import Message, Setting, messages_below, settings_of

HEAD = """# TAO's words, one by one

Every command, flag, file and spec field of TAO FasterRCNN, and what it is here. Generated from the code by
`python -m frcnn.cli.reference`; do not edit. [migrating-from-tao.md](migrating-from-tao.md) says what
differs, with reasons.

- **works**: as it is.
- **better**: works, and differs as the row says.
- **no effect**: accepted, for the reason in the row, and said when it is used.
- **not here**: refused, for the reason in the row.
"""


class Row(NamedTuple):
    """A word of TAO's."""

    word: str
    state: str
    here: str
    proof: str = ""  # test that shows it, if it has one of its own


WRAPPER = (
    Row("`tao faster_rcnn TASK`, `faster_rcnn TASK`", "works", "`frcnn TASK`", "test_cli_flags.py"),
    Row(
        "`train`, `evaluate`, `inference`, `prune`, `export`, `dataset_convert`",
        "works",
        "same",
        "test_cli_flags.py",
    ),
    Row(
        "`gen_trt_engine`, `tao-converter`",
        "works",
        "`frcnn gen_trt_engine`, `frcnn converter`",
        "test_cli_flags.py",
    ),
    Row("`Execution status: PASS`", "works", "last line where TAO's flags are used", "test_cli_runs.py"),
    Row(
        "`Execution status: FAIL`",
        "better",
        "whenever the command failed; the exit code too",
        "test_cli_flags.py",
    ),
    Row(
        "exit code 0 after an error",
        "not here",
        "0 done, 1 failed, 2 wrong input, 130 interrupted",
        "test_cli_flags.py",
    ),
    Row("misspelled flags", "not here", "an error with the nearest names, not silence", "test_cli_flags.py"),
    Row("`~/.tao_mounts.json`", "works", "also `run.mounts`", "test_paths.py"),
    Row("`DATA_BASE_PATH`", "works", "also the working directory and the spec's folder", "test_paths.py"),
    Row("docker image", "better", "`pip install`, or the Dockerfile of this repository", "test_package.py"),
)

FILES = (
    Row("experiment spec (`.txt`)", "works", "`-e FILE` or `spec=FILE`; also as YAML", "test_prototxt.py"),
    Row("dataset_convert spec", "works", "`-d FILE`", "test_convert_dataset.py"),
    Row("specs of TLT 1.x, 2.x and of other networks", "not here", "named as such", "test_prototxt.py"),
    Row("KITTI folders", "works", "training without conversion too", "test_kitti.py"),
    Row("TFRecords, `-fold-000-of-002-shard-...`", "works", "read and written", "test_tfrecord.py"),
    Row(
        "`.hdf5` model", "better", "`frcnn import_weights` makes a checkpoint of it", "test_import_weights.py"
    ),
    Row("`.h5` weights", "works", "`pretrained_weights`", "test_keras_hdf5.py"),
    Row(
        "`.tlt` model",
        "not here",
        "encryption is closed; decode it in the original container",
        "test_keras_hdf5.py",
    ),
    Row("`.etlt`, `.uff`", "not here", "only the toolkit that wrote them reads them", "test_build_engine.py"),
    Row(
        "`frcnn_<arch>.epoch_<n>.hdf5`",
        "better",
        "`checkpoints/frcnn_<arch>.epoch_<n>.ckpt`",
        "test_cli_runs.py",
    ),
    Row(
        "`.engine`, `.trt`",
        "better",
        "built here for TensorRT 10 and later; old ones do not load",
        "test_build_engine.py",
    ),
    Row("`cal.bin`, calibration cache", "works", "`-c`, TensorRT 10 only", "test_build_engine.py"),
    Row("`.onnx` of an export", "better", "standard operators only; settings inside", "test_export.py"),
    Row(
        "`.onnx` of the original's",
        "not here",
        "needs plugins that TensorRT 11 removed",
        "test_onnx_runtime.py",
    ),
    Row("`cal.tensorfile`", "works", "`--cal_data_file`, read and written", "test_int8.py"),
    Row("JSON of QAT scales", "works", "`--cal_json_file`", "test_int8.py"),
    Row("`labels.txt`, `nvinfer_config.txt`", "works", "with every export", "test_export.py"),
    Row("`status.json`", "works", "same states and keys", "test_status_lines.py"),
    Row("KITTI labels of inference", "works", "16 columns, the score last", "test_detection_files.py"),
    Row("`PR_curve.png`", "better", "`report/`, one per IoU threshold", "test_evaluation.py"),
    Row("`logs/` of TensorBoard", "better", "`tensorboard/`; a resumed run goes on", "test_dashboards.py"),
)

BETTER = {
    "ModelConfig.freeze_blocks": "freezes batch normalisation of the blocks too; blocks of the head work",
    "InputImageConfig.size_min": "any batch size",
    "Activation.activation_type": "relu or swish",
    "TrainingConfig.std_scaling": "scales targets as well as predictions",
    "TrainingConfig.pretrained_weights": "also torchvision's and timm's; what does not fit is listed",
    "TrainingConfig.resume_from_model": "bit for bit, with optimizer, schedule and data order; any file name",
    "TrainingConfig.retrain_pruned_model": "frozen blocks and regularizer are the spec's",
    "TrainingConfig.checkpoint_interval": "the last and the best epoch are stored besides",
    "TrainingConfig.model_parallelism": "fractions of layers that have weights",
    "RegularizerConfig.type": "NO_REG removes the regularizer of a pruned model",
    "AdamOptimizerConfig.epsilon": "is used",
    "StepLrConfig.gamma": "a staircase, as documented; smooth with run.tao_quirks",
    "StepLrConfig.step_size": "a staircase, as documented; smooth with run.tao_quirks",
    "VisualizerConfig.weight_histograms": "is looked at",
    "EvaluationConfig.visualize_pr_curve": "one picture per IoU threshold, in report/",
    "EvaluationConfig.trt_evaluation": "an empty block counts as none",
    "InferenceConfig.trt_inference": "an empty block counts as none",
    "InferenceConfig.detection_image_output_dir": "nothing in it is deleted",
    "DataSource.tfrecords_path": "also KITTI labels, COCO .json and VOC",
    "DataSource.source_weight": "works",
    "DatasetConfig.target_class_mapping": "keys match whatever their case; what is dropped is counted",
    "DatasetConfig.validation_fold": "a missing fold is an error",
    "DatasetConfig.sampling_mode": "works",
    "Preprocessing.min_bbox_width": "works",
    "Preprocessing.min_bbox_height": "works",
    "SpatialAugmentation.vflip_probability": "works",
    "SpatialAugmentation.rotate_rad_max": "radians, as named; degrees with run.tao_quirks. Boxes stay right",
    "SpatialAugmentation.rotate_probability": "0 means never",
    "KITTIConfig.image_extension": "with or without its dot",
    "SampleModifierConfig.source_to_target_class_mapping": "keys match whatever their case",
    "Experiment.enc_key": "of our encryption; written nowhere",
}
"""Fields that differ from the original, as Message.field."""


def page() -> str:
    """The page as Markdown."""
    parts = [HEAD, "\n## Around the commands\n", *_table("word", WRAPPER)]
    parts += ["\n## Flags of the launcher\n", *_flags(LAUNCH)]
    for verb in VERBS:
        if verb.tao:
            names = " or ".join(f"`frcnn {name}`" for name in (verb.name, *verb.aliases))
            parts += [f"\n## Flags of {verb.name}\n", f"{names}: {verb.doc}.\n", *_flags(verb.flags)]
    parts += ["\n## Files\n", *_table("file", FILES)]
    for message in (*messages_below(Experiment), *messages_below(DatasetExportConfig)):
        parts += [f"\n## Fields of {message.__name__}\n", *_table("field", _fields(message))]
    return "\n".join(parts) + "\n"


def _flags(flags: Iterable[Flag]) -> Iterator[str]:
    rows = []
    for flag in flags:
        state = "better" if flag.was else "works"
        state = "no effect" if flag.inert else "not here" if flag.refused else state
        here = "; ".join(filter(None, (flag.doc, flag.inert, flag.refused)))
        here += f". The original: {flag.was}" if flag.was else ""
        rows.append(Row(", ".join(f"`{name}`" for name in flag.names), state, here))
    yield from _table("flag", rows)


def idle(message: type[Message], field: Setting) -> str:
    """Why a field has no effect, its own reason or that of the only block it is in; "" if it has one."""
    blocks = [
        block
        for root in (Experiment, DatasetExportConfig)
        for parent in messages_below(root)
        for block in settings_of(parent)
        if block.kind is message
    ]
    whole = blocks[0].inert if blocks and all(block.inert for block in blocks) else None
    return field.inert or whole or ""


def _fields(message: type[Message]) -> Iterator[Row]:
    for field in settings_of(message):
        better, reason = BETTER.get(f"{message.__name__}.{field.name}", ""), idle(message, field)
        state = "no effect" if reason else "better" if better else "works"
        yield Row(f"`{field.name}`", state, "; ".join(filter(None, (field.doc, better or reason))))


def _table(head: str, rows: Iterable[Row]) -> Iterator[str]:
    yield from (f"| {head} | | here |", "|---|---|---|")
    for row in rows:
        yield f"| {row.word} | {row.state} | {row.here} |".replace("[]", "[ ]")


if __name__ == "__main__":
    sys.stdout.write(page())

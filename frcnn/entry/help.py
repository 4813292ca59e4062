"""The help page of a command, printed from conf/ in a blink."""

import re
from pathlib import Path

from frcnn.entry.overrides import choices

PAGE = """{title}

usage: python scripts/{command}.py [flags] [group=choice ...] [setting=value ...]

{examples}

{flags}

groups (group=choice; * is used when nothing is said):
{groups}

{sweeps}settings: any value of the tree, such as {setting}; docs/spec-reference.md lists them all.
"""

FLAGS = """flags:
  -m                 sweep: every combination of comma-separated values
  -r DIR             folder of the run
  --cfg job          print the settings and stop
  -h, --help         this page"""

EXAMPLES = {
    "train": (
        "  python scripts/train.py backbone=resnet18 lr=soft_start",
        "  python scripts/train.py spec=their_spec.txt training_config.num_epochs=2",
        "  python scripts/train.py -m backbone=resnet18,resnet34 optimizer=adam,sgd",
        "  python scripts/train.py -m hparams=search hydra/launcher=joblib",
    ),
    "evaluate": (
        "  python scripts/evaluate.py model_path=RUN/checkpoints/best.ckpt",
        "  python scripts/evaluate.py model_path=FILE spec=their_spec.txt",
        "  python scripts/evaluate.py model_path=FILE evaluation=coco",
    ),
    "check": (
        "  python scripts/check.py spec=their_spec.txt",
        "  python scripts/check.py dataset=kitti run.data_root=DIR --json",
        "  python scripts/check.py spec=their_spec.txt fix=anchors",
    ),
    "prune": (
        "  python scripts/prune.py model_path=RUN/checkpoints/best.ckpt prune.threshold=0.5",
        "  python scripts/prune.py model_path=FILE prune.target_ratio=0.2",
        "  python scripts/prune.py model_path=FILE prune.sensitivity=true",
    ),
    "export": (
        "  python scripts/export.py model_path=RUN/checkpoints/best.ckpt",
        "  python scripts/export.py model_path=FILE export.data_type=fp16 export.batch_size=4",
        "  python scripts/export.py model_path=FILE spec=their_spec.txt export.preprocess=true",
    ),
    "parity": (
        "  python scripts/parity.py RUN/checkpoints/best.ckpt EXPORT/model.onnx",
        "  python scripts/parity.py FIRST SECOND spec=their_spec.txt export.parity_images=32",
    ),
    "quantize": (
        "  python scripts/quantize.py model_path=RUN/checkpoints/best.ckpt",
        "  python scripts/quantize.py model_path=FILE quantize.method=mse quantize.batches=20",
        "  python scripts/quantize.py model_path=FILE quantize.skip=[conv1,rpn_conv1]",
    ),
    "infer": (
        "  python scripts/infer.py model_path=RUN/checkpoints/best.ckpt images=FOLDER",
        "  python scripts/infer.py model_path=FILE images='photos/**/*.jpg' run.only_classes=[car]",
        "  python scripts/infer.py model_path=FILE images=film.mp4 inference_config.batch_size=8",
        "  python scripts/infer.py spec=their_spec.txt model_path=FILE",
    ),
    "preview_augmentation": (
        "  python scripts/preview_augmentation.py dataset=kitti augmentation=full",
        "  python scripts/preview_augmentation.py spec=their_spec.txt",
    ),
}

SETTING = {
    "train": "training_config.num_epochs=2",
    "evaluate": "evaluation_config.batch_size=8",
    "check": "training_config.batch_size_per_gpu=8",
    "prune": "prune.granularity=16",
    "export": "export.nms=standard",
    "parity": "export.parity_images=32",
    "quantize": "quantize.method=mse",
    "infer": "inference_config.bbox_visualize_threshold=0.3",
    "preview_augmentation": "augmentation_config.spatial_augmentation.zoom_max=2",
}


def page(command: str, conf: Path, *, program: str = "", flags: str = FLAGS) -> str:
    """The help text of one command.

    Args:
        command: name of the primary config.
        conf: folder of the groups.
        program: what starts it, if not its script.
        flags: the paragraph on flags.
    """
    primary = (conf / f"{command}.yaml").read_text(encoding="utf-8")
    defaults = dict(re.findall(r"^  - (\w+): (.+)$", primary, re.MULTILINE))
    lines = []
    for group, names in choices(conf).items():
        if group not in defaults:
            continue
        chosen = defaults[group]
        default = defaults.get(chosen.strip("${}"), chosen) if chosen.startswith("${") else chosen
        lines.append(f"  {group}")
        for name in names:
            mark = "*" if name == default else " "
            lines.append(f"   {mark}{name:<14} {_description(conf / group / f'{name}.yaml')}")
    text = PAGE.format(
        title=primary.partition("\n")[0].lstrip("# "),
        command=command,
        examples="\n".join(EXAMPLES[command]),
        groups="\n".join(lines),
        sweeps=_sweeps(conf / "hydra"),
        setting=SETTING[command],
        flags=flags,
    )
    return text.replace(f"python scripts/{command}.py", program) if program else text


def _sweeps(folder: Path) -> str:
    """Where the jobs of a sweep can run, and what can choose their settings."""
    lines = [
        "sweeps (-m hydra/GROUP=CHOICE; else every combination, one job after the other; docs/sweeps.md):"
    ]
    for group in sorted(path for path in folder.iterdir() if path.is_dir()):
        lines.append(f"  hydra/{group.name}")
        lines += [f"    {file.stem:<14} {_description(file)}" for file in sorted(group.glob("*.yaml"))]
    return "\n".join(lines) + "\n\n"


def _description(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").split("\n")
    return lines[1].lstrip("# ") if lines[0].startswith("# @package") else lines[0].lstrip("# ")

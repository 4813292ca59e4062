"""What pruning and quantisation cost in accuracy: paired differences to the float network, over seeds.

`compress_accuracy.py OUT` trains a float network per seed on the toy scenes, makes smaller ones of it and
evaluates all on the same 400 images. What OUT holds already is not done again, so a stopped run goes on.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import mean, stdev

from frcnn.data.toy import ensure_toy

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
VALIDATION = 400  # images
OUT_OF_TURN = (
    "evaluation_config.validation_period_during_training=1000",
    "training_config.checkpoint_interval=1000",
)


class Parts:
    """The parts of one seed, each a folder with the run of a command.

    Args:
        folder: of the seed.
        data: the toy scenes.
        seed: of every training.
        common: settings of all commands.
    """

    def __init__(self, folder: Path, data: Path, seed: int, common: list[str]) -> None:
        self.folder, self.data_folder, self.seed, self.common = folder, data, seed, common
        self.data = [
            f"dataset_config.validation_data_source.{name}={data / 'validation' / path}"
            for name, path in (("tfrecords_path", "label_2"), ("image_directory_path", ""))
        ]

    def run(self, command: str, part: str, *items: str) -> Path:
        """The folder of a finished command; it runs unless it is finished already."""
        out = self.folder / part
        if not (out / "results.json").exists():
            again = "run.resume=auto" if command == "train" else "run.overwrite=true"
            line = [sys.executable, str(SCRIPTS / f"{command}.py"), *items, *self.common, again]
            self.folder.mkdir(parents=True, exist_ok=True)
            print(f"{out}: {command} {' '.join(items)}", file=sys.stderr, flush=True)
            with (self.folder / f"{part}.log").open("ab") as log:
                subprocess.run([*line, f"hydra.run.dir={out}"], stdout=log, stderr=log, check=True)
        return out

    def train(self, part: str, *items: str) -> Path:
        """The last checkpoint of a training on the toy scenes, which is not validated on the way."""
        settings = (f"random_seed={self.seed}", "dataset=toy", *OUT_OF_TURN, *items)
        return self.run("train", part, *settings) / "checkpoints" / "last.ckpt"

    def score(self, part: str, checkpoint: Path) -> float:
        """The mAP on the validation images."""
        out = self.run("evaluate", f"{part}_evaluation", f"model_path={checkpoint}", *self.data)
        found: float = json.loads((out / "results.json").read_text())["mAP"]
        return found


def pruned(parts: Parts, checkpoint: Path, arguments: argparse.Namespace) -> Path:
    """Pruned to a fifth of the parameters, and retrained for as long as the float network."""
    out = parts.run("prune", "pruned", f"model_path={checkpoint}", "prune.target_ratio=0.2")
    return parts.train(
        "retrained",
        f"training_config.retrain_pruned_model={out / 'pruned.ckpt'}",
        "training_config.regularizer.type=NO_REG",
        f"training_config.num_epochs={arguments.epochs}",
    )


def trained_quantised(parts: Parts, checkpoint: Path, arguments: argparse.Namespace) -> Path:
    """Trained on with fake-quantised layers, with a tenth of the rate."""
    return parts.train(
        "qat",
        f"training_config.retrain_pruned_model={checkpoint}",
        "training_config.enable_qat=true",
        f"training_config.num_epochs={arguments.qat_epochs}",
        f"training_config.optimizer.adam.lr={arguments.qat_rate}",
        f"training_config.learning_rate.soft_start.base_lr={arguments.qat_rate}",
        f"training_config.learning_rate.soft_start.start_lr={arguments.qat_rate / 10}",
    )


def calibrated(method: str, parts: Parts, checkpoint: Path, _: argparse.Namespace) -> Path:
    """Quantised after the training, by one method of calibration; ten batches of training images."""
    unvalidated = "dataset_config.validation_data_source=null"  # it is evaluated as all others are
    items = (f"model_path={checkpoint}", f"quantize.method={method}", unvalidated)
    return parts.run("quantize", f"ptq_{method}", *items) / "quantized.ckpt"


def pruned_and_quantised(parts: Parts, checkpoint: Path, arguments: argparse.Namespace) -> Path:
    """Pruned, retrained, and then trained on quantised."""
    small = Parts(parts.folder / "small", parts.data_folder, parts.seed, parts.common)
    return trained_quantised(small, pruned(parts, checkpoint, arguments), arguments)


WAYS: Mapping[str, Callable[[Parts, Path, argparse.Namespace], Path]] = {
    "pruned to 20 %, retrained": pruned,
    "QAT": trained_quantised,
    **{f"PTQ, {method}": partial(calibrated, method) for method in ("max", "entropy", "percentile", "mse")},
    "pruned, retrained, QAT": pruned_and_quantised,
}
"""Name -> from a seed's parts and its float checkpoint to another checkpoint."""


def scores(arguments: argparse.Namespace) -> Iterator[dict[str, float]]:
    """The mAP of every network, seed by seed."""
    data = ensure_toy(arguments.out / "data", val=VALIDATION)
    common = ["trainer=auto", f"trainer.accelerator={arguments.device}", "run.num_workers=0"]
    for number, seed in enumerate(arguments.seeds):
        parts = Parts(arguments.out / f"seed_{seed}", data, seed, common)
        if arguments.float:
            whole = arguments.float[number]
        else:
            whole = parts.train(
                "float", f"backbone={arguments.backbone}", f"training_config.num_epochs={arguments.epochs}"
            )
        found = {"float": parts.score("float", whole)}
        for name, make in WAYS.items():
            if not arguments.only or any(word in name for word in arguments.only):
                found[name] = parts.score(re.sub(r"\W+", "_", name), make(parts, whole, arguments))
        yield found


def main() -> None:
    """Print mAP per seed and the mean paired difference with its spread; write both as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--float", type=Path, nargs="+", default=[], help="a float checkpoint per seed")
    parser.add_argument("--only", nargs="+", default=[], help="words of the ways to measure; none: all")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--epochs", type=int, default=9, help="of the float training, and of retraining")
    parser.add_argument("--qat-epochs", type=int, default=3)
    parser.add_argument("--qat-rate", type=float, default=1e-4, help="learning rate of QAT")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.float and len(arguments.float) != len(arguments.seeds):
        parser.error("--float takes a checkpoint for each of --seeds")
    rows = []
    for seed, row in zip(arguments.seeds, scores(arguments), strict=True):
        rows.append(row)
        print(f"seed {seed}: " + ", ".join(f"{name} {score:.4f}" for name, score in row.items()), flush=True)
    differences = {name: [row[name] - row["float"] for row in rows] for name in rows[0] if name != "float"}
    for name, values in differences.items():
        spread = stdev(values) if len(values) > 1 else 0.0
        print(
            f"{name}: {mean(values):+.4f} +- {spread:.4f} ({len(values)} seeds, {min(values):+.4f} at worst)"
        )
    content = {"seeds": arguments.seeds, "mAP": rows, "differences": differences}
    (arguments.out / "accuracy.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Build sdist and wheel and use each in an environment of its own, away from the checkout.

`make package` installs everything from scratch, which takes minutes; `--borrow FOLDER` takes the
dependencies from a site-packages folder instead.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRAIN = (
    *("frcnn", "train", "backbone=resnet10", "hparams=smoke", "trainer=cpu", "run.num_workers=0"),
    *("trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "hydra.run.dir=run"),
    *("model_config.roi_mini_batch=8", "model_config.roi_pooling_config.pool_size=2"),
)
USE = """
import frcnn, frcnn.paths, pathlib
package = pathlib.Path(frcnn.__file__).parent
assert frcnn.paths.conf_dir() == package / "conf", frcnn.paths.conf_dir()
assert (package / "py.typed").is_file()
assert (package / "conf" / "backbone" / "resnet18.yaml").is_file()
print(package)
"""


def main() -> None:
    """Build, install, use."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="folder for sdist and wheel")
    parser.add_argument("--borrow", type=Path, action="append", default=[], metavar="FOLDER")
    arguments = parser.parse_args()
    arguments.dist.mkdir(parents=True, exist_ok=True)
    for old in arguments.dist.glob("frcnn-*"):
        old.unlink()
    run([sys.executable, "-m", "hatchling", "build", "-d", str(arguments.dist)], ROOT)
    for file in sorted(arguments.dist.glob("frcnn-*")):
        with tempfile.TemporaryDirectory() as folder:
            use(file.resolve(), Path(folder), arguments.borrow)
        sys.stdout.write(f"works: {file.name}\n")


def use(file: Path, folder: Path, borrow: Sequence[Path]) -> None:
    """Install a package into a new environment in a folder and train with it."""
    run([sys.executable, "-m", "venv", str(folder / "venv")], folder)
    python = folder / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if borrow:
        site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
        (site / "borrowed.pth").write_text("".join(f"{path.resolve()}\n" for path in borrow))
        install += ["--no-deps", "--no-build-isolation", "--no-index"]
    else:
        install += ["-c", str(ROOT / "constraints.txt")]
    run([*install, str(file)], folder)
    at_work = folder / "work"
    at_work.mkdir()
    said = run([str(python), "-c", USE], at_work)
    if str(folder) not in said:
        raise SystemExit(f"another frcnn was used: {said}")
    bin_ = python.parent
    run([str(bin_ / "frcnn"), "--help"], at_work)
    run([str(bin_ / TRAIN[0]), *TRAIN[1:]], at_work)
    if not (at_work / "run" / "results.json").is_file():
        raise SystemExit("the run left no results.json")


def run(command: Sequence[str], folder: Path) -> str:
    """Run a command; what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if "hatchling" in command:
        environment = dict(os.environ)
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()

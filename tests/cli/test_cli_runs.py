"""The original's commands, run for real."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import runs

FRCNN = [sys.executable, "-m", "frcnn"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return runs.scenes(tmp_path_factory.mktemp("scenes"), train=4, val=2)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """Two processes, as a TAO user starts them; returns the folder, what was said and the children's lines."""
    place = tmp_path_factory.mktemp("run")
    setup = [*FRCNN, "train", *runs.data(folder), *runs.SMALL, "--cfg", "job"]
    (place / "spec.yaml").write_text(subprocess.run(setup, capture_output=True, text=True, check=True).stdout)
    line = "train -e spec.yaml -r results -k open-sesame --gpus 2 --num_processes 2 --log_file logs/log.txt"
    more = ["trainer.accelerator=cpu", "training_config.num_epochs=1"]
    process = subprocess.Popen([*FRCNN, *line.split(), *more], cwd=place, text=True, stdout=subprocess.PIPE)
    children = set()
    while process.poll() is None:
        children |= {text for text in command_lines() if f"{place}" in text and "frcnn.entry" in text}
        time.sleep(0.2)
    return place, process, children


def command_lines():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue


def test_train_with_the_original_flags(trained):
    place, process, _ = trained
    said = (place / "logs" / "log.txt").read_text()
    assert process.returncode == 0, said
    assert said.endswith("Execution status: PASS\n")
    assert said.count("Execution status") == 1
    assert process.stdout.read() == ""
    assert json.loads((place / "results" / "results.json").read_text())["images"] == 2
    assert (place / "results" / "checkpoints" / "frcnn_resnet_10.epoch_1.ckpt").is_file()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for command lines in /proc")
def test_the_key_is_nowhere(trained):
    place, process, children = trained
    assert process.returncode == 0
    assert len(children) == 1
    assert "open-sesame" not in "".join(children)
    found = [path for path in place.rglob("*") if path.is_file() and b"open-sesame" in path.read_bytes()]
    assert found == []


@pytest.mark.slow
def test_inference_and_evaluation_go_on_from_there(trained, folder, tmp_path):
    place, _, _ = trained
    model = place / "results" / "checkpoints" / "last.ckpt"
    images, labels = (folder / "validation" / name for name in ("image_2", "label_2"))
    lines = [
        f"evaluate -m {model} -r {tmp_path / 'evaluated'} -i {images} -l {labels} -b 2",
        f"inference --model_path {model} -r {tmp_path / 'found'} --image_dir {images} -b 2",
    ]
    for line in lines:
        done = subprocess.run([*FRCNN, *line.split()], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("Execution status: PASS\n")
    assert json.loads((tmp_path / "evaluated" / "results.json").read_text())["images"] == 2
    assert len([*(tmp_path / "found").rglob("*.txt")]) >= 2


@pytest.mark.slow
def test_fewer_processes_than_gpus_need_a_split_network(folder, tmp_path):
    line = ["train", *runs.data(folder), *runs.SMALL, "--gpus", "2", "-np", "1", "-r", str(tmp_path / "run")]
    line += ["trainer.accelerator=cpu", "run.dry_run=true"]
    environment = os.environ | {"COLUMNS": "120"}
    done = subprocess.run([*FRCNN, *line], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "no model_parallelism" in done.stderr
    assert "training_config.model_parallelism with 2 fractions" in done.stderr
    line += ["training_config.model_parallelism=[0.3,0.7]"]
    done = subprocess.run([*FRCNN, *line], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "model parallelism, processes: 1" in done.stderr

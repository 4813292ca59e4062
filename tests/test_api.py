"""frcnn.train, frcnn.spec.load and what they promise."""

import json
import os
import re
import subprocess
import sys

import pytest
import runs
from project import ROOT
from specs import TINY

import frcnn
from frcnn.errors import SpecError


def test_a_training_from_python(tmp_path):
    folder = runs.scenes(tmp_path / "scenes", train=2, val=2)
    out = tmp_path / "a run"
    settings = [*runs.data(folder), *runs.SMALL, "training_config.num_epochs=1", f"hydra.run.dir='{out}'"]
    run = frcnn.train(settings)
    assert run.folder == out
    assert run.results == json.loads((out / "results.json").read_text())
    assert run.score == run.results["mAP"]
    assert run.best.is_file()
    assert run.best.parent == out / "checkpoints"
    image = next((folder / "validation" / "image_2").iterdir())
    assert frcnn.load(run.best)(image).size == (128, 192)


def test_a_dry_run_leaves_no_results(tmp_path):
    folder = runs.scenes(tmp_path / "scenes", train=2, val=2)
    line = [*runs.data(folder), *runs.SMALL, "run.dry_run=true", f"hydra.run.dir={tmp_path / 'run'}"]
    run = frcnn.train(line)
    assert (run.results, run.score) == ({}, None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["training_config.num_epoch=2"], "did you mean training_config.num_epochs"),
        (["-m", "backbone=resnet10,resnet18"], "takes settings, no flags"),
        (["--help"], "takes settings, no flags"),
        (["spec=missing.txt"], "missing.txt"),
    ],
)
def test_wrong_input_raises(line, said):
    with pytest.raises(SpecError, match=said):
        frcnn.train(line)


def test_specs_are_read_and_written_in_both_formats(tmp_path):
    (tmp_path / "a.txt").write_text(TINY)
    spec = frcnn.spec.load(tmp_path / "a.txt")
    spec.training_config.num_epochs = 7
    for name in ("b.yaml", "c.prototxt"):
        frcnn.spec.save(spec, tmp_path / name)
        assert frcnn.spec.load(tmp_path / name) == spec
    with pytest.raises(SpecError, match="suffix"):
        frcnn.spec.save(spec, tmp_path / "d.json")


def test_specs_need_nothing_heavy(tmp_path):
    (tmp_path / "a.txt").write_text(TINY)
    code = (
        "import sys, frcnn; frcnn.spec.load(sys.argv[1]);"
        "print([name for name in ('torch', 'hydra', 'numpy') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_examples_of_the_page_have_the_right_types(tmp_path):
    """Types are shipped, so a strict check of somebody's script goes through."""
    text = (ROOT / "docs" / "python-api.md").read_text()
    (tmp_path / "script.py").write_text("\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)))
    command = [sys.executable, "-m", "mypy", "--strict", "--no-warn-unreachable", "--follow-imports=silent"]
    command += [
        "--config-file",
        os.devnull,
        "--ignore-missing-imports",
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    done = subprocess.run([*command, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

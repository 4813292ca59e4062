"""The examples, run on toy settings: a migration as a script, and two notebooks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import docs_world
import pytest
import runs
from project import ROOT

EXAMPLES = ROOT / "examples"
NOTEBOOKS = ("quick_start", "tao_to_deepstream")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with what a TAO project leaves behind, and the command on the path."""
    place, before = tmp_path_factory.mktemp("world"), Path.cwd()
    os.chdir(place)
    try:
        docs_world.build(place)
    finally:
        os.chdir(before)
    (place / "bin").mkdir()
    command = place / "bin" / "frcnn"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m frcnn "$@"\n')
    command.chmod(0o755)
    return place


@pytest.fixture
def environment(world):
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {
        "PATH": f"{world / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": paths,
        "FRCNN_CACHE": str(world / "cache"),
    }


@pytest.mark.slow
def test_the_whole_way_over_from_tao(world, environment):
    line = ["their_spec.txt", "kitti.txt", "detector.epoch_12.hdf5", "photos", "migrated by script"]
    done = subprocess.run(
        [str(EXAMPLES / "migrate_from_tao.sh"), *line, "run.num_workers=0"],
        cwd=world,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    out = world / "migrated by script"
    assert sorted(path.name for path in (out / "records").iterdir())
    for run in ("evaluated", "evaluated_again"):
        assert json.loads((out / run / "results.json").read_text())["images"] == 2
    assert len([*(out / "seen").rglob("*.txt")]) >= 2
    before, after = (
        json.loads((out / "pruned" / "results.json").read_text())[k] for k in ("before", "after")
    )
    assert after["parameters"] < before["parameters"]
    bundle = {path.name for path in (out / "bundle").iterdir()}
    assert {"model.onnx", "model_int8.onnx", "labels.txt", "nvinfer_config.txt"} <= bundle


def test_the_script_says_what_it_wants_and_stops_at_the_first_failure(tmp_path):
    script = str(EXAMPLES / "migrate_from_tao.sh")
    done = subprocess.run([script], capture_output=True, text=True, check=False)
    assert (done.returncode, "SPEC CONVERT_SPEC" in done.stderr) == (2, True)
    line = [script, "no.txt", "no.txt", "no.hdf5", "photos", "out"]
    environment = os.environ | {"FRCNN": f"{sys.executable} -m frcnn"}
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        line,
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout.count("==") == 1
    assert "no.txt" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks(name, world, environment, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    book = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in book.cells), "outputs are not kept"
    place = next(i for i, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", ()))
    small = (
        [*runs.data(world / "data" / "kitti"), *runs.SMALL]
        if name == "quick_start"
        else ["run.num_workers=0"]
    )
    book.cells.insert(place + 1, nbformat.v4.new_code_cell(f"settings = {small!r}"))
    nbclient.NotebookClient(book, timeout=600, resources={"metadata": {"path": str(world)}}).execute()
    text = json.dumps(book.cells)
    assert "Traceback" not in text

"""scripts/convert_dataset.py as a user runs it."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from project import ROOT
from tiny_data import label, write_kitti

from frcnn.data.readers.shards import find_records, select_fold
from frcnn.data.readers.tfrecord import example_class, read_records
from frcnn.errors import DataError

SPEC = """kitti_config {
  root_directory_path: 'kitti'
  image_dir_name: 'image_2'
  label_dir_name: 'label_2'
  image_extension: '.png'
  partition_mode: 'random'
  num_partitions: 2
  val_split: 20
  num_shards: 2
}
image_directory_path: 'kitti'
"""


def run(folder, *arguments):
    command = [sys.executable, str(ROOT / "scripts" / "convert_dataset.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def frame_ids(files):
    records = [example_class().FromString(payload) for path in files for _, payload in read_records(path)]
    return [record.features.feature["frame/id"].bytes_list.value[0].decode() for record in records]


@pytest.fixture
def folder(tmp_path):
    """Ten images with a car each; the first also has an object without area."""
    lines = {f"{i:06d}": [label("Car", 1, 2, 9, 8)] for i in range(10)}
    lines["000000"].append(label("Van", 5.9, 2, 5.1, 8))
    write_kitti(tmp_path / "kitti", lines)
    (tmp_path / "spec.txt").write_text(SPEC)
    return tmp_path


def test_the_command_that_a_user_types(folder):
    done = run(folder, "-d", "spec.txt", "-o", "records/train", "-r", "report")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (folder / "records").iterdir()) == [
        *(f"train-fold-{fold:03d}-of-002-shard-{s:05d}-of-00002" for fold in (0, 1) for s in (0, 1)),
        "train_warning.json",
    ]
    files = find_records(str(folder / "records" / "train*"))
    # spec-and-data 3.3: ten files, val_split 20
    validation = select_fold(files, 0, validation=True)
    assert frame_ids(validation) == ["image_2/000000", "image_2/000001"]
    training = select_fold(files, 0, validation=False)
    assert frame_ids(training) == [f"image_2/{i:06d}" for i in (6, 9, 3, 8, 4, 2, 5, 7)]
    warnings = json.loads((folder / "records" / "train_warning.json").read_text())
    assert warnings == {f"{folder}/kitti/label_2/000000.txt_1": [5, 2, 5, 8]}
    assert "fold 000" in done.stderr
    results = json.loads((folder / "report" / "results.json").read_text())
    assert results["images"] == 10
    assert results["skipped"] == {"van": 1}
    assert {path.name for path in (folder / "report").iterdir()} == {
        *("log.txt", "results.json", "status.json", "spec.txt")
    }


@pytest.mark.parametrize("option", ["--dataset_spec", "--dataset_export_spec"])
def test_both_names_of_the_option(folder, option):
    done = run(folder, option, "spec.txt", "--output_filename", "train", "kitti_config.num_shards=0")
    assert done.returncode == 0, done.stderr
    assert {"train-fold-000-of-002", "train-fold-001-of-002"} <= {path.name for path in folder.iterdir()}


MOMENTS = """
import os, signal, sys
left = int(sys.argv.pop(1))
def hook(event, arguments):
    global left
    if event == "os.rename" and "train" in str(arguments[0]):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from frcnn.convert import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("renamed", [2])
def test_killed_while_it_renames(folder, renamed):
    """The former set of 2 shards a fold becomes one of 3; tests/data/test_record_set.py tries every moment."""
    assert run(folder, "-d", "spec.txt", "-o", "train").returncode == 0
    arguments = ["-d", "spec.txt", "-o", "train", "kitti_config.num_shards=3"]
    command = [sys.executable, "-c", MOMENTS, str(renamed), *arguments]
    assert subprocess.run(command, cwd=folder, check=False).returncode == -signal.SIGKILL
    with pytest.raises(DataError, match="was interrupted") as info:
        find_records(str(folder / "train*"))
    assert "run convert_dataset again" in str(info.value)
    assert run(folder, *arguments).returncode == 0
    files = find_records(str(folder / "train*"))
    assert [path.name[-14:] for path in files] == [f"{i:05d}-of-00003" for i in range(3)] * 2
    assert sorted(frame_ids(files)) == [f"image_2/{i:06d}" for i in range(10)]
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_ctrl_c_leaves_the_former_records_and_no_processes(folder):
    assert run(folder, "-d", "spec.txt", "-o", "out/train").returncode == 0
    for i in range(12_000):
        for kind, suffix in (("image", "png"), ("label", "txt")):
            os.link(
                *(folder / "kitti" / f"{kind}_2" / f"{name}.{suffix}" for name in ("000000", f"1{i:05d}"))
            )
    command = [
        sys.executable,
        str(ROOT / "scripts" / "convert_dataset.py"),
        "-d",
        "spec.txt",
        "-o",
        "out/train",
    ]
    staging = folder / "out" / ".train.converting"
    for _ in range(3):  # a signal that comes after the last record says nothing
        before = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
        # In a session of its own: Ctrl-C goes to all processes of a terminal, the readers too.
        job = subprocess.Popen(
            [*command, "--processes", "3"],
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while not any(staging.glob("train*")) and job.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        os.killpg(job.pid, signal.SIGINT)
        _, said = job.communicate(timeout=60)
        if job.returncode:
            break
    assert (job.returncode, said.strip().splitlines()[-1]) == (130, "interrupted")
    assert "Traceback" not in said
    assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == before
    with pytest.raises(ProcessLookupError):
        os.killpg(job.pid, 0)


def test_a_typo_answers_at_once(folder):
    seconds = []
    for arguments in (["--help"], ["-d", "spec.txt", "-o", "t", "kitti_config.val_splt=3"]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = run(folder, *arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode in (0, 2)
    assert max(seconds) < 1

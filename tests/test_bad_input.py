"""Bad input ends with a clear message, a non-zero exit code and nothing half-written."""

import os
import resource
import shutil
import subprocess
import sys

import pytest
import runs
from project import ROOT
from tiny_data import example, frame, label, record

from frcnn.entry.main import main


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return runs.scenes(tmp_path_factory.mktemp("scenes"), train=3, val=2)


@pytest.fixture
def folder(pristine, tmp_path):
    """A copy of the data to break."""
    return shutil.copytree(pristine, tmp_path / "data")


@pytest.fixture
def refused(folder, tmp_path, capsys):
    """Trains on `folder` and returns the message of the refusal, which leaves nothing behind."""

    def run(*more, code=2, out=None):
        target = tmp_path / "out" / "run"
        assert runs.train(folder, target if out is None else out, *more) == code
        message = capsys.readouterr().err
        assert "Traceback" not in message
        assert out is not None or not (target / "config.yaml").exists()
        return message

    return run


def records(folder, *, fold=1, count=3):
    """Records of the training images beside the data; returns the path of the one file."""
    path = folder / f"r-fold-{fold:03d}-of-002-shard-00000-of-00001"
    frames = [frame(f"image_2/{i:06d}", [("car", 0, 20, 30, 80, 70)], size=(128, 192)) for i in range(count)]
    path.write_bytes(b"".join(record(example(features)) for features in frames))
    return path


def use_records(folder, pattern="r-*"):
    return (
        f"dataset_config.data_sources.0.tfrecords_path={folder / pattern}",
        f"dataset_config.data_sources.0.image_directory_path={folder / 'training'}",
    )


def test_a_missing_folder_names_the_setting_and_its_neighbours(folder, refused):
    shutil.rmtree(folder / "training" / "label_2")
    message = refused()
    assert "dataset_config.data_sources.0.tfrecords_path: no such file or folder" in message
    assert "holds image_2" in message


def test_a_missing_image_folder(folder, refused):
    message = refused(f"dataset_config.data_sources.0.image_directory_path={folder / 'nowhere'}")
    assert "image_directory_path: no such file or folder" in message


def test_missing_images(folder, refused):
    for image in (folder / "training" / "image_2").iterdir():
        image.unlink()
    assert "image_2" in refused()


def test_a_glob_that_matches_nothing(folder, refused):
    message = refused(*use_records(folder, "shards/*"))
    assert "no file matches" in message
    assert str(folder / "shards" / "*") in message


def test_container_paths_suggest_mounts_and_mounts_work(folder, refused, tmp_path):
    container = "dataset_config.data_sources.0.image_directory_path=/workspace/tao/training"
    assert "run.mounts" in refused(container)
    mounts = f"run.mounts={{/workspace/tao: {folder}}}"
    assert runs.train(folder, tmp_path / "ok", container, mounts, "training_config.num_epochs=1") == 0


def test_a_fold_that_does_not_exist(folder, refused):
    records(folder)
    message = refused(*use_records(folder), "dataset_config.validation_fold=3")
    assert "fold" in message
    assert "1" in message.partition("allowed")[2]


def test_a_fold_of_plain_folders(refused):
    assert "validation_fold needs TFRecords" in refused("dataset_config.validation_fold=0")


def test_a_truncated_record_file(folder, refused):
    path = records(folder)
    path.write_bytes(path.read_bytes()[:-7])
    message = refused(*use_records(folder))
    assert path.name in message
    assert "byte" in message


def test_a_flipped_byte(folder, refused):
    path = records(folder)
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    message = refused(*use_records(folder))
    assert path.name in message
    assert "byte" in message


def test_records_train(folder, tmp_path):
    records(folder)
    records(folder, fold=0, count=2)
    more = (*use_records(folder), "dataset_config.validation_fold=0", "training_config.num_epochs=1")
    more += ("dataset_config.target_class_mapping={Car: auto}",)
    assert runs.train(folder, tmp_path / "ok", *more) == 0
    assert "are training images too" in (tmp_path / "ok" / "log.txt").read_text()


def test_a_second_source_without_the_fold_only_trains(folder, tmp_path):
    records(folder)
    records(folder, fold=0, count=2)
    more = (
        f"dataset_config.data_sources=[{{tfrecords_path: '{folder / 'r-*'}', image_directory_path: '{folder / 'training'}'}}, "
        f"{{tfrecords_path: '{folder / 'validation' / 'label_2'}', image_directory_path: '{folder / 'validation'}'}}]",
        "dataset_config.validation_fold=0",
        "training_config.num_epochs=1",
    )
    assert runs.train(folder, tmp_path / "ok", *more) == 0
    log = (tmp_path / "ok" / "log.txt").read_text()
    assert "has no fold 0: all of it is training data" in log
    assert log.count("training: ") == 2
    assert log.count("validation: ") == 1


def test_a_corrupt_image(folder, refused, tmp_path):
    image = folder / "training" / "image_2" / "000001.png"
    image.write_bytes(image.read_bytes()[:300])
    message = refused(out=tmp_path / "out")  # its header is fine: found when it is read
    assert str(image) in message


def test_a_label_with_the_wrong_number_of_columns(folder, refused):
    path = folder / "training" / "label_2" / "000000.txt"
    path.write_text(path.read_text() + label("car", 1, 2, 30, 40) + " 0.9\n")
    message = refused()
    assert f"{path}:" in message
    assert "16 columns" in message
    assert "15 columns" in message


def test_class_names_that_match_nothing(refused):
    message = refused("dataset_config.target_class_mapping={pedestrain: person}")
    assert "holds no objects of the mapped classes" in message
    assert "pedestrian (" in message
    assert "close to" in message


def test_no_training_objects(folder, refused):
    for path in (folder / "training" / "label_2").iterdir():
        path.write_text("")
    assert "no objects at all" in refused()


def test_more_objects_than_there_is_room_for(folder, refused):
    path = folder / "training" / "label_2" / "000002.txt"
    path.write_text((label("car", 10, 10, 60, 60) + "\n") * 101)
    message = refused()
    assert "000002.png" in message
    assert "101 objects" in message
    assert "raise max_objects_num_per_image to 101" in message


@pytest.mark.slow
def test_a_disk_that_is_full_leaves_no_half_checkpoint(folder, tmp_path):
    """The file size limit of the process stands in for the disk; the second epoch meets it."""
    out = tmp_path / "run"
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *runs.data(folder), *runs.SMALL]
    command += [f"hydra.run.dir={out}", "training_config.num_epochs=1"]
    limit = 4 * 1024 * 1024
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1, done.stderr
    assert "a checkpoint could not be written" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in out.rglob("*") if "ckpt" in path.name] == []


def test_an_output_folder_that_cannot_be_made(tmp_path, refused):
    (tmp_path / "file").write_text("")
    message = refused(code=1, out=tmp_path / "file" / "run")
    assert str(tmp_path / "file") in message


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_output_folder(tmp_path, refused):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "Permission denied" in refused(code=1, out=tmp_path / "locked" / "run")


def test_a_read_only_file_system(refused):
    """Where even root may not write."""
    message = refused(code=1, out="/proc/frcnn/run")
    assert "/proc" in message
    assert "the output folder cannot be made" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no such checkpoint"), (b"nonsense", "cannot be read"), (b"", "cannot be read")],
)
def test_broken_checkpoints(tmp_path, capsys, content, words):
    path = tmp_path / "model.ckpt"
    if content is not None:
        path.write_bytes(content)
    assert main("evaluate", [f"model_path={path}"]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert str(path) in message
    assert "Traceback" not in message


def test_evaluate_names_the_groups_it_has(capsys):
    assert main("evaluate", ["model_path=model.ckpt", "backbone=resnet34", "logger=csv"]) == 2
    message = capsys.readouterr().err
    assert message.count("is no choice of this command") == 2
    assert "evaluation" in message


def test_evaluate_needs_a_model(capsys):
    assert main("evaluate", []) == 2
    assert "model_path=" in capsys.readouterr().err
    assert main("evaluate", ["model_path=model.hdf5"]) == 2
    assert "is no checkpoint of frcnn" in capsys.readouterr().err


def test_an_error_of_the_run_is_not_taken_for_one_of_its_folder(folder, refused, monkeypatch):
    """Which an OSError in the middle of reading could look like."""

    def fail(*_, **__):
        raise OSError(5, "Input/output error", "label.txt")

    monkeypatch.setattr("frcnn.build.data.read_kitti", fail)
    message = refused(code=1)
    assert "Input/output error" in message
    assert "output folder" not in message

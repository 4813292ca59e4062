"""The convert_dataset command: what it is given, what it says, what it leaves behind."""

import json

import pytest
from tiny_data import label, write_image, write_kitti

from frcnn.convert import main
from frcnn.data.readers.shards import find_records
from frcnn.data.readers.tfrecord import read_records
from frcnn.entry.main import main as train

SPEC = """kitti_config {
  root_directory_path: 'kitti'
  image_dir_name: 'image_2'
  label_dir_name: 'label_2'
  partition_mode: 'random'
  num_partitions: 2
  val_split: 25
  num_shards: 1
}
"""
CAR, VAN = label("Car", 1, 2, 9, 8), label("Van", 1, 2, 9, 8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Four images, seen from their folder."""
    monkeypatch.delenv("DATA_BASE_PATH", raising=False)
    write_kitti(tmp_path / "kitti", {"a": [CAR], "b": [CAR, VAN], "c": [], "d": [VAN]})
    (tmp_path / "spec.txt").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def convert(folder, capsys):
    """Runs the command on spec.txt; returns what it said. Every refusal leaves no file behind."""

    def run(*arguments, spec="spec.txt", out="out/train", code=0):
        before = sorted(folder.rglob("*"))
        found = main(["-d", str(spec), "-o", str(out), *map(str, arguments)])
        said = capsys.readouterr().err
        assert found == code, said
        assert "Traceback" not in said
        if code:
            assert sorted(folder.rglob("*")) == before
        return said

    return run


def files(folder):
    return sorted(path.name for path in (folder / "out").iterdir())


def test_the_table(convert, folder):
    said = convert()
    lines = [line.split() for line in said.splitlines()]
    assert ["car", "1", "1", "2"] in lines
    assert ["van", "0", "2", "2"] in lines
    assert ["objects", "1", "3", "4"] in lines
    assert ["images", "1", "3", "4"] in lines
    assert ["without", "objects", "0", "1", "1"] in lines
    assert "out/train: 4 images in 2 record files" in said
    assert "validation_fold: 0 trains on fold 001 and validates on fold 000" in said
    assert "skipped" not in said
    assert not any(line[:1] == ["records"] for line in lines)


def test_run_again_with_other_shards(convert, folder):
    convert("kitti_config.num_shards=3")
    assert len(files(folder)) == 6
    (folder / "out" / "train2-fold-000-of-002").write_bytes(b"")
    said = convert("kitti_config.num_shards=2")
    names = [name for name in files(folder) if "train-" in name]
    assert [name[-14:] for name in names] == ["00000-of-00002", "00001-of-00002"] * 2
    assert (folder / "out" / "train2-fold-000-of-002").exists()
    assert len([1 for path in find_records("out/train-*") for _ in read_records(path)]) == 4
    assert "1 of 4 files are empty: there are more shards than records" in said


def test_the_same_input_gives_the_same_bytes(convert, folder):
    convert()
    first = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    convert("--processes", 1)
    assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == first


def test_output_without_a_folder(convert, folder):
    convert(out="train")
    assert len(list(folder.glob("train-fold-*"))) == 2


def test_a_yaml_spec(convert, folder):
    (folder / "spec.yaml").write_text(
        "kitti_config: {root_directory_path: kitti, image_dir_name: image_2, label_dir_name: label_2, "
        "partition_mode: random, num_partitions: 2, val_split: 25}"
    )
    convert("-r", "report", spec="spec.yaml")
    assert files(folder) == ["train-fold-000-of-002", "train-fold-001-of-002"]
    assert "val_split: 25.0" in (folder / "report" / "spec.yaml").read_text()


@pytest.mark.parametrize("where", ["base", "spec", "mount"])
def test_where_the_root_is_looked_for(convert, folder, monkeypatch, where):
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    more = []
    if where == "base":
        monkeypatch.setenv("DATA_BASE_PATH", str(folder))
        (folder / "elsewhere" / "spec.txt").write_text(SPEC)
    if where == "mount":
        more = ["--mount", f"/workspace={folder}", "kitti_config.root_directory_path=/workspace/kitti"]
    convert(*more, spec="spec.txt" if where == "base" else "../spec.txt", out="../out/train")
    assert len(files(folder)) == 2


def test_an_extension_without_its_dot(convert, folder):
    convert("kitti_config.image_extension=png")
    assert len(files(folder)) == 2


def test_what_is_left_behind(convert, folder):
    (folder / "kitti" / "label_2" / "a.txt").write_text(f"{CAR}\n{label('Van', 5, 5, 5, 9)}\n")
    convert("-r", "report/deep", "kitti_config.val_split=50")
    report = folder / "report" / "deep"
    assert sorted(path.name for path in report.iterdir()) == [
        *("log.txt", "results.json", "spec.txt", "status.json")
    ]
    results = json.loads((report / "results.json").read_text())
    assert results["command"] == "convert_dataset"
    assert results["output"] == str(folder / "out" / "train")
    assert (results["images"], results["records"], results["files"]) == (4, 4, 2)
    assert results["objects"] == {"car": 2, "van": 2}
    assert results["skipped"] == {"van": 1}
    assert results["folds"][0] == {
        "fold": 0,
        "images": 2,
        "images_without_objects": 0,
        "filtered": 0,
        "copies": 0,
        "beyond_limit": 0,
        "records": 2,
        "objects": {"car": 2, "van": 1},
    }
    assert results["warnings"] == []
    states = [json.loads(line)["status"] for line in (report / "status.json").read_text().splitlines()]
    assert states == ["STARTED", "SUCCESS"]
    assert "out/train: 4 images" in (report / "log.txt").read_text()
    assert "val_split: 50" in (report / "spec.txt").read_text()
    (folder / "kitti" / "label_2" / "a.txt").write_text("Car 1")
    main(["-d", "spec.txt", "-o", "out/train", "-r", "report/deep"])
    last = json.loads((report / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "FAILURE"
    assert "a.txt:1" in last["message"]


def test_the_sample_modifier(convert, folder):
    with open(folder / "spec.txt", "a") as file:
        file.write(
            """sample_modifier_config {
              source_to_target_class_mapping { key: 'Car' value: 'car' }
              source_to_target_class_mapping { key: 'van' value: 'van' }
              filter_samples_containing_only: 'car'
              dominant_target_classes: 'car'
              num_duplicates: 2
            }"""
        )
    said = convert("kitti_config.val_split=50")
    # a holds only a car: left out. b is balanced, c empty. d holds a van and no car: two copies.
    assert "left out by the filter          1          0     1" in said
    assert "copies added                    0          2     2" in said
    records = [line.split()[1:] for line in said.splitlines() if line.strip().startswith("records")]
    assert records == [["1", "4", "5"]]
    said = convert("kitti_config.val_split=50", "-f", 0, "sample_modifier_config.max_training_samples=2")
    assert "left out by the filter" not in said
    # c and d come in that order or the other; either way two records stay
    records = [line.split()[1:] for line in said.splitlines() if line.strip().startswith("records")]
    assert records == [["2", "2", "4"]]


def test_coco(convert, folder):
    data = {
        "images": [{"id": 1, "file_name": "a.png", "height": 16, "width": 32}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 2, "name": "Traffic Light"}],
    }
    write_image(folder / "coco" / "images" / "a.png")
    (folder / "coco" / "a.json").write_text(json.dumps(data))
    (folder / "spec.txt").write_text(
        """coco_config { root_directory_path: 'coco' img_dir_names: ['images', 'images']
        annotation_files: ['a.json', 'a.json'] num_partitions: 2 num_shards: 1 }"""
    )
    said = convert()
    assert "trafficlight          1          1     2" in said
    assert [name[:24] for name in files(folder)] == ["train-fold-000-of-002-sh", "train-fold-001-of-002-sh"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["kitti_config.val_split=0"], "val_split 0 of 4 images leaves none to validate on"),
        (["kitti_config.num_shards=9"], "16 of 18 files are empty"),
        (["-f", "1", "kitti_config.val_split=1"], "-f 1: no file is of fold 001"),
    ],
)
def test_what_the_original_kept_to_itself(convert, more, words):
    assert f"warning: {words}" in convert(*more)


def test_names_outside_ascii(convert, folder):
    (folder / "kitti" / "label_2" / "a.txt").write_text(label("größe", 1, 2, 9, 8), encoding="utf-8")
    assert "other letters than ASCII are kept as they are: größe" in convert()


def test_missing_labels(convert, folder):
    (folder / "kitti" / "label_2" / "a.txt").unlink()
    said = convert(code=2)
    assert "1 of 4 images have no label file" in said
    assert "--allow-missing-labels" in said
    said = convert("--allow-missing-labels", "-r", "report")
    assert "warning: 1 images have no label file and so no objects: no a.txt" in said
    assert json.loads((folder / "report" / "results.json").read_text())["missing_labels"] == ["a.txt"]


def test_scores(convert, folder):
    (folder / "kitti" / "label_2" / "a.txt").write_text(f"{CAR} 0.9")
    assert "--allow-scores" in convert(code=2)
    convert("--allow-scores")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["kitti_config.val_splt=3"], "did you mean val_split?"),
        (["kitti_config.partition_mode=rand"], "command line: kitti_config.partition_mode"),
        (["kitti_config.root_directory_path=nowhere"], "no such file or folder"),
        (["kitti_config.root_directory_path=/nowhere"], "--mount"),
        (["kitti_config.image_dir_name=images"], "cannot be listed"),
        (["kitti_config.image_extension=.jpg"], "no .jpg images"),
        (["-f", "2"], "-f: there is no such fold"),
        (["-f", "-1"], "-f: there is no such fold"),
        (["--mount", "x"], "--mount: is no mount"),
    ],
)
def test_refusals(convert, arguments, words):
    assert words in convert(*arguments, code=2)


@pytest.mark.parametrize("out", ["out/", "/", "..", "."])
def test_outputs_that_are_folders(convert, out):
    assert "-o: needs a file name" in convert(out=out, code=2)


def test_a_broken_label_at_the_end_leaves_the_former_records(convert, folder):
    convert()
    before = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    (folder / "kitti" / "label_2" / "d.txt").write_text(f"{CAR}\nCar 1 2\n")
    assert "d.txt:2: not a KITTI label" in convert("kitti_config.num_shards=2", code=2)
    assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == before


def test_a_broken_image(convert, folder):
    (folder / "kitti" / "image_2" / "c.png").write_bytes(b"no image")
    assert "c.png" in convert(code=2)


def test_a_file_where_a_folder_should_be(convert, folder):
    (folder / "file").touch()
    assert "file" in convert(out="file/train", code=1)
    assert "cannot be written" in convert("-r", "file", code=1)


def test_a_folder_that_is_read_only(convert):
    # /proc takes no folders, not even root's.
    assert "cannot be written" in convert(out="/proc/here/train", code=1)


def test_the_folder_of_a_training_run_is_left_alone(convert, folder):
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").touch()
    assert "holds a training run" in convert("-r", "run", code=2)


def test_an_experiment_is_no_dataset_convert_spec(convert, folder):
    (folder / "their.txt").write_text("model_config { }")
    assert "their.txt:1:1: model_config: this is a FasterRCNN experiment" in convert(spec="their.txt", code=2)


@pytest.mark.parametrize(
    "arguments", [[], ["-d", "spec.txt"], ["-o", "out"], ["-d", "a", "-o", "b", "-f", "x"]]
)
def test_missing_arguments(capsys, arguments):
    with pytest.raises(SystemExit) as info:
        main(arguments)
    assert info.value.code == 2
    assert "usage: convert_dataset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["sample_modifier_config.max_training_samples=1"], "no records are left in fold 000, 001"),
        (
            [
                "sample_modifier_config.source_to_target_class_mapping={car: car}",
                "sample_modifier_config.filter_samples_containing_only=[car]",
            ],
            "-f 0 spares fold 000",
        ),
        (
            ["sample_modifier_config.minimum_target_class_imbalance={nope: 2}"],
            "minimum_target_class_imbalance of nope is of no target class",
        ),
        (["kitti_config.val_split=0", "-f", "0"], "fold 000 may be training data"),
    ],
)
def test_settings_that_do_other_than_meant_are_said(convert, more, words):
    assert words in convert(*more)


def test_the_fold_to_validate_on_is_the_one_that_was_left_alone(convert):
    assert "validation_fold: 1 trains on fold 000 and validates on fold 001" in convert("-f", "1")


def test_training_does_not_replace_the_results_of_a_conversion(convert, folder, capsys):
    convert("-r", "report")
    assert train("train", [f"hydra.run.dir={folder / 'report'}", "backbone=resnet10"]) == 2
    assert "the folder holds a run" in capsys.readouterr().err

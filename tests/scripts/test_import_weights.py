"""scripts/import_weights.py: from a TAO file and its spec to a checkpoint of our own."""

import json
import subprocess
import sys

import pytest
import runs
import torch
from keras_files import make, narrow_plan, randomise, write_detector
from project import ROOT
from specs import TINY

from frcnn import build
from frcnn.bridge import yaml
from frcnn.entry.main import main as run
from frcnn.import_weights import main
from frcnn.weights.checkpoint import Checkpoint


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "spec.txt").write_text(TINY)
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The network of TINY, which has all projections; a resnet:10 has them anyway."""
    return randomise(make(all_projections=True))


def test_a_model_becomes_a_checkpoint(folder, model, capsys, caplog):
    source, target = write_detector(folder / "m.hdf5", model, scales={"conv1_qdq": 4.5}), folder / "m.ckpt"
    command = [str(source), str(target), f"spec={folder / 'spec.txt'}", "-k", "secret", "-r", str(folder)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "31 of 31 layers loaded" in printed
    assert "conv1(Conv2d)" in printed
    assert "end at 6" in caplog.text
    assert "the key is not used" in caplog.text
    stored = Checkpoint(target)
    content = stored.content["frcnn"]
    assert content["activation_scales"] == {"conv1": 4.5}
    assert content["relu6"] is True
    assert [row["status"] for row in content["imported"]["rows"]] == ["Yes"] * 31
    assert "secret" not in str(content)
    last = json.loads((folder / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "SUCCESS"
    assert last["kpi"]["size"] == target.stat().st_size / 2**20
    assert last["kpi"]["param_count"] == sum(p.numel() for p in model.parameters()) / 1e6
    assert stored.epochs == 0
    # As evaluation does it.
    spec = stored.document()
    assert spec.extra["run"]["spec_folder"] == str(folder)
    assert spec.spec.dataset_config == yaml.loads(content["config"]).dataset_config
    detector = build.build_detector(spec.spec)
    stored.load_into(detector)
    theirs = model.state_dict()
    for name, value in detector.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(value, theirs[name])


def test_an_imported_model_is_evaluated_and_infers(folder, model):
    source, target = write_detector(folder / "m.hdf5", model), folder / "m.ckpt"
    assert main([str(source), str(target), f"spec={folder / 'spec.txt'}"]) == 0
    data = runs.scenes(folder / "data", train=1, val=2) / "validation"
    small = "rpn_pre_nms_top_N: 100 rpn_nms_max_boxes: 20"
    (folder / "e.txt").write_text(f"""
        dataset_config {{
          validation_data_source {{ tfrecords_path: '{data / "label_2"}' image_directory_path: '{data}' }}
          image_extension: 'png'
          target_class_mapping {{ key: 'car' value: 'car' }}
          target_class_mapping {{ key: 'pedestrian' value: 'pedestrian' }}
        }}
        evaluation_config {{ model: '{target}' {small} object_confidence_thres: 0.001 }}
        inference_config {{ model: '{target}' {small} images_dir: '{data / "image_2"}' }}
    """)
    for command in ("evaluate", "infer"):
        out = folder / command
        assert run(command, [f"spec={folder / 'e.txt'}", f"hydra.run.dir={out}", "run.num_workers=0"]) == 0
        assert json.loads((out / "results.json").read_text())["images"] == 2


def test_a_pruned_model_keeps_its_channels(folder):
    source = write_detector(folder / "m.hdf5", make(channels=narrow_plan()))
    assert main([str(source), str(folder / "m.ckpt"), f"spec={folder / 'spec.txt'}"]) == 0
    state = Checkpoint(folder / "m.ckpt").content["state_dict"]
    assert state["detector.trunk.conv1.weight"].shape == (8, 3, 7, 7)


def test_what_the_spec_leaves_open_comes_from_the_file(folder, model, caplog):
    text = TINY.replace("arch: 'resnet:10'", "").replace("roi_pooling_config { pool_size: 2 }", "")
    (folder / "spec.txt").write_text(text.replace("size_height_width { height: 128 width: 192 }", ""))
    source = write_detector(folder / "m.hdf5", model)
    assert main([str(source), str(folder / "m.ckpt"), "-e", str(folder / "spec.txt")]) == 0
    stored = Checkpoint(folder / "m.ckpt").document().spec.model_config
    assert (stored.arch, stored.roi_pooling_config.pool_size) == ("resnet:10", 2)
    size = stored.input_image_config.size_height_width
    assert (size.height, size.width) == (128, 192)
    assert "model_config.arch is resnet:10 by the file" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["m.hdf5", "m.ckpt"],
            ["needs a spec", "arch resnet:10", "num_classes 2", "spec=FILE", "anchor_box_config"],
        ),
        (["m.hdf5", "m.hdf5", "spec=spec.txt"], ["is no name of a checkpoint"]),
        (["none.hdf5", "m.ckpt", "spec=spec.txt"], ["no such weight file"]),
        (["m.hdf5", "m.ckpt", "spec=none.txt"], ["no such file"]),
        (["m.hdf5", "m.ckpt", "spec=spec.txt", "-e", "spec.txt"], ["one spec at a time"]),
        (["m.hdf5", "m.ckpt", "spec=spec.txt", "model_config.use_bias=true"], ["use_bias False in the file"]),
        (["m.hdf5", "m.ckpt", "spec=spec.txt", "model_config.arch=resnet:18"], ["found: resnet:10"]),
        (
            ["m.hdf5", "m.ckpt", "spec=spec.txt", "model_config.arch=lenet"],
            ["command line: model_config.arch"],
        ),
        (
            ["m.hdf5", "m.ckpt", "spec=spec.txt", "model_config.anchor_box_config.ratio=[1,2]"],
            ["num_anchors 9 in the file", "num_anchors 6 in the settings"],
        ),
        (
            ["m.hdf5", "m.ckpt", "spec=spec.txt", "model_config.anchor_box_config.ratio=[]"],
            ["model_config.anchor_box_config.ratio", "needs at least one value"],
        ),
        (
            ["m.hdf5", "m.ckpt", "spec=spec.txt", "dataset_config.target_class_mapping.bus=bus"],
            ["num_classes 2 in the file", "num_classes 3 in the settings"],
        ),
    ],
)
def test_refusals_write_nothing(folder, model, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(folder)
    write_detector(folder / "m.hdf5", model)
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert all(word in printed for word in words), printed
    assert not (folder / "m.ckpt").exists()


def test_a_pruned_quantised_checkpoint_stays_what_it_is(folder, caplog):
    """With its own settings and with a spec's: the same channels, ReLU6 and scales."""
    source = write_detector(
        folder / "m.hdf5", randomise(make(channels=narrow_plan())), scales={"conv1_qdq": 4.5}
    )
    spec = f"spec={folder / 'spec.txt'}"
    assert main([str(source), str(folder / "m.ckpt"), spec]) == 0
    first = Checkpoint(folder / "m.ckpt")
    for name, more in (("own.ckpt", []), ("spec.ckpt", [spec])):
        assert main([str(folder / "m.ckpt"), str(folder / name), *more]) == 0
        again = Checkpoint(folder / name)
        assert again.traits == first.traits == {"relu6": True, "activation_scales": {"conv1": 4.5}}
        there, here = first.content["state_dict"], again.content["state_dict"]
        assert all(torch.equal(there[key], here[key]) for key in there)
        assert again.settings == first.settings
        assert {row["status"] for row in again.content["frcnn"]["imported"]["rows"]} == {"Yes"}


def test_a_checkpoint_of_other_classes_is_refused(folder, model, capsys):
    write_detector(folder / "m.hdf5", model)
    spec = f"spec={folder / 'spec.txt'}"
    assert main([str(folder / "m.hdf5"), str(folder / "m.ckpt"), spec]) == 0
    more = "dataset_config.target_class_mapping.bus=bus"
    assert main([str(folder / "m.ckpt"), str(folder / "n.ckpt"), spec, more]) == 2
    assert "dense_class.weight" in capsys.readouterr().err
    assert not (folder / "n.ckpt").exists()


def test_what_is_there_is_replaced_only_when_told(folder, model, capsys):
    source, target = write_detector(folder / "m.hdf5", model), folder / "m.ckpt"
    arguments = [str(source), str(target), f"spec={folder / 'spec.txt'}"]
    target.write_text("mine")
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert main([*arguments, "--overwrite"]) == 0
    assert Checkpoint(target).epochs == 0
    assert main([str(target), str(folder / "." / "m.ckpt"), "--overwrite"]) == 2
    assert "the same file" in capsys.readouterr().err
    assert Checkpoint(target).epochs == 0


def test_a_place_that_cannot_be_written_is_named_before_the_work(folder, capsys):
    (folder / "file").write_text("")
    (folder / "dir.ckpt").mkdir()
    for target, words in (("file/m.ckpt", "cannot be written"), ("dir.ckpt", "is a folder")):
        assert main(["none.hdf5", str(folder / target)]) == 2  # the source is not even looked at
        printed = capsys.readouterr().err
        assert words in printed
        assert "run.resume" not in printed


def test_a_disk_that_is_full_at_the_end(folder, model, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    source = write_detector(folder / "m.hdf5", model)
    monkeypatch.setattr(torch, "save", full)
    assert main([str(source), str(folder / "m.ckpt"), f"spec={folder / 'spec.txt'}"]) == 1
    printed = capsys.readouterr().err
    assert "No space left" in printed
    assert "run.resume" not in printed


def test_usage_names_what_is_required_alone(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert capsys.readouterr().err.rstrip().endswith("required: IN, OUT.ckpt")


def test_as_a_script(folder):
    command = [sys.executable, str(ROOT / "scripts/import_weights.py"), "none.hdf5", str(folder / "m.ckpt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "none.hdf5: there is no such weight file")


def test_weights_of_a_backbone_become_a_checkpoint_to_train_from(tmp_path, capsys):
    """The rest of the network starts as in a training, so that the seed decides it."""
    from torchvision.models import resnet18

    torch.save(resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    (tmp_path / "spec.txt").write_text(TINY.replace("'resnet:10'", "'resnet:18'"))
    for name in ("a.ckpt", "b.ckpt"):
        arguments = [tmp_path / "resnet18.pth", tmp_path / name, f"spec={tmp_path / 'spec.txt'}"]
        assert main(list(map(str, arguments))) == 0
    assert "rpn_conv1" in capsys.readouterr().out
    first, second = (
        torch.load(tmp_path / name, weights_only=True)["state_dict"] for name in ("a.ckpt", "b.ckpt")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert main([str(tmp_path / "resnet18.pth"), str(tmp_path / "c.ckpt")]) == 2
    assert "spec=FILE" in capsys.readouterr().err

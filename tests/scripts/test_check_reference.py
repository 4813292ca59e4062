"""scripts/check_reference.py: cases that hold, cases that do not, and cases that are none."""

import gzip
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from project import ROOT

from frcnn.reference import Stage, _maker, check_case, main, seeded_weight

STAGES = ["feature map", "RPN class", "RPN box", "proposals", "crop", "head class", "head box", "detections"]


@pytest.fixture
def case(shared_data, tmp_path):
    """A copy of one case to break."""
    for suffix in ("json.gz", "npz"):
        shutil.copyfile(shared_data / "tao_reference" / f"resnet10.{suffix}", tmp_path / f"resnet10.{suffix}")
    return tmp_path / "resnet10.json.gz"


def test_a_given_case_holds_in_every_stage(shared_data):
    stages = check_case(shared_data / "tao_reference" / "mobilenet_v2.json.gz")
    assert [stage.stage for stage in stages] == [*STAGES, "detection scores"]
    assert [stage.stage for stage in stages if not stage.holds] == []


@pytest.mark.slow
def test_another_as_a_script(case):
    command = [sys.executable, str(ROOT / "scripts/check_reference.py"), str(case.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("yes") == 9


def change(case, **arrays):
    with np.load(case.with_name("resnet10.npz")) as file:
        stored = {name: file[name] for name in file.files}
    for name, edit in arrays.items():
        edit(stored[name])
    np.savez(case.with_name("resnet10.npz"), **stored)


def swap(boxes):
    boxes[0, [3, 4]] = boxes[0, [4, 3]]


@pytest.mark.parametrize(
    ("name", "edit", "stage"),
    [
        ("dense_regress", lambda a: a.__setitem__((0, 0, 0), np.nan), "head box"),
        ("proposals", swap, "proposals"),
        ("det_classes", lambda a: a.__setitem__((0, 0), a[0, 0] + 1), "detections"),
    ],
)
def test_a_stage_that_is_off(case, capsys, name, edit, stage):
    change(case, **{name: edit})
    assert main([str(case.parent)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(stage in line and " no " in line for line in lines), lines


def edit(case, change):
    with gzip.open(case, "rt") as text:
        content = json.load(text)
    change(content)
    with gzip.open(case, "wt") as text:
        json.dump(content, text)


def test_options_are_held_against_the_file(case, capsys):
    edit(case, lambda content: content["options"].update(use_pooling=True))
    assert main([str(case.parent)]) == 2
    printed = capsys.readouterr().err
    assert "use_pooling False in the file" in printed
    assert f"{case}: the file and" in printed
    assert "case.hdf5" not in printed
    assert "try:" not in printed


def test_an_architecture_of_another_name_gets_no_advice_on_settings(case, capsys):
    edit(case, lambda content: content["options"].update(arch="resnet:18"))
    assert main([str(case.parent)]) == 2
    printed = capsys.readouterr().err
    assert f"{case}: is another network" in printed
    assert "found: resnet:10" in printed
    assert "model_config" not in printed


def test_unknown_options_are_named(case, caplog):
    edit(case, lambda content: content["options"].update(colour="blue"))
    check_case(case)
    assert "not known here: colour" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("scales"),
        lambda content: content["options"].pop("arch"),
        lambda content: content["layers"].append(3),
    ],
)
def test_broken_cases(case, capsys, change):
    edit(case, change)
    assert main([str(case.parent)]) == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert printed


def test_options_that_a_network_needs_are_named(case, capsys):
    edit(case, lambda content: [content["options"].pop(name) for name in ("scale", "ratio")])
    assert main([str(case.parent)]) == 2
    printed = capsys.readouterr().err
    assert f"{case}: lacks options" in printed
    assert "found: no scale, ratio" in printed


def test_files_that_are_missing_or_cut_off(case, tmp_path, capsys):
    arrays = case.with_name("resnet10.npz")
    arrays.write_bytes(arrays.read_bytes()[:5000])
    assert main([str(case.parent)]) == 2
    arrays.unlink()
    assert main([str(case.parent)]) == 2
    case.write_bytes(case.read_bytes()[:500])
    assert main([str(case.parent)]) == 2
    case.unlink()
    assert main([str(case.parent)]) == 2
    assert main([str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "file")]) == 2
    assert "a file, not a folder" in capsys.readouterr().err


def test_a_case_of_absurd_shapes_leaves_the_others_alone(case, shared_data, capsys):
    for suffix in ("json.gz", "npz"):
        name = f"mobilenet_v2.{suffix}"
        shutil.copyfile(shared_data / "tao_reference" / name, case.with_name(name))
    edit(case, lambda content: content["layers"].append(["x", [["x/kernel:0", [1 << 20, 1 << 20, 64]]]]))
    assert main([str(case.parent)]) == 2
    captured = capsys.readouterr()
    assert f"{case}: holds too much" in captured.err
    assert captured.out.count("yes") == 9


def test_weights_that_cannot_be_written_out(case, capsys, monkeypatch):
    def full(*_, **__):
        raise MemoryError("Unable to allocate")

    monkeypatch.setattr("frcnn.reference.seeded_weight", full)
    assert main([str(case.parent)]) == 2
    assert f"{case}: its weights cannot be written out" in capsys.readouterr().err


def test_a_quantised_case_ends_at_6(case):
    """Its names are enough: a scale beside a layer. The arrays are those of the plain network."""
    plain = {stage.stage: stage.difference for stage in check_case(case)}
    edit(case, lambda content: content["layers"].append(["conv1_qdq", [["conv1_qdq/scaling_factor:0", []]]]))
    quantised = {stage.stage: stage for stage in check_case(case)}
    assert plain["feature map"] < 1e-4
    with np.load(case.with_name("resnet10.npz")) as file:
        # What a ReLU6 leaves is at most 6, and the plain network goes beyond.
        assert file["feature_map"].max() > 6.1
        least = 1 - 6 / file["feature_map"].max()
    assert quantised["feature map"].difference >= 0.99 * least


@pytest.mark.parametrize(
    "options",
    [{}, {"activation": "relu"}, {"activation": {"activation_type": "relu"}}, {"activation_type": "relu"}],
)
def test_the_activation_of_an_efficientnet(options):
    """As it is given in one of three forms, or else what the file shows."""
    needed = {"arch": "efficientnet:b0", "scale": [1.0], "ratio": [1.0], "num_classes_with_background": 2}
    needed["classifier_regr_std"] = [10, 10, 5, 5]
    shown = {} if options else {"activation": "relu"}
    make, known = _maker(needed | options, 3, shown)
    assert known["activation"] == "relu"
    with torch.device("meta"):
        assert make({}).trunk.activation_name == "relu"
    assert _maker(needed, 3, {})[1]["activation"] == "swish"


def test_arrays_of_another_case(case, capsys):
    change(case, image=lambda a: None)
    with np.load(case.with_name("resnet10.npz")) as file:
        stored = {name: file[name] for name in file.files if name != "crop"}
    np.savez(case.with_name("resnet10.npz"), **stored)
    assert main([str(case.parent)]) == 2
    printed = capsys.readouterr().err
    assert "resnet10.npz: lacks arrays" in printed
    assert "found: no crop\n" in printed
    assert "det_count" in printed


def test_what_is_no_number_does_not_hold():
    assert not Stage("a", "crop", float("nan"), "of scale").holds
    assert Stage("a", "crop", 1e-4, "of scale").holds
    assert not Stage("a", "proposals", 0.0, "px", "58 boxes, 60 expected").holds


def test_seeded_weights_by_the_rule_of_the_cases():
    """crc32("conv1|conv1/kernel:0") seeds NumPy's legacy generator."""
    random = np.random.RandomState(683960722)
    wanted = random.randn(1, 1, 2, 3) * np.sqrt(2 / 2) * 0.8
    assert np.allclose(seeded_weight("conv1", "conv1/kernel:0", (1, 1, 2, 3), scale=0.8), wanted)
    gamma = seeded_weight("bn", "bn/gamma:0", (100,), scale=0.8)
    assert 0.5 <= gamma.min() < gamma.max() <= 1.5
    names = [f"layer{i}_qdq" for i in range(8)]
    assert min(seeded_weight(name, f"{name}/scaling_factor:0", (), scale=0.8) for name in names) > 0

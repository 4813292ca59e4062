"""State dicts of torch and safetensors: what is read, and that nothing else is."""

import json
import os
import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from random import Random

import pytest
import safetensors.torch
import torch
from torch import nn

from frcnn.errors import WeightsError
from frcnn.weights.torch_files import read_state

pytestmark = pytest.mark.filterwarnings("ignore")  # of broken files torch warns before it gives up

STATE = {"conv1.weight": torch.arange(6.0).reshape(2, 3), "bn1.num_batches_tracked": torch.tensor(3)}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"epoch": 3, "state_dict": s}, lambda s: {"model": s}]
)
def test_torch_files_old_and_new(tmp_path, zipped, wrap):
    torch.save(wrap(STATE), tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert same(read_state(tmp_path / "a.pth"), STATE)


def test_names_of_models_that_ran_on_several_devices(tmp_path):
    torch.save({f"module.{name}": value for name, value in STATE.items()}, tmp_path / "a.pt")
    assert same(read_state(tmp_path / "a.pt"), STATE)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32])
def test_safetensors(tmp_path, dtype):
    state = {"a.weight": torch.arange(6).reshape(3, 2).to(dtype), "b": torch.tensor(2.5), "c": torch.ones(1)}
    safetensors.torch.save_file(state, tmp_path / "a.safetensors", metadata={"format": "pt"})
    assert same(read_state(tmp_path / "a.safetensors"), state)


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Shell(Touch):
    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("kind", "name"), [(Touch, ""), (Shell, "posix.system")])
def test_code_in_a_file_does_not_run(tmp_path, zipped, kind, name):
    trap = tmp_path / "trap"
    torch.save({"conv1.weight": kind(trap)}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="objects or code") as error:
        read_state(tmp_path / "a.pth")
    assert name in str(error.value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch's own words on the protocol
        for protocol, found in ((0, "system"), (2, "system"), (4, "a pickle of protocol 4")):
            (tmp_path / "b.pth").write_bytes(pickle.dumps(Shell(trap), protocol=protocol))
            with pytest.raises(WeightsError, match="objects or code") as error:
                read_state(tmp_path / "b.pth")
            assert found in str(error.value)
    assert not trap.exists()


def test_whole_models_are_refused_by_name(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"found: torch\.nn\.modules\.linear\.Linear") as error:
        read_state(tmp_path / "a.pth")
    assert "model.state_dict()" in str(error.value)


def test_torchscript(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.ReLU()).save(str(tmp_path / "a.pt"))
    with pytest.raises(WeightsError):
        read_state(tmp_path / "a.pt")


def test_a_zip_bomb(tmp_path):
    torch.save(STATE, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as source:
        records = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name, data in records.items():
            bomb.writestr(name, bytes(20_000_000) if name.endswith("data/0") else data)
    assert (tmp_path / "bomb.pth").stat().st_size < 50_000
    with pytest.raises(WeightsError, match="compressed") as error:
        read_state(tmp_path / "bomb.pth")
    assert "that unpack to 20,0" in str(error.value)


def test_a_list_in_itself(tmp_path):
    loop = [torch.ones(1)]
    loop.append(loop)
    torch.save({"state_dict": dict(STATE), "more": loop}, tmp_path / "a.pth")
    assert same(read_state(tmp_path / "a.pth"), STATE)


def test_terabytes_of_one_number(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1).expand(10**12)}, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").stat().st_size < 5_000
    with pytest.raises(WeightsError, match="absurd size"):
        read_state(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "content, found",
    [
        ([STATE], "list"),
        ({}, "dict"),
        ({"lr": 0.1}, "'lr': float"),
        ({1: torch.ones(1)}, "1: Tensor"),
        ({"a": torch.ones(2).to_sparse()}, "torch.sparse_coo"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "complex64"),
    ],
)
def test_no_state_dicts(tmp_path, content, found):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError) as error:
        read_state(tmp_path / "a.pth")
    assert found in str(error.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(WeightsError, match="no such weight file"):
        read_state(tmp_path / "a.pth")
    for name in ("b.pth", "b.safetensors"):
        (tmp_path / name).mkdir()
        with pytest.raises(WeightsError, match="is a folder"):
            read_state(tmp_path / name)


HEADERS = [
    b"",
    struct.pack("<Q", 1 << 60),
    struct.pack("<Q", 2) + b"[]",
    struct.pack("<Q", 4) + b"{{{{",
    *(
        struct.pack("<Q", len(header)) + header + bytes(8)
        for header in (
            json.dumps({"a": entry}).encode()
            for entry in (
                {"dtype": "F32", "shape": [2], "data_offsets": [0, 16]},
                {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
                {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
                {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
                {"dtype": "F32", "shape": [10**30], "data_offsets": [0, 8]},
                {"dtype": "CODE", "shape": [2], "data_offsets": [0, 8]},
                {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]},
                {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]},
                {"dtype": "F32"},
                None,
            )
        )
    ),
    struct.pack("<Q", 200_000) + b"[" * 200_000,
]


@pytest.mark.parametrize("data", HEADERS, ids=range(len(HEADERS)))
def test_broken_safetensors(tmp_path, data):
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(WeightsError):
        read_state(tmp_path / "a.safetensors")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_files_that_are_cut_off_or_changed(tmp_path, kind):
    """Whatever is wrong with them: our error, or the tensors."""
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    if kind == "safetensors":
        safetensors.torch.save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    random = Random(0)
    for length in (0, 1, 10, *(random.randrange(len(data)) for _ in range(20))):
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError):
            read_state(path)
    refused = 0
    for _ in range(300):
        broken = bytearray(data)
        for _ in range(random.choice((1, 3, 20))):
            broken[random.randrange(len(data))] = random.randrange(256)
        path.write_bytes(broken)
        try:
            read_state(path)
        except WeightsError:
            refused += 1
    assert refused > 10

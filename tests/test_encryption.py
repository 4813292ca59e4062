"""Sealed model files: the format, what is refused, and every command that opens one."""

import json

import pytest
import runs
import torch
from models import write_model

import frcnn
from frcnn import encryption
from frcnn.encryption import derive, model_suffix, opened, seal, sealed, unsealed
from frcnn.entry.main import main
from frcnn.errors import SpecError, WeightsError
from frcnn.import_weights import main as import_weights
from frcnn.weights.checkpoint import Checkpoint

KEY = "a key of ours"


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.setenv(encryption.VARIABLE, "")  # commands set it, and monkeypatch takes it back


@pytest.fixture(scope="module")
def content():
    return sealed(b"weights" * 100, KEY, where="a test")


# The second and third vector of RFC 7914 section 12; p = 16 and p = 1, r = 8.
@pytest.mark.parametrize(
    ("key", "salt", "cost", "parallel", "start"),
    [
        ("password", b"NaCl", 1024, 16, "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"),
        (
            "pleaseletmein",
            b"SodiumChloride",
            16384,
            1,
            "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2",
        ),
    ],
)
def test_the_key_is_derived_as_rfc_7914_says(key, salt, cost, parallel, start):
    assert derive(key, salt, cost=cost, parallel=parallel, size=64)[:32].hex() == start


def test_a_file_is_what_its_format_says(content):
    """Taken apart by hand, with scrypt of Python's own library."""
    import hashlib

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    header, rest = content[:37], content[37:]
    assert header[:9] == b"FRCNNENC\x01"
    key = hashlib.scrypt(KEY.encode(), salt=header[9:25], n=2**15, r=8, p=3, dklen=32, maxmem=2**26)
    assert AESGCM(key).decrypt(header[25:], rest, header) == b"weights" * 100


def test_two_files_of_the_same_content_share_nothing(content):
    other = sealed(b"weights" * 100, KEY, where="a test")
    assert other[9:37] != content[9:37] and other[37:] != content[37:]


@pytest.mark.parametrize("place", [9, 24, 25, 36, 37, 400, -1])  # salt, nonce, content, tag
def test_any_byte_that_changed_is_noticed(content, place):
    changed = bytearray(content)
    changed[place] ^= 1
    with pytest.raises(SpecError, match="the key is not the file's, or the file was changed or cut off"):
        opened(bytes(changed), KEY, where="a.ckpt.enc")


@pytest.mark.parametrize("length", [8, 36, 52])
def test_a_file_without_room_for_anything_is_cut_off(content, length):
    with pytest.raises(WeightsError, match="is cut off"):
        opened(content[:length], KEY, where="a.ckpt.enc")


def test_a_file_that_ends_early_does_not_open(content):
    with pytest.raises(SpecError, match="changed or cut off"):
        opened(content[:-1], KEY, where="a.ckpt.enc")


def test_a_version_of_the_future_is_named(content):
    with pytest.raises(WeightsError, match="a newer frcnn wrote it"):
        opened(content[:8] + b"\x02" + content[9:], KEY, where="a.ckpt.enc")


def test_sealing_replaces_the_file(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"graph")
    assert unsealed(path) == b"graph"  # no key is needed for what is not sealed
    assert seal(path, KEY) == tmp_path / "model.onnx.enc"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx.enc"]
    assert unsealed(tmp_path / "model.onnx.enc", KEY) == b"graph"


@pytest.mark.parametrize(
    ("content", "found"), [(b"", "an empty file"), (b"etlt of TAO's", "begin with b'etlt of '")]
)
def test_what_is_called_enc_and_is_none(tmp_path, content, found):
    path = tmp_path / "model.onnx.enc"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="only its toolkit decodes") as error:
        unsealed(path, KEY)
    assert found in str(error.value)


def test_a_missing_key_names_three_ways(content, tmp_path):
    with pytest.raises(SpecError) as error:
        opened(content, where="a.ckpt.enc")
    assert all(way in str(error.value) for way in ("enc_key=KEY", "in the spec", "FRCNN_ENC_KEY", "key=KEY"))


def test_suffixes():
    assert [
        model_suffix(name) for name in ("a.ckpt", "b/a.ckpt.enc", "A.ONNX", "a.onnx.enc", "enc", "a.enc")
    ] == [
        *(".ckpt", ".ckpt", ".onnx", ".onnx", "", ""),
    ]


# Commands


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return runs.scenes(tmp_path_factory.mktemp("scenes"), train=4, val=2)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A finished run with encrypted checkpoints."""
    out = tmp_path_factory.mktemp("runs") / "sealed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(encryption.VARIABLE, "")
        key = f"enc_key={KEY}"
        assert runs.train(folder, out, key, "run.encrypt_checkpoints=true", "run.keep_checkpoints=1") == 0
    return out


def test_a_run_leaves_encrypted_checkpoints_only(trained):
    names = ["best.ckpt.enc", "frcnn_resnet_10.epoch_2.ckpt.enc", "last.ckpt.enc"]
    assert sorted(file.name for file in (trained / "checkpoints").iterdir()) == names
    found = json.loads((trained / "results.json").read_text())
    assert found["model"] == "checkpoints/last.ckpt.enc"
    assert found["best"]["checkpoint"] == "best.ckpt.enc"


def test_the_key_is_in_no_file_of_the_run(trained):
    files = [file for file in trained.rglob("*") if file.is_file()]
    assert files and not any(KEY.encode() in file.read_bytes() for file in files)


COMMANDS = {
    "evaluate": ("evaluate", "model_path={run}/checkpoints/last.ckpt.enc"),
    "infer": ("infer", "model_path={run}/checkpoints/last.ckpt.enc", "images={data}/validation/image_2"),
    "prune": ("prune", "model_path={run}/checkpoints/last.ckpt.enc"),
    "pretrained": ("train", "training_config.pretrained_weights={run}/checkpoints/best.ckpt.enc"),
    "retrain": ("train", "training_config.retrain_pruned_model={run}/checkpoints/best.ckpt.enc"),
    "resume": ("train", "training_config.resume_from_model={run}/checkpoints/last.ckpt.enc"),
}


def run(name, folder, trained, out, *more):
    command, *items = COMMANDS[name]
    items = [item.format(run=trained, data=folder) for item in items]
    if command == "train":
        items += [*runs.data(folder), *runs.SMALL, "run.dry_run=true", "training_config.num_epochs=3"]
        items.remove("training_config.num_epochs=2")
    return main(command, [*items, f"hydra.run.dir={out}", *more])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_opens_an_encrypted_checkpoint(name, folder, trained, tmp_path, monkeypatch):
    monkeypatch.setenv(encryption.VARIABLE, KEY)
    assert run(name, folder, trained, tmp_path / "out") == 0
    assert not [file for file in tmp_path.rglob("*") if file.suffix == ".ckpt"]  # what prune writes is sealed


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("key", "said"), [([], "needs the key"), (["enc_key=other"], "the key is not the file's")]
)
def test_every_command_says_what_is_wrong_with_the_key(name, key, said, folder, trained, tmp_path, capsys):
    assert run(name, folder, trained, tmp_path / "out", *key) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_goes_on_from_its_encrypted_checkpoint(folder, tmp_path):
    out = tmp_path / "out"
    more = [
        "run.encrypt_checkpoints=true",
        f"enc_key={KEY}",
        "training_config.learning_rate.soft_start.base_lr=1e-4",
    ]
    assert runs.train(folder, out, *more, "trainer.limit_train_batches=1") == 0
    spec = tmp_path / "spec.txt"  # the third way to give it
    spec.write_text(f"enc_key: '{KEY}'\n" + (out / "spec.txt").read_text())
    on = [f"spec={spec}", "run.resume=last", f"hydra.run.dir={out}", "run.encrypt_checkpoints=true"]
    assert main("train", [*on, "run.num_workers=0", "training_config.num_epochs=3"]) == 0
    assert Checkpoint(out / "checkpoints" / "last.ckpt.enc", key=KEY).epochs == 3


def test_encryption_without_a_key_stops_before_anything_is_read(tmp_path, capsys):
    assert runs.train(tmp_path / "nowhere", tmp_path / "out", "run.encrypt_checkpoints=true") == 2
    assert "run.encrypt_checkpoints: needs the key" in capsys.readouterr().err


def test_models_are_loaded_and_written_anew_with_their_key(tmp_path, monkeypatch, capsys):
    plain, locked, back = tmp_path / "a.ckpt", tmp_path / "b.ckpt.enc", tmp_path / "c.ckpt"
    write_model(plain)
    assert import_weights([str(plain), str(locked)]) == 2
    assert import_weights([str(plain), str(locked), "-k", KEY]) == 0
    assert import_weights([str(locked), str(back), "-k", KEY]) == 0
    monkeypatch.setenv(encryption.VARIABLE, "")
    weights = [Checkpoint(path, key=KEY).content["state_dict"] for path in (plain, locked, back)]
    assert all(torch.equal(value, other[name]) for name, value in weights[0].items() for other in weights)
    picture = torch.arange(3 * 40 * 60).reshape(40, 60, 3).to(torch.uint8).numpy()
    found, other = frcnn.load(plain, threshold=0)(picture), frcnn.load(locked, threshold=0, key=KEY)(picture)
    assert len(found) > 0
    assert (found.boxes == other.boxes).all()
    with pytest.raises(SpecError, match="the key is not"):
        frcnn.load(locked, key="other")

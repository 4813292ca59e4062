"""Checkpoint files on good and bad days: full disks, foreign files, no hard links."""

import os
import subprocess
import sys
import textwrap
import zipfile

import pytest
import torch

from frcnn.checkpoint_io import AtomicCheckpointIO, link_checkpoint
from frcnn.errors import RunError, WeightsError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_round_trip_leaves_one_file(tmp_path):
    path = tmp_path / "new" / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint({"x": torch.arange(3), "text": "spec"}, path)
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    assert loaded["x"].tolist() == [0, 1, 2]
    assert loaded["text"] == "spec"
    assert names(path.parent) == ["a.ckpt"]


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_full_disk_leaves_the_old_checkpoint_whole(tmp_path):
    script = f"""
        import resource, torch
        from pathlib import Path
        from frcnn.checkpoint_io import AtomicCheckpointIO
        from frcnn.errors import RunError

        path, io = Path({str(tmp_path / "last.ckpt")!r}), AtomicCheckpointIO()
        io.save_checkpoint({{"x": torch.ones(2)}}, path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        for floats in (24_900, 3_000_000):  # the limit is met at the very end, and in the middle
            try:
                io.save_checkpoint({{"x": torch.zeros(floats)}}, path)
            except RunError as error:
                assert io.load_checkpoint(path)["x"].tolist() == [1, 1]
                print(error)
                code = error.exit_code
            else:
                raise AssertionError(floats)
        raise SystemExit(code)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 1, done.stderr
    assert str(tmp_path / "last.ckpt") in done.stdout
    assert done.stdout.count("File too large") == 2
    assert "run.resume=last" in done.stdout
    assert names(tmp_path) == ["last.ckpt"]


def test_a_folder_that_cannot_be_made_is_a_run_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "file" / "a.ckpt")


def test_an_interrupt_leaves_no_litter(tmp_path, monkeypatch):
    def interrupted(checkpoint, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "a.ckpt")
    assert names(tmp_path) == []


class Pickled:
    pass


WORDS = {
    "class": "objects or code",
    "stride": "absurd size",
    "packed": "compressed",
    "text": "cannot be read",
    "empty": "cannot be read",
    "missing": "no such checkpoint",
}


@pytest.mark.parametrize("content", WORDS)
def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path, content):
    path = tmp_path / "a.ckpt"
    if content == "class":
        torch.save({"x": Pickled()}, path)
    elif content == "stride":
        torch.save({"optimizer_states": [{"x": torch.zeros(1).expand(10**12)}]}, path)
    elif content == "packed":
        torch.save({"x": torch.zeros(10**6)}, tmp_path / "plain")
        with zipfile.ZipFile(tmp_path / "plain") as plain, zipfile.ZipFile(path, "w", 8) as packed:
            for name in plain.namelist():
                packed.writestr(name, plain.read(name))
    elif content != "missing":
        path.write_text("not a checkpoint" if content == "text" else "")
    with pytest.raises(WeightsError, match=rf"a\.ckpt.*{WORDS[content]}"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)


def test_a_link_shares_bytes_and_replaces(tmp_path):
    old, new = tmp_path / "best.ckpt", tmp_path / "epoch_1.ckpt"
    old.write_text("old")
    new.write_text("new")
    link_checkpoint(new, old)
    assert old.samefile(new)
    link_checkpoint(new, old)
    assert names(tmp_path) == ["best.ckpt", "epoch_1.ckpt"]


def test_without_hard_links_it_is_a_copy(tmp_path, monkeypatch):
    def no_links(*names):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    old, new = tmp_path / "best.ckpt", tmp_path / "epoch_1.ckpt"
    new.write_text("new")
    link_checkpoint(new, old)
    assert old.read_text() == "new"
    assert not old.samefile(new)

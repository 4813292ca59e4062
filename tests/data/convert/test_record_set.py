"""Record sets are replaced as a whole, whatever happens on the way."""

import errno
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest
import tiny_data

from frcnn.data.convert import record_set
from frcnn.data.convert.record_set import replaced_set
from frcnn.data.readers.shards import find_records, record_name
from frcnn.data.readers.tfrecord import read_records
from frcnn.errors import DataError, FrcnnError, RunError

OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


def names(shards, folds=2):
    return [
        record_name("train", fold=fold, folds=folds, shard=shard, shards=shards)
        for fold in range(folds)
        for shard in range(max(shards, 1))
    ]


def convert(output, shards, word):
    """Write a set whose records tell which conversion they are from."""
    with replaced_set(output) as staging:
        for name in names(shards):
            with open(staging / name, "wb") as file:
                file.write(tiny_data.record(word + name.encode()))
                record_set.sync(file)


def contents(output):
    """What a reader makes of the set: the words of all its records, or the refusal."""
    try:
        files = find_records(f"{output}*")
        return [payload for path in files for _, payload in read_records(path)]
    except DataError as error:
        return error


def whole(shards, word):
    return [word + name.encode() for name in names(shards)]


def in_child(function, *arguments):
    """Run in a process of its own; returns its exit code, negative for a signal."""
    child = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    child.start()
    child.join(60)
    return child.exitcode


def killed_before(moment, output, shards):
    """Convert, but end by SIGKILL just before the moment-th change or opening of a file."""
    left = moment

    def hook(event, arguments):
        nonlocal left
        if event in OPERATIONS and str(output.parent) in str(arguments[0]):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    convert(output, shards, b"new")


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 3), (0, 2), (2, 0)])
def test_killed_at_every_moment(tmp_path, before, after):
    seen = set()
    for moment in range(1, 100):
        output = tmp_path / str(moment) / "train"
        convert(output, before, b"old")
        code = in_child(killed_before, moment, output, after)
        found = contents(output)
        if isinstance(found, DataError):
            seen.add("refused")
            assert "interrupted" in str(found)
        else:
            assert found in (whole(before, b"old"), whole(after, b"new"))
            seen.add(found[0][:3])
        convert(output, after, b"new")
        assert contents(output) == whole(after, b"new")
        assert sorted(path.name for path in output.parent.iterdir()) == sorted(names(after))
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert moment > 10
    assert seen == {b"old", b"new", "refused"}


def test_a_first_conversion_killed_at_every_moment(tmp_path):
    for moment in range(1, 100):
        output = tmp_path / str(moment) / "deep" / "train"
        code = in_child(killed_before, moment, output, 2)
        found = contents(output)
        assert isinstance(found, DataError) or found == whole(2, b"new")
        convert(output, 2, b"new")
        if code == 0:
            return


@pytest.mark.parametrize("error", [DataError("a broken label"), KeyboardInterrupt(), ValueError()])
def test_a_failure_leaves_the_former_set(tmp_path, error):
    convert(tmp_path / "train", 2, b"old")
    with pytest.raises(type(error)), replaced_set(tmp_path / "train") as staging:
        (staging / names(2)[0]).write_bytes(b"half")
        raise error
    assert contents(tmp_path / "train") == whole(2, b"old")
    assert sorted(path.name for path in tmp_path.iterdir()) == names(2)


def test_a_failure_takes_the_folders_that_it_made(tmp_path):
    with pytest.raises(KeyError), replaced_set(tmp_path / "a" / "b" / "train"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tmp_path, monkeypatch):
    convert(tmp_path / "train", 2, b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        convert(tmp_path / "train", 3, b"new")
    monkeypatch.undo()
    assert contents(tmp_path / "train") == whole(2, b"old")
    assert sorted(path.name for path in tmp_path.iterdir()) == names(2)


def test_hidden_names_never_match_the_output(tmp_path):
    with replaced_set(tmp_path / "train") as staging:
        (staging / "train-fold-000-of-002").write_bytes(b"")
        assert staging.parent == tmp_path
        assert list(tmp_path.glob("train*")) == []
        with pytest.raises(DataError, match="no record files match"):
            find_records(str(tmp_path / "train*"))


def test_neighbours_stay(tmp_path):
    others = ["train2-fold-000-of-002", "train-old", "train-fold-0-of-2", "trai", "train-fold-000-of-002.bak"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "train-fold-009-of-010").mkdir()
    convert(tmp_path / "train", 2, b"old")
    convert(tmp_path / "train", 0, b"new")
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {*others, *names(0), "train-fold-009-of-010"}


def test_a_strangers_file_is_not_replaced(tmp_path):
    (tmp_path / "train").write_text("my notes on training")
    with pytest.raises(DataError, match="holds no records"):
        convert(tmp_path / "train", 2, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["train"]
    for ours in (b"", tiny_data.record(b"old")):
        (tmp_path / "train").write_bytes(ours)
        convert(tmp_path / "train", 2, b"new")
        assert not (tmp_path / "train").exists()


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / names(2)[1]).mkdir()
    with pytest.raises(RunError, match="a folder is in the way"):
        convert(tmp_path / "train", 2, b"new")
    assert [path.name for path in tmp_path.iterdir()] == [names(2)[1]]


def test_two_at_once(tmp_path):
    def second():
        try:
            convert(tmp_path / "train", 3, b"new")
        except FrcnnError as error:
            os._exit(7 if "another conversion" in str(error) else 8)

    with replaced_set(tmp_path / "train") as staging:
        (staging / "train-fold-000-of-002").write_bytes(tiny_data.record(b"first"))
        assert in_child(second) == 7
        assert in_child(convert, tmp_path / "train2", 2, b"new") == 0
    assert (tmp_path / "train-fold-000-of-002").exists()
    assert in_child(second) == 0
    assert contents(Path(f"{tmp_path}/train-")) == whole(3, b"new")


def test_interrupts_wait_until_the_set_is_replaced(tmp_path, monkeypatch):
    convert(tmp_path / "train", 2, b"old")
    replace = Path.replace

    def interrupted(source, target):
        os.kill(os.getpid(), signal.SIGINT)
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "train", 3, b"new")
    assert contents(tmp_path / "train") == whole(3, b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == names(3)

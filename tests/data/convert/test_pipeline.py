"""Writing of planned images: accounts, processes, memory."""

import json
import os
import subprocess
import sys
from functools import partial

import pytest

from frcnn.data.convert import pipeline as conversion
from frcnn.data.convert.pipeline import Converted, Plan, Skipped, write_set
from frcnn.data.convert.records import framed
from frcnn.data.convert.sample_modifier import SampleModifier
from frcnn.data.readers.tfrecord import read_records
from frcnn.errors import DataError, RunError

AS_IS = SampleModifier(class_mapping={})


def read(item, *, broken=None):
    """Item 3 is a record of 3 cars; every fifth has an object without area."""
    if item == broken:
        raise DataError("a broken label", where=f"label {item}")
    skipped = (Skipped(f"{item}_0", "van", (1, 2, 1, 4)),) if item % 5 == 0 else ()
    return Converted(framed(b"%d" % item), ("car",) * item, skipped)


def payloads(path):
    return [int(payload) for _, payload in read_records(path)]


def write(folder, items, *, reader=read, shards=2, modifier=AS_IS, processes=1, **more):
    plan = Plan([items, [100]], folds=2, shards=[shards, 1], read=reader)
    return write_set(plan, folder / "t", modifier=modifier, processes=processes, **more)


def test_files_and_account(tmp_path):
    advanced = []
    summary = write(tmp_path, [0, 1, 2, 3, 4], advance=lambda: advanced.append(1))
    assert payloads(tmp_path / "t-fold-000-of-002-shard-00000-of-00002") == [0, 1]
    assert payloads(tmp_path / "t-fold-000-of-002-shard-00001-of-00002") == [2, 3, 4]
    assert payloads(tmp_path / "t-fold-001-of-002-shard-00000-of-00001") == [100]
    first, second = summary.folds
    assert (first.images, first.empty, first.records, first.objects) == (5, 1, 5, {"car": 10})
    assert (second.images, second.objects) == (1, {"car": 100})
    assert (summary.files, summary.empty_files, summary.skipped) == (3, 0, {"van": 2})
    assert len(advanced) == 6
    assert json.loads((tmp_path / "t_warning.json").read_text()) == {
        "0_0": [1, 2, 1, 4],
        "100_0": [1, 2, 1, 4],
    }


def test_no_warning_file_where_nothing_was_skipped(tmp_path):
    write(tmp_path, [0])
    assert (tmp_path / "t_warning.json").exists()
    plan = Plan([[1, 2]], folds=1, shards=[0], read=read)
    write_set(plan, tmp_path / "t", modifier=AS_IS, processes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["t-fold-000-of-001"]


def test_an_empty_partition_has_no_number(tmp_path):
    summary = write(tmp_path, [])
    assert [path.name for path in tmp_path.glob("t-*")] == ["t-fold-000-of-002-shard-00000-of-00001"]
    assert len(summary.folds) == 1


def test_more_shards_than_images(tmp_path):
    summary = write(tmp_path, [1, 2], shards=3)
    assert (summary.files, summary.empty_files) == (4, 2)
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("t-fold-000*"))]
    assert sizes[:2] == [0, 0]


def test_copies_lie_beside_each_other(tmp_path):
    modifier = SampleModifier(
        class_mapping={"car": "car"}, dominant=["person"], num_duplicates=1, limit=5, validation_fold=1
    )
    summary = write(tmp_path, [0, 1, 2, 3], shards=0, modifier=modifier)
    # 0 has no objects; the others have more cars than persons
    assert payloads(tmp_path / "t-fold-000-of-002") == [0, 1, 1, 2, 2]
    fold = summary.folds[0]
    assert (fold.images, fold.copies, fold.cut, fold.records, fold.objects) == (4, 3, 2, 5, {"car": 6})
    assert summary.folds[1].records == 1


@pytest.mark.parametrize("processes", [1, 3])
def test_processes_do_not_change_the_files(tmp_path, monkeypatch, processes):
    monkeypatch.setattr(conversion, "_MANY", 10)
    write(tmp_path, list(range(500)), processes=processes)
    found = [payloads(path) for path in sorted(tmp_path.glob("t-fold-000*"))]
    assert found == [list(range(250)), list(range(250, 500))]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_comes_through_and_leaves_nothing(tmp_path, monkeypatch, processes):
    monkeypatch.setattr(conversion, "_MANY", 10)
    with pytest.raises(DataError, match="label 450: a broken label"):
        write(tmp_path, list(range(500)), reader=partial(read, broken=450), processes=processes)
    assert list(tmp_path.iterdir()) == []


def die(item):
    os._exit(1)


def test_a_lost_process(tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "_MANY", 10)
    with pytest.raises(RunError, match="was killed"):
        write(tmp_path, list(range(500)), reader=die, processes=2)
    assert list(tmp_path.iterdir()) == []


def test_few_images_are_read_ahead(monkeypatch):
    """A slow disk does not let the records pile up in memory."""
    taken = []

    class Pool:
        def __init__(self, *arguments, **more):
            pass

        def submit(self, function, read, chunk):
            taken.append(len(chunk))
            future = conversion.Future()
            future.set_result(function(read, chunk))
            return future

        def shutdown(self, **more):
            pass

    monkeypatch.setattr(conversion, "ProcessPoolExecutor", Pool)
    images = conversion._in_order(read, range(10_000), 2)
    next(images)
    assert sum(taken) == 2 * 4 * 32


ORPHANS = """
import os, signal, sys, time
from frcnn.data.convert.pipeline import _in_order

def slow(item):
    if item == 40:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    return item

list(_in_order(slow, list(range(256)), 4))
"""


def test_readers_end_when_their_parent_is_killed(tmp_path):
    # The call returns when the last process that holds the pipe has ended.
    done = subprocess.run([sys.executable, "-c", ORPHANS], capture_output=True, timeout=60, check=False)
    assert done.returncode == -9

"""Where the paths of a spec are tried, and what container paths mean."""

import json
from pathlib import Path

import pytest

from frcnn import paths
from frcnn.errors import DataError, SpecError
from frcnn.paths import PathFinder, load_mounts


def test_places_are_tried_in_order(tmp_path, monkeypatch):
    for name in ("cwd", "base", "spec"):
        (tmp_path / name / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("DATA_BASE_PATH", str(tmp_path / "base"))
    finder = PathFinder(spec_folder=str(tmp_path / "spec"))
    for name in ("cwd", "base", "spec"):
        assert finder.find(name, field="x") == tmp_path / name / name
    with pytest.raises(DataError) as caught:
        finder.find("nowhere/*", field="dataset_config.data_sources.0.tfrecords_path")
    message = str(caught.value)
    assert "dataset_config.data_sources.0.tfrecords_path: no file matches" in message
    assert all(str(tmp_path / name / "nowhere" / "*") in message for name in ("cwd", "base", "spec"))
    assert "cwd holds cwd" in message


def test_globs_and_absolute_paths(tmp_path):
    (tmp_path / "a-fold-000-of-002").write_text("")
    assert PathFinder().find(f"{tmp_path}/a-*", field="x") == tmp_path / "a-*"
    with pytest.raises(DataError, match="run.mounts"):
        PathFinder().find("/workspace/nothing", field="x")


def test_the_longest_mount_wins(tmp_path):
    (tmp_path / "data").mkdir()
    finder = PathFinder(mounts={"/workspace": "/nowhere", "/workspace/data": str(tmp_path / "data")})
    assert finder.find("/workspace/data", field="x") == tmp_path / "data"
    with pytest.raises(DataError):
        finder.find("/workspace/database", field="x")


def test_the_originals_mounts_file(tmp_path, monkeypatch):
    file = tmp_path / "mounts.json"
    monkeypatch.setattr(paths, "MOUNTS_FILE", file)
    assert load_mounts({}) == {}
    file.write_text(json.dumps({"Mounts": [{"source": "/data", "destination": "/workspace"}]}))
    assert load_mounts({}) == {"/workspace": "/data"}
    assert load_mounts({"/a": "/b"}) == {"/a": "/b"}
    file.write_text("[]")
    with pytest.raises(SpecError, match="mounts.json"):
        load_mounts({})


def test_where_something_is_written_need_not_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finder = PathFinder(spec_folder="/specs", mounts={"/workspace": "/data"})
    assert finder.target("out/images") == tmp_path / "out" / "images"
    assert finder.target("/workspace/out") == Path("/data/out")

import logging
from pathlib import Path

import pytest

from frcnn.data.readers.shards import (
    find_records,
    in_fold,
    is_of_set,
    record_name,
    select_fold,
    unfinished_mark,
)
from frcnn.errors import DataError


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")


def test_matches_are_sorted_files(tmp_path: Path) -> None:
    touch(tmp_path, "t-b", "t-a", "other")
    (tmp_path / "t-folder").mkdir()
    assert [path.name for path in find_records(str(tmp_path / "t-*"))] == ["t-a", "t-b"]


def test_a_glob_without_matches_tells_what_the_folder_holds(tmp_path: Path) -> None:
    touch(tmp_path / "records", "val-0", "test-0")
    with pytest.raises(DataError) as info:
        find_records(str(tmp_path / "records" / "train*"))
    assert info.value.where == str(tmp_path / "records" / "train*")
    assert info.value.found == f"{tmp_path / 'records'} holds test-0, val-0"
    with pytest.raises(DataError, match="holds records"):
        find_records(str(tmp_path / "recs" / "deep" / "train*"))


def test_warning_files_are_skipped_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "train", "train_warning.json")
    with caplog.at_level(logging.INFO):
        assert [path.name for path in find_records(str(tmp_path / "*"))] == ["train"]
    assert "skipped train_warning.json" in caplog.text
    (tmp_path / "train").unlink()
    with pytest.raises(DataError, match="no record files match"):
        find_records(str(tmp_path / "*"))


def test_missing_shards_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "t-fold-000-of-002-shard-00000-of-00002", "t-fold-000-of-002-shard-00001-of-00002")
    touch(tmp_path, "t-fold-001-of-002-shard-00001-of-00003")
    with pytest.raises(DataError, match="2 of 3 shards are missing") as info:
        find_records(str(tmp_path / "t-*"))
    assert info.value.found == (
        "no t-fold-001-of-002-shard-00000-of-00003, t-fold-001-of-002-shard-00002-of-00003"
    )
    assert len(find_records(str(tmp_path / "t-fold-000*"))) == 2


def test_the_fold_stands_in_the_name_not_in_the_path() -> None:
    assert in_fold(Path("x/t-fold-002-of-003-shard-00000-of-00001"), 2)
    assert not in_fold(Path("fold-002-of-003/t-fold-001-of-003"), 2)
    assert not in_fold(Path("t-fold-012-of-020"), 2)


def test_a_fold_validates_and_the_others_train() -> None:
    files = [Path(f"t-fold-{fold:03d}-of-003") for fold in range(3)]
    assert select_fold(files, 1, validation=True) == [files[1]]
    assert select_fold(files, 1, validation=False) == [files[0], files[2]]


@pytest.mark.parametrize("validation", [True, False])
def test_an_unknown_fold_lists_the_folds(validation: bool) -> None:
    files = [Path(f"t-fold-{fold:03d}-of-003") for fold in range(3)]
    with pytest.raises(DataError, match="validation fold 5") as info:
        select_fold(files, 5, validation=validation)
    assert info.value.allowed == "folds 0, 1, 2"
    with pytest.raises(DataError, match="file names that carry fold-###-of-"):
        select_fold([Path("train-0")], 0, validation=validation)


def test_a_fold_that_takes_everything() -> None:
    files = [Path("t-fold-000-of-002")]
    assert select_fold(files, 0, validation=True) == files
    with pytest.raises(DataError, match="leaves none for training") as info:
        select_fold(files, 0, validation=False)
    assert "val_split 0" in str(info.value)


@pytest.mark.parametrize(
    ("folds", "shards", "name"),
    [
        (2, 4, "t-fold-001-of-002-shard-00003-of-00004"),
        (2, 0, "t-fold-001-of-002"),
        (0, 4, "t-shard-00003-of-00004"),
        (0, 0, "t"),
    ],
)
def test_names_of_record_files(tmp_path: Path, folds: int, shards: int, name: str) -> None:
    """spec-and-data 3.4; a set whose replacement was interrupted is refused, its neighbours are not."""
    assert record_name("t", fold=1, folds=folds, shard=3, shards=shards) == name
    assert is_of_set(name, "t")
    touch(tmp_path, name)
    for other in ("t2", "t-fold-001", "-t", "T"):
        unfinished_mark(tmp_path, other).touch()
        assert not is_of_set(name, other)
    if shards:
        with pytest.raises(DataError, match="shards are missing"):
            find_records(str(tmp_path / "t*"))
    else:
        assert find_records(str(tmp_path / "t*")) == [tmp_path / name]
    unfinished_mark(tmp_path, "t").touch()
    with pytest.raises(DataError, match="was interrupted") as info:
        find_records(str(tmp_path / "t*"))
    assert info.value.where == tmp_path / "t"


@pytest.mark.parametrize(
    "name",
    ["t_warning.json.bak", "t-fold-01-of-02", "t-shard-00000", "t-", "t.x", "tt", "t-fold-000-of-002x"],
)
def test_names_of_other_files(name: str) -> None:
    assert not is_of_set(name, "t")
    assert is_of_set("t_warning.json", "t")

"""Record files on disk: their names, which files a glob means, whether a set is whole, what a fold holds."""

import glob
import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from frcnn.errors import DataError

_log = logging.getLogger(__name__)
_SHARD = re.compile(r"(.*)-shard-(\d{5,})-of-(\d{5,})")
_FOLD = re.compile(r"fold-(\d{3,})-of-")
_FOLD_SUFFIX = r"-fold-\d{3,}-of-\d{3,}"
_SHARD_SUFFIX = r"-shard-\d{5,}-of-\d{5,}"
WARNING_SUFFIX = "_warning.json"


def record_name(stem: str, *, fold: int, folds: int, shard: int, shards: int) -> str:
    """TAO's name of a record file; 0 folds or shards leave out their part."""
    name = stem + (f"-fold-{fold:03d}-of-{folds:03d}" if folds else "")
    return name + (f"-shard-{shard:05d}-of-{shards:05d}" if shards else "")


def is_of_set(name: str, stem: str) -> bool:
    """Whether a conversion to `stem` could have written a file of this name."""
    pattern = f"{re.escape(stem)}(({_FOLD_SUFFIX})?({_SHARD_SUFFIX})?|{re.escape(WARNING_SUFFIX)})"
    return re.fullmatch(pattern, name, re.DOTALL) is not None


def unfinished_mark(folder: Path, stem: str) -> Path:
    """The file that is there while the set `stem` is being replaced, and after a kill in that moment."""
    return folder / f".{stem}.unfinished"


def find_records(pattern: str) -> list[Path]:
    """The record files that a glob matches, sorted. The converter's `*_warning.json` are left out.

    Raises:
        DataError: nothing matches, shards of a set are missing, or its conversion was interrupted while it
            put the new files in the place of the old.
    """
    names = sorted(glob.glob(pattern))  # noqa: PTH207 -- Path.glob refuses absolute patterns
    matches = [Path(name) for name in names if not Path(name).is_dir()]
    files = [path for path in matches if not path.name.endswith(WARNING_SUFFIX)]
    if skipped := [path.name for path in matches if path not in files]:
        _log.info("%s: skipped %s, which hold the converter's warnings", pattern, ", ".join(skipped))
    if not files:
        folder = Path(pattern).parent
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        held = sorted(path.name for path in folder.iterdir())
        raise DataError(
            "no record files match",
            where=pattern,
            found=f"{folder} holds {', '.join(held[:10]) or 'nothing'}{', ...' * (len(held) > 10)}",
            allowed="a glob such as 'records/train*'; quote the * in a shell",
        )
    _check_finished(files)
    _check_shards(files)
    return files


def in_fold(path: Path, fold: int) -> bool:
    """Whether a file name carries the fold's mark, `fold-000-of-` for fold 0.

    TAO looks at the whole path, so that a folder's name can move a file to another fold.
    """
    return f"fold-{fold:03d}-of-" in path.name


def select_fold(files: Sequence[Path], fold: int, *, validation: bool) -> list[Path]:
    """The files of a fold (validation) or all others (training).

    Raises:
        DataError: no file belongs to the fold, or none is left for training.
    """
    inside = [path for path in files if in_fold(path, fold)]
    folds = sorted({int(mark) for path in files for mark in _FOLD.findall(path.name)})
    if not inside:
        raise DataError(
            f"no record file belongs to validation fold {fold}",
            where="dataset_config.validation_fold",
            found=f"{len(files)} files, {files[0].name} first" if files else "no files",
            allowed=f"folds {', '.join(map(str, folds))}" if folds else "file names that carry fold-###-of-",
        )
    if validation:
        return inside
    if len(inside) == len(files):
        raise DataError(
            f"validation fold {fold} takes every record file and leaves none for training",
            where="dataset_config.validation_fold",
            found=f"{len(files)} files, {files[0].name} first",
            hint="a conversion with val_split 0 names its only partition fold 000; without validation_fold "
            "all of it is training data",
        )
    return [path for path in files if not in_fold(path, fold)]


def _check_finished(files: Sequence[Path]) -> None:
    """Raise `DataError` if a set that one of the files may belong to is half replaced."""
    for folder, stem in dict.fromkeys((path.parent, stem) for path in files for stem in _stems(path.name)):
        if unfinished_mark(folder, stem).exists():
            raise DataError(
                "the conversion of these records was interrupted",
                where=folder / stem,
                found=f"{unfinished_mark(folder, stem).name}, so the files may be of two conversions",
                hint="run convert_dataset again",
            )


def _stems(name: str) -> list[str]:
    """What `-o` may have been for a record file of this name."""
    return [
        name,
        *(re.sub(f"{end}$", "", name) for end in (_SHARD_SUFFIX, _FOLD_SUFFIX + _SHARD_SUFFIX, _FOLD_SUFFIX)),
    ]


def _check_shards(files: Sequence[Path]) -> None:
    """Raise `DataError` unless every `-shard-xxxxx-of-NNNNN` set among the files is whole."""
    present: dict[tuple[Path, str, int], set[int]] = defaultdict(set)
    for path in files:
        if match := _SHARD.fullmatch(path.name):
            stem, shard, total = match.groups()
            present[path.parent, stem, int(total)].add(int(shard))
    for (folder, stem, total), shards in present.items():
        if missing := sorted(set(range(total)) - shards):
            names = ", ".join(f"{stem}-shard-{shard:05d}-of-{total:05d}" for shard in missing[:5])
            raise DataError(
                f"{len(missing)} of {total} shards are missing",
                where=folder,
                found=f"no {names}{', ...' * (len(missing) > 5)}",
                hint="copy the missing files, or widen the glob",
            )

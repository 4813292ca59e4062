"""Record files on disk: which files a glob means, whether a set is whole, which fold a file belongs to."""

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


def find_records(pattern: str) -> list[Path]:
    """The record files that a glob matches, sorted. The converter's `*_warning.json` are left out.

    Raises:
        DataError: nothing matches, or shards of a set are missing.
    """
    names = sorted(glob.glob(pattern))  # noqa: PTH207 -- Path.glob refuses absolute patterns
    matches = [Path(name) for name in names if not Path(name).is_dir()]
    files = [path for path in matches if not path.name.endswith("_warning.json")]
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
            found=f"{len(files)} files, {files[0].name} first" if files else "no files",
            allowed=f"folds {', '.join(map(str, folds))}" if folds else "file names that carry fold-###-of-",
        )
    if validation:
        return inside
    if len(inside) == len(files):
        raise DataError(
            f"validation fold {fold} takes every record file and leaves none for training",
            found=f"{len(files)} files, {files[0].name} first",
            hint="a conversion with val_split 0 names its only partition fold 000",
        )
    return [path for path in files if not in_fold(path, fold)]


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

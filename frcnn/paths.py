"""Paths of a spec: where they are tried, and what container paths mean here."""

import glob
import json
import os
from collections.abc import Mapping
from pathlib import Path

from frcnn.errors import DataError, SpecError, WeightsError

MOUNTS_FILE = Path("~/.tao_mounts.json")


def conf_dir() -> Path:
    """The copy of conf/ that the wheel carries, or the folder of the checkout."""
    package = Path(__file__).resolve().parent
    return next(path for path in (package / "conf", package.parent / "conf") if path.is_dir())


def load_mounts(given: Mapping[str, str]) -> dict[str, str]:
    """Prefixes of spec paths and where they are here: as given, or else from ~/.tao_mounts.json.

    Raises:
        SpecError: the file is no TAO mounts file.
    """
    file = MOUNTS_FILE.expanduser()
    if given or not file.is_file():
        return dict(given)
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["Mounts"]
        return {str(entry["destination"]): str(entry["source"]) for entry in entries}
    except (ValueError, KeyError, TypeError) as error:
        shape = '{"Mounts": [{"source": ..., "destination": ...}]}'
        raise SpecError("is no TAO mounts file", where=file, found=str(error), allowed=shape) from None


def refuse_missing(path: Path, *, what: str) -> None:
    """Stop where a weight file should be and is not.

    Args:
        path: the file.
        what: weight file or checkpoint, for the message.

    Raises:
        WeightsError: nothing is there, or a folder.
    """
    if path.is_dir():
        raise WeightsError(f"is a folder, not a {what}", where=path)
    if not path.is_file():
        raise WeightsError(f"there is no such {what}", where=path)


class PathFinder:
    """Finds the files that a spec names.

    Args:
        spec_folder: folder of the spec file, or "".
        mounts: prefix in the spec to prefix here.
    """

    def __init__(self, *, spec_folder: str = "", mounts: Mapping[str, str] | None = None) -> None:
        bases = [str(Path.cwd()), os.environ.get("DATA_BASE_PATH", ""), spec_folder]
        self.bases = [Path(base).expanduser() for base in dict.fromkeys(bases) if base]
        self.mounts = dict(mounts or {})

    def find(self, text: str, *, field: str) -> Path:
        """The absolute path of a file, a folder or a glob pattern that matches something.

        Args:
            text: path as the spec has it.
            field: dotted path of the setting, for messages.

        Raises:
            DataError: nothing is there; lists what was tried.
        """
        candidates = self._candidates(text)
        for candidate in candidates:
            if candidate.exists() or glob.glob(str(candidate), recursive=True):  # noqa: PTH207  (absolute patterns)
                return candidate
        tried = "\n    ".join(f"{candidate}{_nearest_folder(candidate)}" for candidate in candidates)
        pattern = glob.has_magic(text)
        raise DataError(
            "no file matches" if pattern else "no such file or folder",
            where=field,
            found=f"{text}\n  tried: {tried}",
            hint="run.mounts={/workspace/tao-experiments: /data/tao} maps the paths of a container"
            if Path(text).is_absolute()
            else None,
        )

    def target(self, text: str) -> Path:
        """Where something that a spec names is to be written: mapped, or below the working directory."""
        return self._candidates(text)[0]

    def _candidates(self, text: str) -> list[Path]:
        for prefix, here in sorted(self.mounts.items(), key=lambda item: -len(item[0])):
            if text == prefix or text.startswith(prefix.rstrip("/") + "/"):
                text = here.rstrip("/") + text[len(prefix.rstrip("/")) :]
                break
        path = Path(text).expanduser()
        places = [path] if path.is_absolute() else [base / path for base in self.bases]
        return [Path(os.path.normpath(place)) for place in places]


def _nearest_folder(path: Path) -> str:
    folder = next((parent for parent in path.parents if parent.is_dir()), None)
    if folder is None:
        return ""
    names = sorted(child.name for child in folder.iterdir())
    listing = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return f"  ({folder} holds {listing or 'nothing'})"

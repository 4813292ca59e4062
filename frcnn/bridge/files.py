"""Files that are written whole or not at all, and text that is read with clear errors."""

import contextlib
import os
import tempfile
from pathlib import Path

from frcnn.errors import RunError, SpecError


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        SpecError: the file is missing, a folder, unreadable or not UTF-8.
    """
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(
            "is not UTF-8 text", where=path, found=f"{error.reason} at byte {error.start}"
        ) from None
    except FileNotFoundError:
        near = sorted(p.name for p in Path(path).parent.glob("*")) if Path(path).parent.is_dir() else []
        listing = ", ".join(near[:8]) + (", ..." if len(near) > 8 else "")
        raise SpecError(
            "no such file",
            where=path,
            found=f"its folder holds: {listing or 'nothing'}" if near else "its folder does not exist either",
        ) from None
    except OSError as error:
        raise SpecError("cannot be read", where=path, found=error.strerror) from None


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Write a file through a temporary one beside the target, so that a kill leaves no half file.

    Raises:
        RunError: the folder is missing or read-only, or the disk is full.
    """
    target = Path(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise RunError("cannot be written", where=target, found=error.strerror) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

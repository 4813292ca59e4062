"""Checkpoint files that are whole or absent: written beside their place, then renamed into it."""

import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from frcnn.encryption import SUFFIX, sealed
from frcnn.errors import RunError
from frcnn.safe_load import safe_load

GO_ON = "make room or choose another folder, then go on with run.resume=last"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's plugin for checkpoints on a disk that may be full and in runs that may be killed."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write `checkpoint` to `path`, making its folder.

        Raises:
            RunError: it could not be written; a checkpoint of that name stays as it was.
        """
        write_checkpoint(checkpoint, Path(path), hint=GO_ON)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Callable[..., Any] | None = lambda storage, loc: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint to the CPU, refusing pickled classes whatever `weights_only` says.

        Raises:
            WeightsError: as `safe_load`.
        """
        content: dict[str, Any] = safe_load(Path(path), what="checkpoint")
        return content


def write_checkpoint(content: dict[str, Any], path: Path, *, hint: str) -> None:
    """Write `content` to `path`, sealed where that is called .enc.

    Arguments as in `replacing`, errors as in `save_checkpoint`; a SpecError where there is no key.
    """
    with replacing(path, hint=hint) as unfinished, unfinished.open("wb") as file:
        if path.suffix == SUFFIX:
            plain = io.BytesIO()
            torch.save(content, plain)
            file.write(sealed(plain.getvalue(), where=path))
        else:
            torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def link_checkpoint(source: Path, target: Path) -> None:
    """Give the file `source` a second name; a copy where the file system has no hard links.

    Raises:
        RunError: neither worked; a file `target` stays as it was.
    """
    with replacing(target) as unfinished:
        unfinished.unlink(missing_ok=True)
        try:
            os.link(source, unfinished)
        except OSError:
            shutil.copyfile(source, unfinished)


@contextmanager
def replacing(target: Path, *, hint: str = GO_ON) -> Iterator[Path]:
    """A hidden name to write to, which takes the place of `target` once the block ends well.

    Args:
        target: the file.
        hint: what to do where it cannot be written.

    Raises:
        RunError: it cannot be written.
    """
    # One name per target, so that what a killed run left behind is overwritten and not collected.
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.replace(target)
    except (OSError, RuntimeError) as error:
        # torch's zip writer reports its own broken state and keeps the reason only as context.
        reason: BaseException | None = error
        while reason is not None and not isinstance(reason, OSError):
            reason = reason.__context__
        raise RunError(
            "a checkpoint could not be written; an earlier one is untouched",
            where=target,
            found=getattr(reason, "strerror", None) or error,
            hint=hint,
        ) from error
    finally:
        with suppress(OSError):  # renamed, or never made
            unfinished.unlink()

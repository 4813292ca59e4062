"""What Python users call: `frcnn.train`; `frcnn.load` is in `predictor`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frcnn.entry import main as entry
from frcnn.errors import SpecError


@dataclass(frozen=True)
class TrainingRun:
    """A finished training.

    Attributes:
        folder: of the run, with everything that the command leaves (README, "Train").
        score: what `run.optimize` names, as it was logged last; None if it is undefined.
        results: content of results.json; empty after `run.dry_run=true`.
    """

    folder: Path
    score: float | None
    results: dict[str, Any]

    @property
    def best(self) -> Path:
        """The checkpoint with the best mAP, or the last one where nothing was validated."""
        best, last = (self.folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
        return best if best.exists() else last


def train(overrides: Sequence[str] = ()) -> TrainingRun:
    """Train a detector in this process, as `frcnn train` with these arguments would.

    Further devices get processes of their own, as on the command line.

    Args:
        overrides: groups and settings, such as "backbone=resnet34", "spec=their_spec.txt" and
            "hydra.run.dir=results/mine".

    Raises:
        FrcnnError: wrong input, or a run that could not go on; `exit_code` says which.
        KeyboardInterrupt: Ctrl-C, after the run was closed.
    """
    flags = [item for item in overrides if item.startswith("-") and item != "-r"]
    if flags:
        hint = "sweeps and pages are for the command line: frcnn train -m ..."
        raise SpecError("takes settings, no flags", where="overrides", found=" ".join(flags), hint=hint)
    (run,) = entry.run("train", overrides)
    file = run.folder / "results.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return TrainingRun(run.folder, run.score, found)

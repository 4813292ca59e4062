"""Detections as files: KITTI labels as TAO writes them, COCO results, a table."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

from frcnn.bridge.files import write_text
from frcnn.predictor import Prediction

COLUMNS = ("image", "class", "label", "score", "x1", "y1", "x2", "y2", "image_width", "image_height")


def kitti_lines(prediction: Prediction) -> str:
    """A line of 16 columns per object: class, 0 0 0, the box in the picture's pixels, seven 0, score.

    Facts: eval-prune-export 3. A space within a class name would be one between columns; it is left out.
    """
    rows = zip(prediction.names, prediction.boxes.tolist(), prediction.scores.tolist(), strict=True)
    return "".join(
        f"{name.replace(' ', '')} 0 0 0 {' '.join(f'{side:.2f}' for side in box)} 0 0 0 0 0 0 0 {score:.7f}\n"
        for name, box, score in rows
    )


def label_names(names: Sequence[str]) -> dict[str, str]:
    """The label file of each image: .txt for its suffix, or behind it where two would share a file."""
    stems = [str(PurePosixPath(name).with_suffix(".txt")) for name in names]
    shared = {stem for stem, count in Counter(stems).items() if count > 1}
    return {n: f"{n}.txt" if stem in shared else stem for n, stem in zip(names, stems, strict=True)}


def image_ids(names: Sequence[str]) -> dict[str, int]:
    """COCO's id of each image: the number that its name is, as in COCO itself, else its place, from 1."""
    stems = [PurePosixPath(name).stem for name in names]
    if all(stem.isdecimal() for stem in stems) and len({int(stem) for stem in stems}) == len(stems):
        return {name: int(stem) for name, stem in zip(names, stems, strict=True)}
    return {name: place for place, name in enumerate(names, start=1)}


class DetectionFiles:
    """coco.json and detections.csv, written as detections come, and a label file for each picture.

    Args:
        folder: of the two files.
        labels: folder of the label files.
        names: of all pictures if they are known.
    """

    def __init__(self, folder: Path, labels: Path, names: Sequence[str]) -> None:
        self._folder, self._labels = folder, labels
        self._label_names, self._ids = label_names(names), image_ids(names)
        self._stack = ExitStack()
        self._coco: IO[str]
        self._table: Any
        self._written = 0

    def __enter__(self) -> Self:
        """Begin both files."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._labels.mkdir(parents=True, exist_ok=True)
        self._coco = self._stack.enter_context((self._folder / "coco.json").open("w", encoding="utf-8"))
        table = (self._folder / "detections.csv").open("w", encoding="utf-8", newline="")
        self._table = csv.writer(self._stack.enter_context(table))
        self._table.writerow(COLUMNS)
        self._coco.write("[")
        self._stack.callback(lambda: self._coco.write("\n]\n"))  # whole, even if the run is interrupted
        return self

    def __exit__(self, *_: object) -> None:
        """End both files."""
        self._stack.close()

    def add(self, name: str, prediction: Prediction) -> None:
        """Write the detections of a picture."""
        label = self._labels / self._label_names.get(name, str(PurePosixPath(name).with_suffix(".txt")))
        label.parent.mkdir(parents=True, exist_ok=True)
        write_text(label, kitti_lines(prediction))
        image_id = self._ids.setdefault(name, len(self._ids) + 1)
        height, width = prediction.size
        rows = zip(prediction.names, prediction.labels.tolist(), prediction.scores.tolist(), strict=True)
        for (class_name, class_id, score), (x1, y1, x2, y2) in zip(
            rows, prediction.boxes.tolist(), strict=True
        ):
            corners = [round(side, 3) for side in (x1, y1, x2, y2)]
            self._table.writerow([name, class_name, class_id, f"{score:.7f}", *corners, width, height])
            result = {
                "image_id": image_id,
                "category_id": class_id + 1,
                "bbox": [round(side, 3) for side in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(score, 7),
                "file_name": name,
                "category": class_name,
            }
            self._coco.write(("," if self._written else "") + "\n" + json.dumps(result))
            self._written += 1

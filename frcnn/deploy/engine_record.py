"""What is kept beside an engine: of what it was built, by which version, for which device."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from frcnn.bridge.files import read_text, write_text
from frcnn.errors import WeightsError

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """What an engine is, kept beside it as JSON.

    Attributes:
        library, version: that built it.
        device: that it was built on, as name and compute capability; None without one.
        precision: what was asked for.
        types: in which the graph computes.
        strongly_typed: whether these are the graph's own.
        flags: options of the build.
        inputs, outputs: name -> type and shape; -1 is open.
        profile: input name -> smallest, best and largest shape.
        onnx, sha256: name of the graph's file, and hash of the graph.
        bytes, seconds: size of the engine, and how long its build took.
        texts: what the graph's file keeps, the settings of the model among them.
    """

    library: str
    version: str
    device: dict[str, str] | None
    precision: str
    types: list[str]
    strongly_typed: bool
    flags: dict[str, Any]
    inputs: dict[str, dict[str, Any]]
    outputs: dict[str, dict[str, Any]]
    profile: dict[str, list[list[int]]]
    onnx: str
    sha256: str
    bytes: int
    seconds: float
    texts: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA


def record_path(engine_path: str | Path) -> Path:
    """Where the record of an engine is: `model.engine.json` beside `model.engine`."""
    engine_path = Path(engine_path)
    return engine_path.with_name(f"{engine_path.name}.json")


def write_record(record: EngineRecord, engine_path: str | Path) -> None:
    """Write the record of an engine."""
    write_text(record_path(engine_path), json.dumps(asdict(record), indent=2) + "\n")


def read_record(engine_path: str | Path) -> EngineRecord | None:
    """The record of an engine; None if it has none, as those that were built elsewhere.

    Raises:
        WeightsError: the file is no record.
    """
    path = record_path(engine_path)
    if not path.is_file():
        return None
    try:
        content = json.loads(read_text(path))
        if content["schema"] != SCHEMA:
            hint = "build the engine again"
            raise WeightsError(
                "is of another version", where=path, found=content["schema"], allowed=SCHEMA, hint=hint
            )
        return EngineRecord(**content)
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError("is no record of an engine", where=path, found=str(error)[:200]) from error

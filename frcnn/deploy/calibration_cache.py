"""Scales of int8 in the text formats that TensorRT 10 and TAO read.

The first line is `TRT-<version>-EntropyCalibration2`; then `<tensor>: <hex>`, bits of float32(amax / 127).
Names of tensors may hold colons themselves.
"""

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path

from frcnn.bridge.files import read_text
from frcnn.errors import WeightsError

LARGEST = 127
"""The largest integer of a scale: amax / scale."""


def calibration_cache(scales: Mapping[str, float], *, version: int) -> str:
    """TensorRT's calibration cache: tensor -> the bits of its scale as hex (tao/eval-prune-export.md 6.4).

    Args:
        scales: tensor -> largest absolute value.
        version: of TensorRT, as it numbers it: 8501 for 8.5.1, 100300 for 10.3.0.
    """
    bits = {
        name: struct.unpack("<I", struct.pack("<f", value / LARGEST))[0] for name, value in scales.items()
    }
    lines = [f"TRT-{version}-EntropyCalibration2", *(f"{name}: {value:x}" for name, value in bits.items())]
    return "\n".join(lines) + "\n"


def scales_json(scales: Mapping[str, float]) -> str:
    """TAO's --cal_json_file: tensor -> largest absolute value (tao/eval-prune-export.md 5)."""
    return json.dumps({"tensor_scales": scales}, indent=4) + "\n"


def cache_of(path: Path, *, version: str) -> bytes:
    """A calibration cache for a version of the library, which skips those of other versions.

    Args:
        path: a cache of any version; or largest absolute values as JSON, `{"tensor_scales": {NAME: VALUE}}`.
        version: such as 10.16.1.

    Raises:
        SpecError: the file cannot be read.
        WeightsError: it holds no scales.
    """
    text = read_text(path)
    if path.suffix == ".json":
        return calibration_cache(_scales(text, path), version=_number(version)).encode()
    first, _, rest = text.partition("\n")
    match = re.fullmatch(r"TRT-\d+-(\w+)\s*", first)
    if match is None or not re.search(r"^.+: [0-9a-f]+\s*$", rest, re.MULTILINE):
        allowed = "TRT-<version>-EntropyCalibration2, then lines of NAME: HEX"
        raise WeightsError("is no calibration cache", where=path, found=first[:80], allowed=allowed)
    return f"TRT-{_number(version)}-{match[1]}\n{rest}".encode()


def _scales(text: str, path: Path) -> dict[str, float]:
    try:
        scales = {str(name): float(value) for name, value in json.loads(text)["tensor_scales"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        found, allowed = str(error)[:200], '{"tensor_scales": {NAME: VALUE}}'
        raise WeightsError("holds no scales", where=path, found=found, allowed=allowed) from error
    return scales


def _number(version: str) -> int:
    """10.16.1 -> 101601, as TensorRT numbers itself from 10 on."""
    major, minor, patch = ([int(part) for part in re.findall(r"\d+", version)] + [0, 0])[:3]
    return major * 10000 + minor * 100 + patch

"""Scales of int8 as TensorRT 10 reads them; the number is of tao/eval-prune-export.md 6.4."""

import json

import pytest

from frcnn.deploy.calibration_cache import cache_of
from frcnn.errors import SpecError, WeightsError


def test_scales_of_json(tmp_path):
    path = tmp_path / "scales.json"
    path.write_text(json.dumps({"tensor_scales": {"input_image": 6.0, "conv1/relu:0": 127}}))
    assert cache_of(path, version="10.16.1.11") == (
        b"TRT-101601-EntropyCalibration2\ninput_image: 3d418306\nconv1/relu:0: 3f800000\n"
    )


def test_a_cache_of_another_version_keeps_its_kind_and_lines(tmp_path):
    path = tmp_path / "cal.bin"
    path.write_text("TRT-8501-MinMaxCalibration\na:0: 3d418306\n")
    assert cache_of(path, version="10.3.0") == b"TRT-100300-MinMaxCalibration\na:0: 3d418306\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("cal.bin", "", "is no calibration cache"),
        ("cal.bin", "a: 3d418306\n", "is no calibration cache"),
        ("cal.bin", "TRT-8501-EntropyCalibration2\n", "is no calibration cache"),
        ("cal.json", "{}", "holds no scales"),
        ("cal.json", "[1]", "holds no scales"),
        ("cal.json", '{"tensor_scales": {"a": "x"}}', "holds no scales"),
    ],
)
def test_files_without_scales(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(WeightsError, match=said):
        cache_of(tmp_path / name, version="10.3.0")


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(SpecError, match="no such file"):
        cache_of(tmp_path / "cal.bin", version="10.3.0")

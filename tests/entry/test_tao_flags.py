"""The original's flags of export."""

import pytest

from frcnn.entry.main import main
from frcnn.entry.tao_flags import translated
from frcnn.errors import SpecError


def test_a_command_line_of_the_original():
    typed = "-m a.ckpt -k secret -e spec.txt -o out/a.onnx --gen_ds_config --target_opset 18 --static_batch_size=4"
    assert translated("export", typed.split()) == [
        "model_path=a.ckpt",
        "enc_key=secret",
        "spec=spec.txt",
        "export.output_file=out/a.onnx",
        "export.opset=18",
        "export.batch_size=4",
    ]


def test_either_spelling_and_the_hidden_ones():
    typed = (
        "--model a --key k --experiment_spec_file s --data_type int8 --batches 3 --batch_size 8 --force_ptq"
    )
    assert translated("export", [*typed.split(), "-s", "--onnx_route", "keras2onnx", "run.debug=true"]) == [
        "model_path=a",
        "enc_key=k",
        "spec=s",
        "export.data_type=int8",
        "export.batches=3",
        "export.cal_batch_size=8",
        "export.force_ptq=true",
        "export.strict_type_constraints=true",
        "run.debug=true",
    ]


def test_sweeps_and_other_commands_keep_theirs():
    assert translated("export", ["-m", "export.opset=18,20"]) == ["-m", "export.opset=18,20"]
    assert translated("train", ["-m", "x"]) == ["-m", "x"]


def test_a_flag_without_its_value():
    with pytest.raises(SpecError, match="needs a value"):
        translated("export", ["-o"])


def test_the_command_takes_them(tmp_path, capsys):
    assert main("export", ["-m", str(tmp_path / "none.ckpt"), "--target_opset", "18"]) == 2
    assert "none.ckpt" in capsys.readouterr().err

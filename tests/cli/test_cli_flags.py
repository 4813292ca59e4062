"""The original's command lines, word by word, and what each becomes."""

import os
import subprocess
import sys

import pytest
import tao_words

from frcnn.cli.flags import Flag, overrides, parse, quoted
from frcnn.cli.main import main
from frcnn.cli.verbs import VERBS
from frcnn.entry import overrides as cli
from frcnn.errors import SpecError

ROWS = [
    (verb, line, expected)
    for verb, lines in tao_words.FLAGS.items()
    for line, expected in lines.items()
    if expected is not None
]
LAUNCHER = [
    (verb, line, expected if verb in ("train", "evaluate", "inference", "prune", "export") else [])
    for verb in tao_words.FLAGS
    for line, expected in tao_words.LAUNCHER.items()
    if expected is not None
]


@pytest.fixture
def given(monkeypatch):
    """Runs a command line and returns what the function behind its verb was given."""
    for name in ("CUDA_VISIBLE_DEVICES", "FRCNN_ENC_KEY", "CUDA_LAUNCH_BLOCKING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    calls = []

    def take(verb, arguments):
        calls.append((verb.command or verb.module, arguments))
        return 0

    monkeypatch.setattr("frcnn.cli.main._run", take)

    def run(*words, code=0):
        calls.clear()
        assert main([*words]) == code
        return calls[0][1] if calls else None

    return run


@pytest.mark.parametrize(("verb", "line", "expected"), [*ROWS, *LAUNCHER])
def test_every_flag_of_the_original(given, verb, line, expected):
    assert given(verb, *line.split()) == expected


def test_the_whole_line(given, tmp_path):
    line = "-e spec.txt -r results -k hush --gpus 2 --gpu_index 0 1 --num_processes 2 --use_amp"
    words = ["train", *line.split(), "--log_file", str(tmp_path / "log.txt"), "training_config.num_epochs=2"]
    assert given(*words) == [
        *("trainer.accelerator=gpu", "trainer.devices=2", "trainer.processes=2"),
        *("trainer.precision=16-mixed", "spec=spec.txt", "-r", "results", "enc_key='hush'"),
        "training_config.num_epochs=2",
    ]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert os.environ["FRCNN_ENC_KEY"] == "hush"


def test_gpus_are_counted_among_those_that_are_ours(given, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    given("evaluate", "--gpus", "2", "--gpu_index", "2", "0")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7,4"
    assert given("train", "--gpus", "1", "--gpu_index", "2", code=2) is None
    assert "0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train --gpus 2 --gpu_index 0", "--gpu_index: needs as many different numbers"),
        ("train --gpu_index 0 1", "--gpus 2"),
        ("train --gpus 2 --gpu_index 1 1", "--gpu_index"),
        ("train --gpus 0", "a whole number from 1"),
        ("train --gpus two", "--gpus: is no number for it"),
        ("train --gpus 1 -np 2", "--num_processes: cannot share the GPUs"),
        ("train --gpus 4 -np 3", "a divisor of --gpus 4"),
        ("inference --gpus 2", "inference uses one GPU"),
        ("evaluate --gpus 2 -np 1", "evaluate has a process per GPU"),
        ("evaluate --use_amp", "--use_amp: is for train"),
        ("train --experiment_spek a", "did you mean --experiment_spec or --experiment_spec_file"),
        ("prune -ptj 0.1", "did you mean -pth"),
        ("train --zebra", "--help lists all flags"),
        ("train -r", "-r: needs a value"),
        ("train -r -k key", "-r: needs a value"),
        ("prune -v=1", "-v: takes no value"),
        ("gen_trt_engine -m a --cal_image_dir b", "frcnn export --data_type int8 writes the cache"),
        ("gen_trt_engine -m a --cal_data_file b", "frcnn export --data_type int8 writes the cache"),
        ("dataset_convert --dataset_specs a", "did you mean --dataset_spec"),
    ],
)
def test_wrong_lines_end_with_2_and_say_why(given, capsys, line, said):
    assert given(*line.split(), code=2) is None
    assert said in capsys.readouterr().err


def test_unknown_verbs_are_named_with_the_nearest(capsys):
    assert main(["trian", "-e", "a.txt"]) == 2
    assert "did you mean train?" in capsys.readouterr().err
    assert main([]) == 2


def test_values_may_hold_anything(given):
    assert given("prune", "--output_file=a b's,c.ckpt") == ["prune.output_file='a b\\'s,c.ckpt'"]
    assert given("train", "-e=my spec.txt", "-r", "out dir") == ["spec=my spec.txt", "-r", "out dir"]
    given("gen_trt_engine", "-k", "a=b c'")
    assert os.environ["FRCNN_ENC_KEY"] == "a=b c'"


def test_the_last_of_a_repeated_flag_counts():
    flag = Flag(("-b",), "", "N", sets=("x={}",))
    typed = parse(["-b", "1", "y=2", "-b", "3"], [flag])
    assert (typed.value("-b"), typed.rest) == ("3", ["y=2"])
    assert [overrides(flag, values) for flag, values in typed.flags] == [["x=1"], ["x=3"]]


def test_several_words_end_where_something_else_begins():
    flag = Flag(("-el",), "", "NAME ...", sets=("x={}",))
    typed = parse(["-el", "a", "b", "y=1", "c=2"], [flag])
    assert (typed.values("-el"), typed.rest) == (["a", "b"], ["y=1", "c=2"])
    assert parse(["-el", "a", "-h"], [flag]).help


@pytest.mark.parametrize("text", ["a", "0.5", "it's", "a, b", "[x]", "${now}", "a=b", "tail\\", "x\\'y"])
def test_quoted_values_come_through_hydra(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert str(OverridesParser.create().parse_override(f"key={quoted(text)}").value()) == text


def test_the_key_is_read_apart_and_handed_on_to_no_parser(given):
    """What becomes of it in a run is looked at in test_cli_runs.py."""
    for verb in ("train", "evaluate", "inference", "prune", "check"):
        (key,) = (item for item in given(verb, "-k", "it's 'hush'", "-r", "out") if "hush" in item)
        assert cli.parse([key]).values == {"enc_key": ["it's 'hush'"]}
    for verb in ("import_weights", "gen_trt_engine", "converter"):
        assert "hush" not in " ".join(given(verb, "-k", "hush", "in"))
        assert os.environ.pop("FRCNN_ENC_KEY") == "hush"


def test_a_verb_has_each_name_once():
    names = [name for verb in VERBS for name in (verb.name, *verb.aliases)]
    assert len(set(names)) == len(names)
    for verb in VERBS:
        spellings = [name for flag in verb.flags for name in flag.names]
        assert len(set(spellings)) == len(spellings), verb.name


def test_flags_set_what_there_is():
    for verb in VERBS:
        items = [item.partition("=")[0] for flag in verb.flags for item in flag.sets if "=" in item]
        settings = [item for item in items if item not in ("spec", "model_path", "images", "enc_key")]
        assert [item for item in settings if not cli.fields_on(item)] == [], verb.name


def test_flags_for_another_parser_are_known_to_it():
    from frcnn import build_engine, convert, import_weights

    parsers = {
        "frcnn.build_engine": build_engine._parser(),
        "frcnn.convert": convert._parser(),
        "frcnn.import_weights": import_weights._parser(),
    }
    for verb in VERBS:
        if verb.module in parsers:
            known = parsers[verb.module]._option_string_actions
            assert {flag.names[0] for flag in verb.flags if not flag.inert} <= {*known, "-k", "--key"}


def test_what_has_no_effect_is_said(given, capsys):
    given("train", "--multi-node", "--mpirun-arg", "-x A=1")
    said = capsys.readouterr().err
    assert "--multi-node has no effect: torchrun or srun" in said
    assert "--mpirun-arg has no effect" in said


def test_a_status_line_for_those_who_look_for_it(monkeypatch, capsys):
    monkeypatch.setattr("frcnn.cli.main._run", lambda verb, arguments: 1)
    assert main(["train", "-r", "x"]) == 1
    assert capsys.readouterr().out == "Execution status: FAIL\n"
    assert main(["train", "backbone=resnet18"]) == 1
    assert capsys.readouterr().out == ""


def test_the_log_file_takes_what_children_say(tmp_path):
    log = tmp_path / "a" / "log.txt"
    code = (
        "import os, sys; from frcnn.cli.launch import output_to\n"
        f"with output_to({str(log)!r}):\n    print('one'); os.system('echo two >&2')\nprint('three')"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "three\n"
    assert log.read_text() == "one\ntwo\n" * 2


def test_a_failure_is_one_and_is_in_the_log_file(tmp_path):
    log, command = tmp_path / "log.txt", [sys.executable, "-m", "frcnn"]
    line = ["dataset_convert", "-d", "none.txt", "-o", "out", "--log_file", str(log)]
    done = subprocess.run([*command, *line], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")
    assert "none.txt" in log.read_text()
    assert log.read_text().endswith("Execution status: FAIL\n")


def test_a_log_file_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["train", "--log_file", str(tmp_path / "file" / "log.txt")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_parse_names_what_is_missing():
    with pytest.raises(SpecError, match="needs a value"):
        parse(["-e"], [Flag(("-e",), "", "FILE")])

"""scripts/convert_spec.py as a user runs it."""

import resource
import subprocess
import sys

import pytest
from project import ROOT
from specs import TINY

from frcnn.bridge import prototxt, yaml
from frcnn.spec.dataset_export import DatasetExportConfig

SCRIPT = "scripts/convert_spec.py"
EXPORT = """kitti_config {
  root_directory_path: '/data'
  image_dir_name: 'image_2' label_dir_name: 'label_2'
  partition_mode: 'random' num_partitions: 2 val_split: 14
}
image_directory_path: '/data'
"""


def run(*arguments, stdin=None):
    command = [sys.executable, str(ROOT / SCRIPT), *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


def test_there_and_back(tmp_path):
    (tmp_path / "a.txt").write_text(TINY)
    assert run(tmp_path / "a.txt", tmp_path / "b.yaml").returncode == 0
    assert run(tmp_path / "b.yaml", tmp_path / "c.prototxt").returncode == 0
    assert prototxt.load(tmp_path / "c.prototxt") == prototxt.loads(TINY)
    assert "use_bias" not in (tmp_path / "b.yaml").read_text()


def test_a_dataset_convert_spec_there_and_back(tmp_path):
    text = EXPORT.replace("random", "neither")
    (tmp_path / "a.txt").write_text(text)
    done = run(tmp_path / "a.txt", tmp_path / "b.yaml")
    assert done.returncode == 2
    assert "a.txt:4:3: kitti_config.partition_mode" in done.stderr
    (tmp_path / "a.txt").write_text(EXPORT)
    assert run(tmp_path / "a.txt", tmp_path / "b.yaml").returncode == 0
    assert run(tmp_path / "b.yaml", tmp_path / "c.prototxt").returncode == 0
    first, last = (
        prototxt.parse_as(DatasetExportConfig, (tmp_path / name).read_text()).spec
        for name in ("a.txt", "c.prototxt")
    )
    assert first == last
    assert last.kitti_config.val_split == 14


def test_two_pipes_do_not_say_which_format_is_which():
    done = run("-", "-", stdin=TINY)
    assert (done.returncode, "suffix" in done.stderr) == (2, True)


def test_standard_output(tmp_path):
    (tmp_path / "a.txt").write_text(TINY)
    done = run(tmp_path / "a.txt", "-", "--full")
    assert done.returncode == 0
    assert "use_bias: false" in done.stdout
    assert "comments are not kept" in done.stderr
    assert yaml.loads(done.stdout) == prototxt.loads(TINY)
    assert run("-", tmp_path / "b.txt", stdin=done.stdout).returncode == 0
    assert prototxt.load(tmp_path / "b.txt") == prototxt.loads(TINY)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "model_config {", "a.txt:1:"),
        ("a.txt", TINY.replace("num_epochs: 1", "num_epochs: 0"), "training_config.num_epochs"),
        ("a.yaml", "model_config: [", "a.yaml:1:"),
        ("a.yaml", "model_config:\n  freez_bn: 1\n", "a.yaml:2:3: model_config.freez_bn"),
        ("a.json", "{}", "suffix"),
    ],
)
def test_refusals_leave_nothing_behind(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    done = run(tmp_path / name, tmp_path / "out.yaml")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_no_check_converts_whatever_parses(tmp_path):
    (tmp_path / "a.txt").write_text("random_seed: 3")
    assert run(tmp_path / "a.txt", tmp_path / "b.yaml").returncode == 2
    assert run(tmp_path / "a.txt", tmp_path / "b.yaml", "--no-check").returncode == 0
    assert (tmp_path / "b.yaml").read_text() == "random_seed: 3\n"


def test_an_existing_target_survives_a_refusal(tmp_path):
    (tmp_path / "b.yaml").write_text("random_seed: 3\n")
    (tmp_path / "a.txt").write_text("nonsense: 3")
    run(tmp_path / "a.txt", tmp_path / "b.yaml")
    assert (tmp_path / "b.yaml").read_text() == "random_seed: 3\n"


def test_torch_and_hydra_are_not_imported():
    code = "import sys; import frcnn.bridge.convert; print(sorted({'torch', 'hydra', 'omegaconf'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_takes_less_than_half_a_second(tmp_path):
    (tmp_path / "a.txt").write_text(TINY)
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(tmp_path / "a.txt", tmp_path / "b.yaml")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5

"""Runs of several processes: what they compute together, and that they end together."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import runs
import torch
from project import ROOT

from frcnn.entry.main import main
from frcnn.errors import DataError, ElsewhereError, RunError, SpecError
from frcnn.processes import RECORD, agreed
from frcnn.spec.run import App, Trainer
from frcnn.strategy import DataParallel
from frcnn.trainer import device_groups

CPU = ("trainer.accelerator=cpu",)
TWO = ("trainer=ddp", *CPU, "trainer.devices=2")
ONE_EACH = ("training_config.batch_size_per_gpu=1", "evaluation_config.batch_size=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two training images, one of them without objects; five to validate, which two cannot share evenly."""
    scenes = runs.scenes(tmp_path_factory.mktemp("scenes"), train=2, val=5)
    (scenes / "training" / "label_2" / "000001.txt").write_text("")
    return scenes


def command(folder, out, *more, script="train"):
    return [
        *(sys.executable, str(ROOT / "scripts" / f"{script}.py"), *runs.data(folder), *runs.SMALL),
        *(*ONE_EACH, f"hydra.run.dir={out}", *more),
    ]


def run(arguments, **environment):
    return subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=os.environ | {key: str(value) for key, value in environment.items()},
    )


def results(out):
    return json.loads((out / "results.json").read_text())


def weights(out):
    return torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def children(pid):
    """Processes that `pid` started for further devices."""
    mark = f"FRCNN_PARENT={pid}\0".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # gone, or someone else's
            continue
    return found


# What they compute


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """Two processes with an image each: one of them never has an object."""
    out = tmp_path_factory.mktemp("runs") / "two"
    done = run(command(folder, out, *TWO))
    assert done.returncode == 0, done.stderr
    return out, done.stderr


def test_a_process_without_objects_trains_along(trained):
    out, said = trained
    assert results(out)["epoch"] == 2
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    # One step an epoch; the rate is that of one device times two.
    assert next(float(row["lr"]) for row in rows if row.get("lr")) == pytest.approx(2 * 1e-4)
    assert len([row for row in rows if row.get("train/loss")]) == 2
    for noise in ("nused", "gloo", "Initializing", "Traceback", "Warning"):
        assert noise not in said


def test_one_process_and_two_find_the_same_to_the_digit(trained, tmp_path):
    """Each has its share of the five images, three and two; figures are gathered from both."""
    out, _ = trained
    model = f"model_path={out / 'checkpoints' / 'last.ckpt'}"
    script = str(ROOT / "scripts" / "evaluate.py")
    two = run([sys.executable, script, model, f"hydra.run.dir={tmp_path / 'two'}", *CPU, "trainer.devices=2"])
    assert two.returncode == 0, two.stderr
    one = ("trainer.devices=1", "trainer.strategy=auto")
    assert main("evaluate", [model, f"hydra.run.dir={tmp_path / 'one'}", *CPU, *one]) == 0
    found = [results(path) for path in (out, tmp_path / "two", tmp_path / "one")]
    assert [result["images"] for result in found] == [5, 5, 5]
    assert found[1]["per_class"] == found[2]["per_class"]
    # The training's own validation ran with another number of threads: mean scores may differ in the last bits.
    counted = [
        {name: {**values, "calibration": None} for name, values in result["per_class"].items()}
        for result in found
    ]
    assert counted[0] == counted[1]
    assert sum(values["detections"] for values in found[0]["per_class"].values()) > 0


@pytest.mark.slow
def test_synced_statistics_are_those_of_one_process_with_the_whole_batch(folder, tmp_path):
    """With frozen blocks and accumulation on the way, neither of which may make a process wait."""
    more = (
        "training_config.num_epochs=1",
        "model_config.freeze_blocks=[0,1]",
        "trainer.accumulate_grad_batches=2",
    )
    assert run(command(folder, tmp_path / "two", *TWO, *more, "trainer.sync_batchnorm=true")).returncode == 0
    assert run(command(folder, tmp_path / "apart", *TWO, *more)).returncode == 0
    whole = (*CPU, "trainer.devices=1", "training_config.batch_size_per_gpu=2")
    assert run(command(folder, tmp_path / "one", *more, *whole)).returncode == 0
    two, apart, one = (weights(tmp_path / name) for name in ("two", "apart", "one"))
    names = [name for name in one if "trunk.block_" in name and "running_" in name]
    assert len(names) == 18
    for name in names:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-4)
    moved = [name for name in names if "block_1" not in name]
    assert not any(torch.allclose(apart[name], one[name], rtol=1e-3) for name in moved)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["by hand", "torchrun", "slurm"])
def test_several_machines(folder, tmp_path, how):
    """Two processes that someone else starts, as two machines or for two devices of one."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    out, epochs = tmp_path / "run", "training_config.num_epochs=1"
    if how == "torchrun":
        launch = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
        arguments = command(folder, out, epochs, *TWO)
        done = [run([arguments[0], *launch, *arguments[1:]])]
    else:
        machines = ("trainer=ddp", *CPU, "trainer.devices=1", "trainer.num_nodes=2")
        ranks = [{"NODE_RANK": rank} for rank in (0, 1)]
        if how == "slurm":
            job = {"SLURM_NTASKS": 2, "SLURM_NTASKS_PER_NODE": 1, "SLURM_NNODES": 2, "SLURM_JOB_ID": port}
            local = {"SLURM_LOCALID": 0, "SLURM_JOB_NAME": "train"}
            ranks = [job | local | {"SLURM_PROCID": rank, "SLURM_NODEID": rank} for rank in (0, 1)]
        started = [
            subprocess.Popen(
                command(folder, out, epochs, *machines),
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {key: str(value) for key, value in (meet | rank).items()},
            )
            for rank in ranks
        ]
        done = []
        for process in started:
            said = process.communicate(timeout=240)[1]
            done.append(subprocess.CompletedProcess(process.args, process.returncode, "", said))
    assert [process.returncode for process in done] == [0] * len(done), [item.stderr for item in done]
    assert results(out)["images"] == 5
    with (out / "metrics.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file) if row.get("lr")]
    assert rates == [pytest.approx(2 * 1e-4)]


def test_machines_need_a_place_to_meet(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert runs.train(folder, tmp_path / "run", *CPU, "trainer.num_nodes=2") == 2
    message = capsys.readouterr().err
    assert "nothing says where they meet" in message
    assert "MASTER_ADDR" in message


# Model parallelism


def test_a_split_network_trains_as_a_whole_one_does(folder, tmp_path, capsys):
    """On the CPU all parts share it, so that nothing may change; checkpoints do not know of the split."""
    epoch = "training_config.num_epochs=1"
    split = "training_config.model_parallelism=[0.4,0.6]"
    assert runs.train(folder, tmp_path / "whole", epoch, *CPU, "trainer.devices=1") == 0
    capsys.readouterr()
    assert runs.train(folder, tmp_path / "split", epoch, *CPU, split) == 0
    said = capsys.readouterr().err
    assert "model parallelism, processes: 1" in said
    assert "block_2a_conv_shortcut" in said
    ours, theirs = weights(tmp_path / "split"), weights(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # The schedule of a longer run is another one, so only that it goes on can be seen.
    more = (f"hydra.run.dir={tmp_path / 'split'}", "training_config.num_epochs=2")
    assert main("train", ["run.resume=last", *more]) == 0
    assert results(tmp_path / "split")["epoch"] == 2


def test_fractions_have_to_fit_the_devices(folder, tmp_path, capsys):
    split = "training_config.model_parallelism=[1,1]"
    assert runs.train(folder, tmp_path / "run", *CPU, "trainer.devices=3", split) == 2
    message = capsys.readouterr().err
    assert "2 fractions and 3 devices" in message
    assert "a multiple of 2" in message
    assert runs.train(folder, tmp_path / "run", *CPU, "training_config.model_parallelism=[1,0]") == 2
    assert "training_config.model_parallelism.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("devices", "numbers"),
    [("auto", [[0, 1], [2, 3]]), ("2", [[0, 1]]), ("3,0", [[3, 0]]), ("0,2,3,1", [[0, 2], [3, 1]])],
)
def test_a_process_has_as_many_gpus_as_there_are_fractions(monkeypatch, devices, numbers):
    """Of four. Process r has numbers r * 2 and r * 2 + 1 of those that are meant."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    app = App(trainer=Trainer(devices=devices))
    app.training_config = SimpleNamespace(model_parallelism=[0.3, 0.7])
    groups = device_groups(app)
    assert [[device.index for device in group] for group in groups] == numbers
    assert {device.type for group in groups for device in group} == {"cuda"}


@pytest.mark.parametrize("devices", ["1", "3", "8", "0,5"])
def test_gpus_that_are_not_there_hold_no_part(monkeypatch, devices):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    app = App(trainer=Trainer(devices=devices))
    app.training_config = SimpleNamespace(model_parallelism=[0.3, 0.7])
    with pytest.raises(SpecError, match="a device for each fraction"):
        device_groups(app)


def test_the_wrapper_leaves_a_split_network_where_it_is():
    assert DataParallel(split=True).determine_ddp_device_ids() is None


@pytest.mark.slow
def test_split_networks_train_side_by_side(folder, tmp_path):
    """Four devices, two parts: two processes."""
    split = ("training_config.model_parallelism=[1,1]", "training_config.num_epochs=1", "trainer.devices=4")
    done = run(command(folder, tmp_path / "run", "trainer=ddp", *CPU, *split))
    assert done.returncode == 0, done.stderr
    assert "processes: 2" in done.stderr
    assert results(tmp_path / "run")["images"] == 5


# How they end


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_the_failure_of_one_is_the_failure_of_all(tmp_path, rank):
    """An image that cannot be read, in the validation of either process: one message, one exit code."""
    scenes = runs.scenes(tmp_path / "data", train=2, val=2)
    image = sorted((scenes / "validation" / "image_2").iterdir())[rank]
    image.write_bytes(image.read_bytes()[:3000])
    since = time.monotonic()
    done = run(command(scenes, tmp_path / "run", *TWO, "training_config.num_epochs=1"))
    assert done.returncode == 2
    assert time.monotonic() - since < 100  # on a busy machine; a lost process would cost 30 minutes
    assert done.stderr.count("the image cannot be read") == 1
    assert str(image) in done.stderr
    for noise in ("gloo", "Traceback", "RuntimeError", "Warning", "interrupted"):
        assert noise not in done.stderr
    status = [json.loads(line) for line in (tmp_path / "run" / "status.json").read_text().splitlines()]
    assert status[-1]["status"] == "FAILURE"
    assert str(image) in status[-1]["message"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, 1)], ids=["Ctrl-C", "lost"]
)
def test_signals_end_all(folder, tmp_path, signum, code):
    """Ctrl-C in the process that the user started; the other one killed, as where memory runs out."""
    arguments = command(folder, tmp_path / "run", *TWO, "training_config.num_epochs=500")
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "epoch 2/500" in line:
            break
    (child,) = children(process.pid)
    os.kill(process.pid if signum == signal.SIGINT else child, signum)
    since = time.monotonic()
    rest = process.stderr.read()
    assert process.wait(60) == code
    assert time.monotonic() - since < 30
    assert children(process.pid) == []
    for noise in ("gloo", "Traceback"):
        assert noise not in rest
    assert ("interrupted" if code == 130 else "process 1 ended with signal 9") in rest
    last = json.loads((tmp_path / "run" / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "FAILURE"


@pytest.mark.slow
def test_nobody_survives_the_first_process(folder, tmp_path):
    arguments = command(folder, tmp_path / "run", *TWO, "training_config.num_epochs=500")
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "epoch 2/500" in line:
            break
    assert len(children(process.pid)) == 1
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while children(process.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert children(process.pid) == []


WAITING = """
import subprocess, sys, time
from pathlib import Path
from frcnn.processes import ending_together
import os
os.environ |= {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "NODE_RANK": "0"}
child = subprocess.Popen([sys.executable, "-c", sys.argv[2]])
with ending_together(Path(sys.argv[1]), [child]):
    time.sleep(120)
"""


@pytest.mark.parametrize("reason", [None, {"code": 2, "text": "label.txt: is broken"}], ids=["none", "told"])
def test_who_waits_for_a_process_that_failed_to_start_ends(tmp_path, reason):
    """Where it would wait half an hour for the other one to come."""
    told = f"open({str(tmp_path / RECORD)!r}, 'w').write({json.dumps(reason)!r})" if reason else ""
    done = run([sys.executable, "-c", WAITING, str(tmp_path), f"{told}\nraise SystemExit(3)"])
    assert done.returncode == (2 if reason else 1)
    expected = "label.txt: is broken" if reason else "process 1 ended with exit code 3"
    assert expected in done.stderr
    assert expected in (tmp_path / "status.json").read_text()


@pytest.fixture
def be(monkeypatch):
    """Be one of two processes."""

    def rank(number):
        for name, value in {"WORLD_SIZE": 2, "NODE_RANK": 0, "LOCAL_RANK": number}.items():
            monkeypatch.setenv(name, str(value))

    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    return rank


ECHO = RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer")


def test_the_first_failure_counts_and_the_first_process_speaks(tmp_path, be):
    be(1)
    cause = DataError("is broken", where="a.png")
    silent = agreed(tmp_path, cause)
    assert (str(silent), silent.exit_code) == ("", 2)
    be(0)
    spoken = agreed(tmp_path, ECHO)
    assert isinstance(spoken, ElsewhereError)
    assert (str(spoken), spoken.exit_code) == ("a.png: is broken", 2)
    assert agreed(tmp_path, spoken) is spoken


def test_an_interruption_is_one_for_all(tmp_path, be):
    be(1)
    assert agreed(tmp_path, KeyboardInterrupt()).exit_code == 130
    be(0)
    assert isinstance(agreed(tmp_path, ECHO), KeyboardInterrupt)


def test_a_connection_lost_without_a_reason(tmp_path, be, monkeypatch):
    monkeypatch.setattr("frcnn.processes.ECHO_SECONDS", 0.1)
    be(0)
    found = agreed(tmp_path, ECHO)
    assert isinstance(found, RunError)
    assert "another process of the run was lost" in str(found)


def test_a_process_that_cannot_tell_speaks_itself(tmp_path, be):
    be(1)
    error = DataError("is broken")
    assert agreed(tmp_path / "nowhere", error) is error


def test_alone_an_error_is_what_it_is(tmp_path, monkeypatch):
    for name in ("WORLD_SIZE", "NODE_RANK", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    assert agreed(tmp_path, ECHO) is ECHO
    assert not (tmp_path / RECORD).exists()

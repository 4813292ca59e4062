"""ImageNet weights from files, and by name from the caches of torchvision and timm."""

import hashlib
import sys
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from imagenet_models import cut, empty, settle, timm_model, torchvision_model
from keras_files import make

from frcnn.errors import WeightsError
from frcnn.model.batch_norm import BatchNorm2d
from frcnn.weights.imagenet.lookup import fetch, look_up
from frcnn.weights.load import weighted_layers
from frcnn.weights.sources import Target, is_name, load_pretrained

TARGET = Target("mobilenet_v2", (123.675, 116.28, 103.53), 1.0, False)


@pytest.fixture(scope="module")
def state():
    model = empty(lambda: torchvision_model("mobilenet_v2"))
    settle(model, cut(model, "mobilenet_v2"))
    return model.state_dict()


@pytest.fixture(scope="module")
def timm_state():
    model = empty(lambda: timm_model("mobilenetv2_100"))
    settle(model, cut(model, "mobilenetv2_100"))
    return model.state_dict()


@pytest.fixture
def detector():
    return empty(lambda: make("mobilenet_v2"))


def hub_file(tmp_path, monkeypatch, source):
    """Where torch.hub keeps a file, in a cache of the test's own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    named = look_up(source)
    assert named.cached == tmp_path / "hub" / "checkpoints" / Path(named.url).name
    named.cached.parent.mkdir(parents=True, exist_ok=True)
    return named.cached


def test_names_and_paths():
    assert is_name("torchvision:resnet18")
    assert is_name("timm:mobilenetv2_100.ra_in1k")
    assert not is_name("weights/resnet18.pth")
    assert not is_name("C:/torchvision/resnet18.pth")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".PTH"])
def test_a_file_of_torchvision(tmp_path, detector, state, suffix):
    torch.save(state, tmp_path / f"a{suffix}")
    report = load_pretrained(detector, str(tmp_path / f"a{suffix}"), target=TARGET)
    assert len(report.loaded) == 104
    assert report.unused == ("classifier.1",)
    layers = weighted_layers(detector)
    name = "features.2.conv.0.0.weight"
    assert torch.equal(layers["block_1_expand"].weight, state[name])
    # Normalised by 255 times a deviation of its own per colour; means as in the source, so nothing else.
    factor = 255 * torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    assert torch.allclose(layers["conv1"].weight * factor, state["features.0.0.weight"], rtol=1e-5)
    rows = {row.name: row for row in report.rows}
    assert (rows["conv1"].note, rows["bn_conv1"].note) == ("for the spec's pixels", "eps folded")
    assert rows["rpn_conv1"].status == "None"


def test_statistics_of_photographs_give_way_to_those_of_the_first_batches(tmp_path, detector, state):
    """The first batch that trains replaces them; without training they are what was loaded."""
    torch.save(state, tmp_path / "a.pth")
    load_pretrained(detector, str(tmp_path / "a.pth"), target=TARGET)
    norm = weighted_layers(detector)["block_1_expand_bn"]
    assert isinstance(norm, BatchNorm2d)
    assert torch.equal(norm.running_mean, state["features.2.conv.0.1.running_mean"])
    norm.train()(torch.full((2, 96, 2, 2), 7.0))
    assert norm.running_mean[0].item() == pytest.approx(7.0)


def test_a_file_of_timm(tmp_path, detector, timm_state):
    safetensors.torch.save_file(timm_state, tmp_path / "model.safetensors")
    report = load_pretrained(detector, str(tmp_path / "model.safetensors"), target=TARGET)
    assert len(report.loaded) == 104
    assert torch.equal(
        weighted_layers(detector)["block_2_project"].weight, timm_state["blocks.1.1.conv_pwl.weight"]
    )


@pytest.mark.parametrize("file, same", [("tf_efficientnet_b0_ns.pth", True), ("efficientnet_b0.pth", False)])
def test_the_epsilon_of_tensorflow_is_in_the_name_of_a_file(tmp_path, caplog, file, same):
    model = empty(lambda: timm_model("efficientnet_b0"))
    settle(model, cut(model, "efficientnet_b0"), size=32)
    torch.save(model.state_dict(), tmp_path / file)
    detector = empty(lambda: make("efficientnet:b0"))
    load_pretrained(detector, str(tmp_path / file), target=TARGET._replace(arch="efficientnet:b0"))
    gamma, theirs = weighted_layers(detector)["top_bn"].weight, model.bn2.weight
    variance = model.bn2.running_var
    assert ("TensorFlow's have 1e-3" in caplog.text) is not same
    factor = 1 if same else ((variance + 1e-3) / (variance + 1e-5)).sqrt()
    assert torch.allclose(gamma, theirs * factor, rtol=1e-6)


def test_torchvision_by_name_from_the_cache(tmp_path, monkeypatch, detector, state):
    for source, file in (
        ("torchvision:mobilenet_v2", "mobilenet_v2-7ebf99e0.pth"),
        ("torchvision:mobilenet_v2.IMAGENET1K_V1", "mobilenet_v2-b0353104.pth"),
    ):
        cached = hub_file(tmp_path, monkeypatch, source)
        assert cached.name == file
        torch.save(state, cached)
        assert len(load_pretrained(detector, source, target=TARGET).loaded) == 104


def test_downloading_keeps_what_is_whole(tmp_path, monkeypatch, state):
    """From a file as from the net; torch.hub's names end in the start of the content's SHA-256."""
    torch.save(state, tmp_path / "there.pth")
    digest = hashlib.sha256((tmp_path / "there.pth").read_bytes()).hexdigest()[:8]
    named = look_up("torchvision:mobilenet_v2")._replace(url=(tmp_path / "there.pth").as_uri())
    cached = tmp_path / "cache" / f"mobilenet_v2-{digest}.pth"
    assert fetch(named._replace(cached=cached)).read_bytes() == (tmp_path / "there.pth").read_bytes()
    other = tmp_path / "cache" / "mobilenet_v2-00000000.pth"
    with pytest.raises(WeightsError, match="hash"):
        fetch(named._replace(cached=other))
    assert list(cached.parent.iterdir()) == [cached]


def test_torchvision_without_a_network(tmp_path, monkeypatch):
    cached = hub_file(tmp_path, monkeypatch, "torchvision:mobilenet_v2")
    named = look_up("torchvision:mobilenet_v2")
    assert named.url == "https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth"
    with pytest.raises(WeightsError) as error:
        fetch(named._replace(url="file:///there/is/no/such/file.pth"))
    assert "file:///there/is/no/such/file.pth" in str(error.value)
    assert f"put it at {cached}, or give the path of the file" in str(error.value)


@pytest.mark.parametrize(
    "source, found",
    [
        ("torchvision:mobilenet_v9", "allowed: mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small"),
        ("torchvision:nothing", "alexnet"),
        ("torchvision:resnet18.V9", "allowed: IMAGENET1K_V1"),
        ("torchvision:resnet18", "allowed: torchvision's mobilenet_v2 or timm's mobilenetv2_100"),
        ("timm:mobilenetv9", "timm has no such model"),
        ("timm:resnet10t", "allowed: torchvision's mobilenet_v2 or timm's mobilenetv2_100"),
        ("timm:mobilenetv2_035", "timm has no weights of this model"),
    ],
)
def test_names_that_lead_nowhere(detector, source, found):
    """All of these are told before anything is downloaded."""
    with pytest.raises(WeightsError) as error:
        load_pretrained(detector, source, target=TARGET)
    assert found in str(error.value)


def test_timm_by_name_from_the_cache(tmp_path, monkeypatch, detector, timm_state):
    """Its own normalisation and epsilon come with the name."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    named = look_up("timm:mobilenetv2_100")
    assert named.hub == ("timm/mobilenetv2_100.ra_in1k", "model.safetensors")
    assert named.eps == 1e-5
    assert named.cached == tmp_path / "models--timm--mobilenetv2_100.ra_in1k"
    (named.cached / "refs").mkdir(parents=True)
    (named.cached / "refs" / "main").write_text("0" * 40)
    (folder := named.cached / "snapshots" / ("0" * 40)).mkdir(parents=True)
    safetensors.torch.save_file(timm_state, folder / "model.safetensors")
    assert len(load_pretrained(detector, "timm:mobilenetv2_100", target=TARGET).loaded) == 104
    assert look_up("timm:tf_efficientnet_b0").eps == 1e-3
    assert look_up("timm:mobilenetv1_100").normalisation == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_timm_without_a_network(tmp_path, monkeypatch, detector):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    class ConnectError(Exception):
        """httpx has its own, which are no OSErrors."""

    def offline(*_, **__):
        raise ConnectError("no connection")

    def local_only(*_, local_files_only=False):
        assert local_files_only  # it would try again and again
        raise LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", local_only)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", offline)
    with pytest.raises(WeightsError) as error:
        load_pretrained(detector, "timm:mobilenetv2_100", target=TARGET)
    url = "https://huggingface.co/timm/mobilenetv2_100.ra_in1k/resolve/main/model.safetensors: no connection"
    assert url in str(error.value)
    assert "download that elsewhere and give the path of the file" in str(error.value)


def test_timm_is_optional(monkeypatch, detector):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(WeightsError, match="not installed") as error:
        load_pretrained(detector, "timm:mobilenetv2_100", target=TARGET)
    assert "pip install timm" in str(error.value)


def test_the_target_is_needed(tmp_path, detector, state):
    torch.save(state, tmp_path / "a.pth")
    for source in (str(tmp_path / "a.pth"), "torchvision:mobilenet_v2"):
        with pytest.raises(WeightsError, match="network's own input"):
            load_pretrained(detector, source)

"""Text to spec to text is a fixed point, and spec to YAML to spec loses nothing."""

import pytest
from hypothesis import HealthCheck, given, settings
from omegaconf import OmegaConf
from strategies import messages

from frcnn.bridge import prototxt, yaml
from frcnn.spec import Experiment
from frcnn.spec.dataset_export import DatasetExportConfig
from frcnn.spec.fields import build

lenient = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


@lenient
@given(messages(Experiment) | messages(DatasetExportConfig))
def test_prototxt(spec):
    text = prototxt.dumps(spec)
    again = prototxt.parse_as(type(spec), text).spec
    assert again == spec
    assert prototxt.dumps(again) == text


@lenient
@given(messages(Experiment) | messages(DatasetExportConfig))
def test_yaml(spec):
    assert yaml.parse_as(type(spec), yaml.dumps(spec)).spec == spec
    assert yaml.parse_as(type(spec), yaml.dumps(spec, full=True)).spec == spec


@lenient
@given(messages(Experiment))
def test_omegaconf_reads_our_yaml_as_we_do(spec):
    config = OmegaConf.merge(OmegaConf.structured(Experiment), OmegaConf.create(yaml.dumps(spec)))
    assert build(Experiment, OmegaConf.to_container(config, resolve=True)) == spec


@pytest.mark.parametrize("name", ["bccd_resnet18", "carla_mobilenet_v2"])
def test_published_specs(shared_data, name):
    text = (shared_data / "specs" / f"{name}.txt").read_text()
    spec = prototxt.loads(text)
    assert prototxt.dumps(prototxt.loads(prototxt.dumps(spec))) == prototxt.dumps(spec)
    assert yaml.loads(yaml.dumps(spec)) == spec

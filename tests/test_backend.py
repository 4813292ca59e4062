"""`evaluate` through the backend interface, with specs that speak of evaluation only."""

import json

import pytest
import runs
import torch
from models import write_model

from frcnn.backend import LitBackend, TorchBackend, open_backend
from frcnn.data.sample import Sample, collate
from frcnn.entry.main import main
from frcnn.model.detector import Detections
from frcnn.predictor import predictor
from frcnn.spec.run import App, Run
from frcnn.weights.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model.ckpt")


def test_a_spec_of_evaluation_alone_is_enough(model, tmp_path, capsys):
    """No training_config, no model_config; paths are beside the spec, and so is the model."""
    runs.scenes(tmp_path, train=1, val=2).rename(tmp_path / "scenes")
    (tmp_path / "m.ckpt").write_bytes(model.read_bytes())
    (tmp_path / "spec.txt").write_text("""
        dataset_config {
          validation_data_source {
            tfrecords_path: 'scenes/validation/label_2' image_directory_path: 'scenes/validation'
          }
          image_extension: 'png'
          target_class_mapping { key: 'car' value: 'car' }
          target_class_mapping { key: 'pedestrian' value: 'pedestrian' }
        }
        evaluation_config { model: 'm.ckpt' rpn_pre_nms_top_N: 100 rpn_nms_max_boxes: 20 trt_evaluation { } }
    """)
    out = tmp_path / "out"
    # The classes of a spec must be the model's, whatever their number: their places are the class ids.
    for change in ("{car: car, pedestrian: person}", "{car: car}", "{pedestrian: aperson, car: car}"):
        other = f"dataset_config.target_class_mapping={change}"
        assert (
            main("evaluate", [f"spec={tmp_path / 'spec.txt'}", other, f"hydra.run.dir={tmp_path / 'o'}"]) == 2
        )
        message = capsys.readouterr().err
        assert "the data's classes are not those of the model" in message
        assert "allowed: car, pedestrian" in message
    command = [f"spec={tmp_path / 'spec.txt'}", f"hydra.run.dir={out}", "run.num_workers=0"]
    assert main("evaluate", command) == 0
    found = json.loads((out / "results.json").read_text())
    assert (found["images"], found["epoch"]) == (2, 0)
    assert set(found["per_class"]) == {"car", "pedestrian"}


def test_lightning_and_the_predictor_use_the_same_backend(model):
    app = App.of(Checkpoint(model).settings, run=Run(model_path=str(model)))
    backend = open_backend(app, app.inference_config)
    assert isinstance(backend, TorchBackend)
    assert not backend.detector.training
    assert backend.settings.post_nms_top_n == 12
    image = torch.randn(3, 128, 192, generator=torch.Generator().manual_seed(1))
    none = torch.zeros(0, 4)
    sample = Sample(
        image, none, none[:, 0].long(), none[:, 0].bool(), none, none[:, 0].long(), (128, 192), "a"
    )
    batch = collate([sample, sample], max_objects=1)
    found = LitBackend(backend).validation_step(batch, 0)
    assert isinstance(found, Detections)
    assert torch.equal(found.boxes[0], found.boxes[1])
    sizes = torch.tensor([[128.0, 192.0]])
    again = predictor(app).backend.detect(image[None], image_sizes=sizes)
    assert torch.allclose(again.boxes[0], found.boxes[0], atol=1e-3)

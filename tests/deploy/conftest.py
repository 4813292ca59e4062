"""One small model and its export, for all tests of this folder."""

import pytest
from models import write_model

from frcnn.entry.main import main


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model.ckpt")


@pytest.fixture(scope="session")
def made(model, tmp_path_factory):
    """The folder of the bundle, without a parity run."""
    out = tmp_path_factory.mktemp("bundle") / "out"
    assert main("export", [f"model_path={model}", f"hydra.run.dir={out}", "export.parity=false"]) == 0
    return out

"""Checkpoints that are none: said in our words before anything is made of them."""

import pytest
import torch
from keras_files import make, narrow_plan

from frcnn.errors import WeightsError
from frcnn.weights.checkpoint import Checkpoint, save_detector


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "a.ckpt"
    save_detector(make(channels=narrow_plan()), path, stored={"config": ""})
    return Checkpoint(path).content


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"frcnn": 3}, "frcnn.config: missing"),
        ({"frcnn": {"config": 5}}, "frcnn.config: int"),
        ({"frcnn": {"config": "", "progress": []}}, "frcnn.progress: list"),
        ({"frcnn": {"config": "", "progress": {"epochs": "1"}}}, "frcnn.progress.epochs: str"),
        ({"epoch": None}, "epoch: missing"),
        ({"global_step": [1]}, "global_step: list"),
        ({"state_dict": None}, "state_dict: missing"),
        ({"state_dict": {3: torch.ones(1)}}, "state_dict: 3: Tensor"),
        ({"state_dict": {"weight": torch.ones(1)}}, "state_dict: 'weight': Tensor"),
        ({"state_dict": {"detector.a.weight": 1.0}}, "state_dict: 'detector.a.weight': float"),
    ],
)
def test_parts_that_are_missing_or_of_another_kind(content, tmp_path, change, found):
    torch.save({**content, **change}, tmp_path / "a.ckpt")
    with pytest.raises(WeightsError, match="is no checkpoint of frcnn") as error:
        Checkpoint(tmp_path / "a.ckpt")
    assert f"found: {found}" in str(error.value)


def test_a_list_is_no_checkpoint(tmp_path):
    torch.save([1], tmp_path / "a.ckpt")
    with pytest.raises(WeightsError, match="is no checkpoint of frcnn"):
        Checkpoint(tmp_path / "a.ckpt")

"""The main job, as `make train` runs it: three seeds, and a task that is not trivial."""

import json

import pytest
import torch

from frcnn.entry.main import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """Folders of three finished runs that differ in their seed."""
    root = tmp_path_factory.mktemp("jobs")
    for seed in range(3):
        assert main("train", [f"random_seed={seed}", f"hydra.run.dir={root / str(seed)}"]) == 0
    return [root / str(seed) for seed in range(3)]


def score(folder):
    return json.loads((folder / "results.json").read_text())["mAP"]


def test_three_seeds_reach_the_mark_and_agree(jobs):
    scores = [score(folder) for folder in jobs]
    assert min(scores) >= 0.80, scores
    assert max(scores) - min(scores) <= 0.05, scores


def test_without_box_deltas_the_boxes_are_not_good_enough(jobs, tmp_path):
    """Anchors as they stand do not solve the task: regression is needed."""
    content = torch.load(jobs[0] / "checkpoints" / "last.ckpt", weights_only=True)
    for name, value in content["state_dict"].items():
        if "rpn_out_regress" in name or "dense_regress" in name:
            value.zero_()
    torch.save(content, tmp_path / "no_deltas.ckpt")
    out = tmp_path / "evaluation"
    assert main("evaluate", [f"model_path={tmp_path / 'no_deltas.ckpt'}", f"hydra.run.dir={out}"]) == 0
    assert score(out) < 0.5

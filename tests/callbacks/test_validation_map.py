"""Validation figures as a training logs them, with one process and with two."""

import logging
import os
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from frcnn.callbacks import ValidationMap
from frcnn.metrics import DetectionEvaluator


def test_figures_reach_the_trainer_and_the_table_the_log(fit, detector, caplog):
    validation = ValidationMap(["car", "van"])
    with caplog.at_level(logging.INFO):
        trainer = fit(detector(finds=(False, True)), validation)
    assert trainer.callback_metrics["val/mAP"] == 1.0
    assert trainer.callback_metrics["val/AP/car"] == 1.0
    assert "val/AP/van" not in trainer.callback_metrics  # no van anywhere: undefined, not zero
    assert not [name for name in trainer.callback_metrics if "@" in name]
    assert validation.result.images == 4
    assert validation.result.per_class["car"].rpn_recall == 1.0
    assert "mAP@0.5 = 0.0000" in caplog.text
    assert "validation after epoch 2" in caplog.text
    assert "mAP@0.5 = 1.0000" in caplog.text


def test_several_thresholds_are_logged_one_by_one(fit, detector):
    trainer = fit(detector(), ValidationMap(["car"], iou_thresholds=(0.5, 0.75)))
    assert {"val/mAP@0.50", "val/mAP@0.75", "val/mAP"} <= set(trainer.callback_metrics)


def test_the_first_images_are_kept_without_padding(fit, detector):
    validation = ValidationMap(["car"], keep_samples=3)
    fit(detector(), validation)
    assert [sample.id for sample in validation.samples] == ["0-0", "0-1", "1-0"]
    sample = validation.samples[2]
    assert sample.image.shape == (3, 8, 6)
    assert sample.image.unique().tolist() == [1.0]
    assert sample.gt_labels.tolist() == [0, -1]
    assert sample.labels.dtype == torch.int64


def test_the_sanity_check_leaves_no_trace(fit, detector, caplog):
    validation = ValidationMap(["car"])
    with caplog.at_level(logging.INFO):
        fit(detector(), validation, epochs=1, num_sanity_val_steps=2, limit_val_batches=2)
    assert caplog.text.count("mAP@0.5") == 1
    assert validation.result.images == 4


def test_areas_to_ignore_reach_the_evaluator_and_the_report(fit, detector, loader):
    """Nothing is where the detector looks, x = 50, but an area."""
    validation, model = ValidationMap(["car"]), detector(finds=[False])
    batch, index = next(iter(loader(1))), 0
    area = {"ignored": torch.tensor([[[40.0, 0, 60, 9]]] * 2), "ignored_labels": torch.full((2, 1), -1)}
    precision = []
    for one in (batch, batch._replace(**area)):
        validation.evaluator.reset()
        model.trainer = SimpleNamespace(current_epoch=0)
        validation.on_validation_batch_end(None, None, model.validation_step(one, index), one, index)
        precision.append(validation.evaluator.compute().per_class["car"].precision)
    assert precision == [0.0, None]  # all wrong; nothing judged
    assert validation.samples[-1].gt_ignored.tolist() == [[40, 0, 60, 9]]


def gather(rank, path):
    """One of two processes, each with an image of its own and one that both have."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1"}
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    box, label = torch.tensor([[[0.0, 0, 4, 4]]]), torch.tensor([[0]])
    validation = ValidationMap(["car"])
    for name in (f"own {rank}", "shared"):
        validation.evaluator.update(
            boxes=box + 50 * rank,  # only rank 0 finds its object
            scores=torch.tensor([[0.9 - 0.1 * rank]]),
            labels=label,
            gt_boxes=box,
            gt_labels=label,
            gt_difficult=torch.tensor([[False]]),
            ids=[name],
        )
    logged = {}

    class Trainer:
        sanity_checking, world_size, is_global_zero, current_epoch = False, 2, rank == 0, 0
        state = SimpleNamespace(fn="fit")

    class Module:
        def log(self, name, value, **options):
            logged[name] = value

    validation.on_validation_epoch_end(Trainer(), Module())
    torch.save((validation.result.images, logged["val/mAP"]), f"{path}.{rank}")
    dist.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="forked processes")
def test_two_processes_gather(tmp_path):
    mp.start_processes(gather, args=(str(tmp_path / "store"),), nprocs=2, start_method="fork")
    # 3 images; rank 0 found its own object and the shared one, which counts as rank 0 saw it
    expected = (3, pytest.approx(2 / 3))
    assert [torch.load(tmp_path / f"store.{rank}") for rank in range(2)] == [expected, expected]


def test_an_evaluation_by_itself_names_no_epoch(fit, detector, loader, caplog):
    validation = ValidationMap(["car"])
    trainer = fit(detector(), validation, epochs=1, limit_train_batches=0)
    with caplog.at_level(logging.INFO):
        trainer.validate(detector(), loader(2), verbose=False)
    assert validation.result.mAP == 1.0
    assert "validation\n" in caplog.text


def test_the_evaluator_is_told_everything():
    validation = ValidationMap(["a"], voc07=True, score_threshold=0.25, ignore_difficult=False)
    assert isinstance(validation.evaluator, DetectionEvaluator)
    assert validation.evaluator.metric == "voc07"
    assert validation.evaluator.score_threshold == 0.25
    assert validation.evaluator.ignore_difficult is False

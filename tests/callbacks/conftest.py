"""A training that takes a second: a linear model whose validation step returns prepared detections."""

from typing import NamedTuple

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

STEPS, BATCH = 3, 2


class FakeBatch(NamedTuple):
    images: torch.Tensor
    boxes: torch.Tensor
    labels: torch.Tensor
    difficult: torch.Tensor
    ignored: torch.Tensor
    ignored_labels: torch.Tensor
    image_sizes: torch.Tensor
    original_sizes: torch.Tensor
    ids: list[str]


class FakeDetections(NamedTuple):
    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor
    proposals: torch.Tensor
    proposals_valid: torch.Tensor


def make_batch(number: int) -> FakeBatch:
    """Two images, 8 x 8, padded from 8 x 6; each with a car at (0, 0, 4, 4) and a padding slot."""
    box = torch.tensor([[0.0, 0, 4, 4], [0, 0, 0, 0]])
    return FakeBatch(
        images=torch.full((BATCH, 3, 8, 8), float(number)),
        boxes=box.expand(BATCH, 2, 4),
        labels=torch.tensor([0, -1]).expand(BATCH, 2),
        difficult=torch.zeros(BATCH, 2, dtype=torch.bool),
        ignored=torch.zeros(BATCH, 0, 4),
        ignored_labels=torch.zeros(BATCH, 0, dtype=torch.int64),
        image_sizes=torch.tensor([[8.0, 6.0]]).expand(BATCH, 2),
        original_sizes=torch.tensor([[16.0, 12.0]]).expand(BATCH, 2),
        ids=[f"{number}-{i}" for i in range(BATCH)],
    )


class FakeDetector(pl.LightningModule):
    """Finds the car in the validated epochs that `finds` says; its losses follow `losses`."""

    def __init__(self, *, finds=(True, True, True, True), losses=(4.0, 3.0, 2.0, 1.0), fail_at=None):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.finds, self.losses, self.fail_at = finds, losses, fail_at

    def training_step(self, batch, batch_idx):
        if self.fail_at is not None and self.fail_at[:2] == (self.current_epoch, batch_idx):
            raise self.fail_at[2]
        base = self.losses[self.current_epoch]
        parts = {"loss": base, "loss_rpn_class": base / 2, "loss_rpn_box": base / 4}
        for name, value in (parts | {"loss_rcnn_class": base / 8, "loss_rcnn_box": base / 8}).items():
            self.log(f"train/{name}", value, on_step=True, on_epoch=True, batch_size=BATCH)
        return self.layer(batch.images[:, 0, 0, :1]).mean()

    def validation_step(self, batch, batch_idx):
        found = self.finds[self.current_epoch]
        x = 0.0 if found else 50.0
        return FakeDetections(
            boxes=torch.tensor([[[x, 0, x + 4, 4], [0, 0, 0, 0]]]).expand(BATCH, 2, 4),
            scores=torch.tensor([0.9, 0.0]).expand(BATCH, 2),
            labels=torch.tensor([0, -1]).expand(BATCH, 2),
            proposals=torch.tensor([[[0.0, 0, 4, 4]]]).expand(BATCH, 1, 4),
            proposals_valid=torch.ones(BATCH, 1, dtype=torch.bool),
        )

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.25)


@pytest.fixture
def detector():
    return FakeDetector


@pytest.fixture
def loader():
    def build(batches=STEPS):
        return DataLoader([make_batch(i) for i in range(batches)], batch_size=None)

    return build


@pytest.fixture
def fit(tmp_path, loader):
    """Fit a `FakeDetector` with some callbacks; returns the trainer."""

    def run(model, *callbacks, epochs=2, ckpt_path=None, **options):
        from frcnn.checkpoint_io import AtomicCheckpointIO

        options = {"logger": False, "num_sanity_val_steps": 0, "enable_checkpointing": False} | options
        if any(isinstance(callback, pl.callbacks.Checkpoint) for callback in callbacks):
            options["enable_checkpointing"] = True
        if not any(isinstance(callback, pl.callbacks.ProgressBar) for callback in callbacks):
            options["enable_progress_bar"] = False
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            devices=1,
            callbacks=list(callbacks),
            plugins=[AtomicCheckpointIO()],
            default_root_dir=tmp_path,
            enable_model_summary=False,
            log_every_n_steps=1,
            **options,
        )
        trainer.fit(model, loader(), loader(2), ckpt_path=ckpt_path)
        return trainer

    return run

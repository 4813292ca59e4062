import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from tiny_data import label, write_kitti

from frcnn.data.augment import move
from frcnn.data.dataset import DetectionDataset
from frcnn.data.geometry import fixed
from frcnn.data.prepare import prepare
from frcnn.data.readers.kitti import read_kitti
from frcnn.data.sample import Batch
from frcnn.data.sampling import Share
from frcnn.data.transforms import chain
from frcnn.datamodule import DealingSampler, DetectionDataModule, EpochSampler
from frcnn.errors import DataError

IMAGES = 7


class Recorder(pl.LightningModule):
    """Trains nothing and writes down what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[str, int, list[str], torch.Tensor]] = []

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        assert isinstance(batch, Batch)
        self.record("train", batch)
        return self.weight.sum()

    def validation_step(self, batch: Batch, _: int) -> None:
        self.record("val", batch)

    def record(self, kind: str, batch: Batch) -> None:
        self.seen.append((kind, self.current_epoch, [Path(i).stem for i in batch.ids], batch.boxes[:, 0, 0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def module(
    root: Path, *, num_workers: int = 0, seed: int = 0, shares: Sequence[Share] = ()
) -> DetectionDataModule:
    source = read_kitti(image_root=root, labels=root / "label_2")
    options: dict[str, Any] = {"geometry": partial(fixed, size=(16, 32), auto_resize=True)}
    index, _ = prepare([source], class_mapping={"car": "car"}, max_objects=3, **options)
    steps = {"mean": (0.0,) * 3, "scale": 1.0, "bgr": False, **options}
    return DetectionDataModule(
        train=DetectionDataset(
            index, transforms=chain(**steps, augmentation=(partial(move, hflip_probability=0.5),)), seed=seed
        ),
        validation=DetectionDataset(index, transforms=chain(**steps), seed=seed),
        max_objects=3,
        batch_size=3,
        validation_batch_size=2,
        num_workers=num_workers,
        seed=seed,
        shares=shares,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    return write_kitti(folder, {f"{i}": [label("car", 1, 1, 9, 9)] for i in range(IMAGES)})


def fit(
    data: DetectionDataModule, epochs: int = 3, recorder: Recorder | None = None, **options: Any
) -> Recorder:
    recorder = recorder or Recorder()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(recorder, data)
    return recorder


@cache
def run(root: Path, num_workers: int, seed: int) -> Recorder:
    return fit(module(root, num_workers=num_workers, seed=seed))


def flat(recorder: Recorder, kind: str, epoch: int) -> list[str]:
    return [name for k, e, ids, _ in recorder.seen if (k, e) == (kind, epoch) for name in ids]


def test_every_epoch_shows_each_training_image_once_in_a_new_order(root: Path) -> None:
    found = run(root, 0, 0)
    orders = [flat(found, "train", epoch) for epoch in range(3)]
    assert all(sorted(order) == [str(i) for i in range(IMAGES)] for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_the_last_partial_batch_is_kept(root: Path) -> None:
    sizes = [len(ids) for kind, epoch, ids, _ in run(root, 0, 0).seen if (kind, epoch) == ("train", 0)]
    assert sizes == [3, 3, 1]
    loader = module(root).train_dataloader()
    assert not isinstance(loader, list)
    assert len(loader) == math.ceil(IMAGES / 3)


def test_validation_goes_in_order_and_never_flips(root: Path) -> None:
    found = run(root, 0, 0)
    for epoch in range(3):
        assert flat(found, "val", epoch) == [str(i) for i in range(IMAGES)]
    assert {float(x) for kind, _, _, edges in found.seen if kind == "val" for x in edges} == {1.0}
    assert {float(x) for kind, _, _, edges in found.seen if kind == "train" for x in edges} == {1.0, 23.0}


def test_workers_change_nothing_and_the_seed_does(root: Path) -> None:
    """Two workers that live through all epochs must know the epoch: same order, same flips."""
    alone, helped, other = run(root, 0, 0), run(root, 2, 0), run(root, 0, 1)
    assert [item[:3] for item in alone.seen] == [item[:3] for item in helped.seen]
    for (*_, left), (*_, right) in zip(alone.seen, helped.seen, strict=True):
        torch.testing.assert_close(left, right)
    assert flat(alone, "train", 0) != flat(other, "train", 0)


def test_flips_are_drawn_anew_in_every_epoch(root: Path) -> None:
    edges: dict[str, set[float]] = {}
    for kind, _, ids, left in run(root, 2, 0).seen:
        for name, edge in zip(ids, left.tolist(), strict=True):
            if kind == "train":
                edges.setdefault(name, set()).add(edge)
    assert any(len(values) == 2 for values in edges.values())


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Iterator[int]]:
    """Be each of so many ranks in turn."""

    def be(count: int) -> Iterator[int]:
        monkeypatch.setattr("frcnn.datamodule.dist.is_initialized", lambda: True)
        monkeypatch.setattr("frcnn.datamodule.dist.get_world_size", lambda: count)
        for rank in range(count):
            monkeypatch.setattr("frcnn.datamodule.dist.get_rank", lambda rank=rank: rank)
            yield rank

    return be


UNEVEN = (Share("0 to 4", 5, 1.0), Share("5 and 6", 2, 6.0))


@pytest.mark.parametrize("shares", [(), UNEVEN])
def test_ranks_share_an_epoch(
    root: Path, ranks: Callable[[int], Iterator[int]], shares: Sequence[Share]
) -> None:
    data = module(root).train
    assert data is not None

    def epoch() -> list[tuple[int, int]]:
        sampler = EpochSampler(data, seed=0, shares=shares)
        sampler.set_epoch(3)
        assert len(list(sampler)) == len(sampler)
        return list(sampler)

    whole = [number for _, number in epoch()]
    parts = [epoch() for _ in ranks(2)]
    assert [len(part) for part in parts] == [4, 4]  # the first image twice, so that ranks stay in step
    assert {epoch for part in parts for epoch, _ in part} == {3}
    dealt = [number for pair in zip(*parts, strict=True) for _, number in pair]
    assert dealt == [*whole, whole[0]]
    if not shares:
        assert sorted(whole) == list(range(IMAGES))


def test_a_weighted_epoch_draws_by_weight_and_augments_each_visit_anew(root: Path) -> None:
    data = module(root, shares=UNEVEN)
    sampler = data.train_dataloader().sampler  # type: ignore[union-attr]
    assert isinstance(sampler, EpochSampler)
    drawn = []
    for epoch in range(40):
        sampler.set_epoch(epoch)
        drawn += [number for _, number in sampler]
    # 2 x 6 of 5 x 1 + 2 x 6: 280 samples with a share of 12 / 17, a deviation of 7.6
    assert abs(sum(number % IMAGES >= 5 for number in drawn) - 280 * 12 / 17) < 4 * 7.6
    assert max(drawn) >= 2 * IMAGES
    assert data.train is not None
    edges = {float(data.train.sample(5 + visit * IMAGES).boxes[0, 0]) for visit in range(16)}
    assert edges == {1.0, 23.0}


def test_a_weighted_epoch_is_the_same_with_workers(root: Path) -> None:
    alone, helped = (fit(module(root, num_workers=n, shares=UNEVEN), epochs=2) for n in (0, 2))
    assert [item[:3] for item in alone.seen] == [item[:3] for item in helped.seen]
    for (*_, left), (*_, right) in zip(alone.seen, helped.seen, strict=True):
        torch.testing.assert_close(left, right)
    assert flat(alone, "val", 0) == [str(i) for i in range(IMAGES)]  # validation never samples


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_validation_images_are_dealt_out_without_repeats(
    root: Path, ranks: Callable[[int], Iterator[int]], count: int
) -> None:
    data = module(root).validation
    assert data is not None
    parts, lengths = zip(
        *[(list(s), len(s)) for s in (DealingSampler(data) for _ in ranks(count))], strict=True
    )
    assert sorted(number for part in parts for number in part) == list(range(IMAGES))
    assert set(lengths) == {math.ceil(IMAGES / count)} == {len(parts[0])}
    assert all(part == sorted(part) for part in parts)


def test_a_rank_without_a_share_validates_what_another_does(
    root: Path, ranks: Callable[[int], Iterator[int]]
) -> None:
    data = module(root).validation
    assert data is not None
    assert [list(DealingSampler(data)) for _ in ranks(9)] == [[i] for i in (*range(IMAGES), 0, 1)]


class Gatherer(Recorder):
    """Has statistics that processes exchange, and writes down what each of them validated."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.norm, self.folder = torch.nn.BatchNorm2d(3), folder

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        return super().training_step(batch, index) + self.norm(batch.images).sum()

    def validation_step(self, batch: Batch, index: int) -> None:
        super().validation_step(batch, index)
        self.norm(batch.images)

    def on_validation_epoch_end(self) -> None:
        seen: list[Any] = [None, None]
        torch.distributed.all_gather_object(seen, [flat(self, "val", epoch) for epoch in range(2)])
        torch.save(seen, self.folder / f"{self.global_rank}")


@pytest.mark.skipif(sys.platform != "linux", reason="forked processes")
@pytest.mark.skipif(sys.platform != "linux", reason="forked processes")
@pytest.mark.parametrize(
    ("images", "shares"),
    [(5, [["0", "2", "4"], ["1", "3"]]), pytest.param(1, [["0"], ["0"]], marks=pytest.mark.slow)],
)
def test_two_processes_validate_and_neither_waits_for_ever(
    tmp_path: Path, images: int, shares: list[list[str]]
) -> None:
    """Batches of 2: with five images the ranks get two and one; of one image both take it.

    They are forked from a process that has not used autograd, which ours has by now.
    """
    write_kitti(tmp_path, {f"{i}": [label("car", 1, 1, 9, 9)] for i in range(images)})
    code = f"import sys; sys.path[:] = {sys.path}; import test_datamodule as t; t.in_two_processes({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}") == [[share, share] for share in shares]


def in_two_processes(folder: str) -> None:
    strategy = DDPStrategy(start_method="fork", timeout=timedelta(seconds=60))
    options = {"devices": 2, "strategy": strategy, "limit_train_batches": 1}
    fit(module(Path(folder)), epochs=2, recorder=Gatherer(Path(folder)), **options)


def test_workers_stay_alive_between_epochs(root: Path) -> None:
    loader = module(root, num_workers=1).train_dataloader()
    assert not isinstance(loader, list)
    assert loader.persistent_workers
    assert not module(root).val_dataloader().persistent_workers  # type: ignore[union-attr]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unreadable_image_ends_training_with_its_own_error(tmp_path: Path, num_workers: int) -> None:
    write_kitti(tmp_path, {f"{i}": [label("car", 1, 1, 9, 9)] for i in range(4)})
    data = module(tmp_path, num_workers=num_workers)
    path = tmp_path / "image_2" / "2.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError) as info:
        fit(data, epochs=1)
    assert info.value.where == path
    assert str(info.value).startswith(f"{path}: the image cannot be read\n  found: ")
    assert "Traceback" not in str(info.value)


def test_training_or_validation_may_be_missing(root: Path) -> None:
    full = module(root)
    sizes = {"max_objects": 3, "batch_size": 1, "validation_batch_size": 1}
    assert DetectionDataModule(train=None, validation=full.validation, **sizes).train_dataloader() == []
    assert DetectionDataModule(train=full.train, validation=None, **sizes).val_dataloader() == []
    recorder = fit(DetectionDataModule(train=full.train, validation=None, **sizes), epochs=1)
    assert {kind for kind, *_ in recorder.seen} == {"train"}


def test_a_batch_moves_and_keeps_its_type(root: Path) -> None:
    loader = module(root).val_dataloader()
    batch = next(iter(loader))
    moved = pl.LightningDataModule().transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert isinstance(moved, Batch)
    assert moved.images.device.type == "meta"
    assert moved.ids == batch.ids

import torch

from frcnn.data.sample import Batch, Sample, collate, unbatch


def sample(height: int, width: int, *, objects: int, areas: int) -> Sample:
    boxes = torch.tensor([[1.0, 1, 3, 4]]).repeat(objects, 1)
    ignored = torch.tensor([[0.0, 1, 2, 2]]).repeat(areas, 1)
    return Sample(
        image=torch.rand(3, height, width),
        boxes=boxes,
        labels=torch.arange(objects),
        difficult=torch.ones(objects, dtype=torch.bool),
        ignored=ignored,
        ignored_labels=torch.full((areas,), -1),
        original_size=(2 * height, 3 * width),
        id=f"{height}x{width}",
    )


def test_a_batch_gives_its_samples_back() -> None:
    samples = [sample(5, 8, objects=2, areas=1), sample(7, 4, objects=0, areas=0)]
    batch = collate(samples, max_objects=3, max_ignored=2)
    assert isinstance(batch, Batch)
    for found, expected in zip(unbatch(batch), samples, strict=True):
        for name in Sample._fields:
            value, original = getattr(found, name), getattr(expected, name)
            same = torch.equal(value, original) if isinstance(value, torch.Tensor) else value == original
            assert same, name

import torch
from hypothesis import given
from hypothesis import strategies as st

from frcnn.ops.matching import match, random_draw, random_subset


def test_padding_overlaps_nothing():
    boxes = torch.zeros(1, 1, 4)
    assert match(boxes, torch.zeros(1, 2, 4), torch.tensor([[True, False]])).tolist() == [[[1, 0]]]


rows = st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4)


@given(rows, st.integers(0, 8), st.integers(0, 2**31))
def test_subset_has_the_size_asked_for(rows, limit, seed):
    mask = torch.tensor(rows)
    generator = torch.Generator().manual_seed(seed)
    limits = torch.full((len(mask),), limit)
    chosen = random_subset(mask, at_most=5, limit=limits, generator=generator)
    assert not (chosen & ~mask).any()
    assert chosen.sum(1).tolist() == [min(n, limit, 5) for n in mask.sum(1).tolist()]


@given(rows, st.integers(1, 8), st.integers(0, 2**31))
def test_draw_repeats_only_if_it_must(rows, count, seed):
    mask = torch.tensor(rows)
    generator = torch.Generator().manual_seed(seed)
    drawn = random_draw(mask, torch.full((len(mask),), count), slots=8, generator=generator)
    for members, indices in zip(mask, drawn[:, :count], strict=True):
        if members.any():
            assert members[indices].all()
            assert members.sum() < count or len(set(indices.tolist())) == count


def test_every_member_has_the_same_chance():
    mask = torch.tensor([[True] * 4 + [False]]).expand(4000, 5)
    generator = torch.Generator().manual_seed(0)
    subset = random_subset(mask, at_most=1, generator=generator).float().mean(0)
    torch.testing.assert_close(subset[:4], torch.full((4,), 0.25), atol=0.03, rtol=0)
    drawn = random_draw(mask, torch.full((4000,), 6), slots=6, generator=generator)
    share = torch.bincount(drawn.flatten(), minlength=5) / drawn.numel()
    torch.testing.assert_close(share[:4], torch.full((4,), 0.25), atol=0.02, rtol=0)


def test_same_seed_same_sample():
    mask = torch.rand(2, 50, generator=torch.Generator().manual_seed(1)) > 0.5
    first, second = (
        random_subset(mask, at_most=5, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(first, second)

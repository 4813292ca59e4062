"""Folds and shards are the original's: the values are those of spec-and-data 3.3 and 3.4."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frcnn.data.convert.partition import (
    SEED,
    float32,
    random_partitions,
    sequence_partitions,
    shuffle,
    split_shards,
)


def test_random_mode_takes_the_first_names_and_shuffles_twice():
    generator = Random(SEED)
    names = [f"{i:06d}" for i in range(10)]
    partitions = random_partitions(names, val_split=20, generator=generator)
    shuffle(partitions, generator)
    assert partitions[0] == ["000000", "000001"]
    assert partitions[1] == [f"{i:06d}" for i in (6, 9, 3, 8, 4, 2, 5, 7)]


def test_sequence_mode_deals_out_the_longest_first_and_reverses():
    sequences = {
        name: [f"{name}{i}" for i in range(length)] for name, length in zip("abcd", (3, 1, 2, 3), strict=True)
    }
    partitions = sequence_partitions(sequences, count=2)
    shuffle(partitions, Random(SEED))
    assert partitions == [["d2", "d1", "b0", "d0"], ["c0", "a2", "a0", "c1", "a1"]]


@pytest.mark.parametrize("count", [0, 1])
def test_one_sequence_partition_keeps_the_order_of_the_file(count):
    assert sequence_partitions({"z": ["1"], "a": ["2", "3"]}, count=count) == [["1", "2", "3"]]


@pytest.mark.parametrize(
    ("items", "shards", "sizes"),
    [(23, 10, [2] * 9 + [5]), (7, 10, [0] * 9 + [7]), (5, 0, [5]), (4, 2, [2, 2])],
)
def test_the_last_shard_takes_the_remainder(items, shards, sizes):
    assert [len(shard) for shard in split_shards(range(items), shards)] == sizes


@given(st.lists(st.integers()), st.integers(0, 20))
def test_shards_hold_everything_in_order(items, count):
    assert [item for shard in split_shards(items, count) for item in shard] == items


@pytest.mark.parametrize(
    ("val_split", "images", "expected"), [(14, 292, 40), (29, 100, 28), (33.3, 1000, 332)]
)
def test_percentages_round_as_in_the_original(val_split, images, expected):
    # 29 / 100 * 100 is 28.999...96 in floating point; 33.3 is 33.29999924 in the schema's float32.
    names = [str(i) for i in range(images)]
    validation, _ = random_partitions(names, val_split=val_split, generator=Random(SEED))
    assert len(validation) == expected


def test_float32():
    assert float32(0.1) == 0.10000000149011612
    assert float32(14) == 14

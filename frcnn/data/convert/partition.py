"""How the TAO converter divides a data set into partitions (folds) and those into shards."""

import struct
from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeVar

Item = TypeVar("Item")

SEED = 42
"""TAO: the seed of every conversion; `Random(42)` draws as `random.seed(42)` does."""


def random_partitions(names: Sequence[str], *, val_split: float, generator: Random) -> list[list[str]]:
    """Validation and training names of TAO's random mode.

    Only the order inside a partition is random: validation gets the first names.

    Args:
        names: in order.
        val_split: percentage for validation, from 0 to below 100.
        generator: shuffles both partitions.
    """
    count = int(float32(val_split) / 100 * len(names))
    partitions = [list(names[:count]), list(names[count:])]
    shuffle(partitions, generator)
    return partitions


def sequence_partitions(sequences: Mapping[str, Sequence[str]], *, count: int) -> list[list[str]]:
    """Frames of whole sequences, dealt out from the longest to the shortest.

    Args:
        sequences: frames by sequence.
        count: how many partitions; up to 1 makes one, in the order of `sequences`.
    """
    if count <= 1:
        return [[frame for frames in sequences.values() for frame in frames]]
    partitions: list[list[str]] = [[] for _ in range(count)]
    by_length = sorted(sequences.items(), key=lambda item: (-len(item[1]), item[0]))
    for i, (_, frames) in enumerate(by_length):
        partitions[i % count] += frames
    return partitions[::-1]  # TAO: fold 0 holds the last partition


def shuffle(partitions: Sequence[list[Item]], generator: Random) -> None:
    """Shuffle each partition in place, one after the other."""
    for partition in partitions:
        generator.shuffle(partition)


def split_shards(items: Sequence[Item], count: int) -> list[Sequence[Item]]:
    """`count` runs of equal length, the last of which takes the remainder as well; 0 means 1."""
    count = max(count, 1)
    size = len(items) // count
    return [items[i * size : (i + 1) * size if i + 1 < count else None] for i in range(count)]


def float32(value: float) -> float:
    """A number as TAO's schema holds it, in 32 bits: 33.3 is then 33.29999924."""
    number: float = struct.unpack("f", struct.pack("f", value))[0]
    return number

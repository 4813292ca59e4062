"""Which training samples the TAO converter leaves out, repeats or cuts off."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from frcnn.data.convert.partition import float32


class Copies(NamedTuple):
    """How many records a sample becomes."""

    wanted: int  # 0: filtered; above 1: with copies
    written: int  # of those, within the limit


class SampleModifier:
    """Decides sample by sample, in the order of writing, since a limit counts them.

    Args:
        class_mapping: class in the labels, whatever its case, to target class; others do not count.
        filter_only: target classes; a sample whose objects are all of one of these is left out.
        dominant: target classes that usually outnumber the others.
        imbalance: by target class, how many times it has to outnumber a dominant one; 1 by default.
        num_duplicates: copies that a sample gets where it does.
        limit: records of each training fold at most; None is no limit.
        validation_fold: the fold that stays as it is.
    """

    def __init__(
        self,
        *,
        class_mapping: Mapping[str, str],
        filter_only: Collection[str] = (),
        dominant: Collection[str] = (),
        imbalance: Mapping[str, float] | None = None,
        num_duplicates: int = 0,
        limit: int | None = None,
        validation_fold: int | None = None,
    ) -> None:
        self.class_mapping = {name.lower(): target for name, target in class_mapping.items()}
        self.filter_only, self.dominant = frozenset(filter_only), frozenset(dominant)
        self.imbalance = {name: float32(value) for name, value in (imbalance or {}).items()}
        self.num_duplicates, self.limit, self.validation_fold = num_duplicates, limit, validation_fold
        self._idle = not self.class_mapping and limit is None
        self._written: Counter[int] = Counter()

    def copies(self, classes: Sequence[str], *, fold: int) -> Copies:
        """How often to write a sample with objects of these classes (as in the labels, lower-case)."""
        if self._idle or fold == self.validation_fold:
            return Copies(1, 1)
        targets = Counter(self.class_mapping[name] for name in classes if name in self.class_mapping)
        wanted = 0 if self._filtered(targets) else 1 + self.num_duplicates * self._imbalanced(targets)
        written = wanted if self.limit is None else min(wanted, self.limit - self._written[fold])
        self._written[fold] += written
        return Copies(wanted, written)

    def _filtered(self, targets: Counter[str]) -> bool:
        return len(targets) == 1 and next(iter(targets)) in self.filter_only

    def _imbalanced(self, targets: Counter[str]) -> bool:
        return any(
            targets[rare] > targets[dominant] * self.imbalance.get(rare, 1.0)
            for rare in targets
            if rare not in self.dominant
            for dominant in self.dominant
        )

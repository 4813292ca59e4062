"""The rules of spec-and-data 3.6, on samples small enough to count."""

import pytest

from frcnn.data.convert.sample_modifier import Copies, SampleModifier

MAPPING = {"car": "vehicle", "Van": "vehicle", "person": "person", "bike": "bike"}


def modifier(**settings):
    return SampleModifier(class_mapping=MAPPING, **settings)


@pytest.mark.parametrize(
    ("classes", "wanted"),
    [
        (["car", "van"], 0),  # both are vehicles
        (["car", "tree"], 0),  # the tree is not mapped and does not count
        (["car", "person"], 1),
        (["person"], 1),
        (["tree"], 1),
        ([], 1),
    ],
)
def test_samples_of_one_class_are_left_out(classes, wanted):
    assert modifier(filter_only=["vehicle"]).copies(classes, fold=0) == Copies(wanted, wanted)


@pytest.mark.parametrize(
    ("classes", "imbalance", "wanted"),
    [
        (["person", "person", "car"], {}, 3),  # 2 > 1 · 1
        (["person", "car"], {}, 1),  # 1 > 1 · 1 is false
        (["person"], {}, 3),  # 1 > 0
        (["car", "car"], {}, 1),  # no rare class
        ([], {}, 1),
        (["person", "person", "car"], {"person": 2.0}, 1),
        (["person", "person", "car"], {"bike": 2.0}, 3),
        # 7 > 10 · 0.7 is true in the original, whose 0.7 has 32 bits
        (["person"] * 7 + ["car"] * 10, {"person": 0.7}, 3),
    ],
)
def test_samples_with_many_rare_objects_get_copies(classes, imbalance, wanted):
    settings = {"dominant": ["vehicle"], "imbalance": imbalance, "num_duplicates": 2}
    assert modifier(**settings).copies(classes, fold=0) == Copies(wanted, wanted)


def test_without_dominant_classes_nothing_is_repeated():
    assert modifier(num_duplicates=5).copies(["person"], fold=0) == Copies(1, 1)


def test_the_limit_counts_copies_and_folds_apart():
    limited = modifier(dominant=["vehicle"], num_duplicates=2, limit=4)
    written = [limited.copies(["person"], fold=1) for _ in range(3)]
    assert written == [Copies(3, 3), Copies(3, 1), Copies(3, 0)]
    assert limited.copies(["car"], fold=2) == Copies(1, 1)


def test_the_validation_fold_stays_as_it_is():
    strict = modifier(filter_only=["vehicle"], limit=1, validation_fold=0)
    assert [strict.copies(["car"], fold=0) for _ in range(2)] == [Copies(1, 1)] * 2
    assert strict.copies(["car"], fold=1) == Copies(0, 0)

"""The account of a conversion, as a table and as JSON."""

from collections import Counter

from frcnn.data.convert.pipeline import Fold, Summary
from frcnn.report.conversion import conversion_table, to_dict
from frcnn.report.tables import render


def fold(**objects):
    return Fold(images=2, records=2, objects=Counter(objects))


def rows(summary):
    return [line.split() for line in render(conversion_table(summary, title="t: 4 images")).splitlines()]


def test_objects_by_class_and_fold():
    found = rows(Summary([fold(car=1200, van=1), fold(car=3)], 2, 0, Counter()))
    assert found[0] == ["t:", "4", "images"]
    assert found[1] == []
    assert found[2] == ["fold", "000", "fold", "001", "all"]
    assert found[4:] == [
        ["car", "1,200", "3", "1,203"],
        ["van", "1", "0", "1"],
        ["objects", "1,201", "3", "1,204"],
        ["images", "2", "2", "4"],
    ]


def test_what_was_skipped_and_what_the_modifier_did():
    first = Fold(images=5, empty=1, filtered=1, copies=4, cut=2, records=6, objects=Counter(car=2))
    found = rows(Summary([first], 1, 0, Counter({"van": 3})))
    assert found[2][-3:] == ["skipped:", "no", "area"]
    assert found[4:] == [
        ["car", "2", "2", "0"],
        ["van", "0", "0", "3"],
        ["objects", "2", "2", "3"],
        ["images", "5", "5", "-"],
        ["without", "objects", "1", "1", "-"],
        ["left", "out", "by", "the", "filter", "1", "1", "-"],
        ["copies", "added", "4", "4", "-"],
        ["beyond", "max_training_samples", "2", "2", "-"],
        ["records", "6", "6", "-"],
    ]


def test_many_folds_are_summed():
    found = rows(Summary([fold(car=1)] * 10, 10, 0, Counter()))
    assert found[2] == ["all"]
    assert found[4] == ["car", "10"]


def test_names_with_brackets_are_no_markup():
    assert rows(Summary([fold(**{"[red]": 1})], 1, 0, Counter()))[4] == ["[red]", "1", "1"]


def test_json():
    found = to_dict(Summary([fold(van=1, car=2), fold(car=3)], 4, 1, Counter({"van": 3})))
    assert (found["images"], found["records"], found["files"], found["empty_files"]) == (4, 4, 4, 1)
    assert found["objects"] == {"car": 5, "van": 1}
    assert found["skipped"] == {"van": 3}
    assert found["folds"][1]["objects"] == {"car": 3}

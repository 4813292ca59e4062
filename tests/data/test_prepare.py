import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from frcnn.data.geometry import fixed
from frcnn.data.index import ImageFolder, Index, IndexBuilder, Source
from frcnn.data.prepare import prepare
from frcnn.data.table import Counts, DataTable
from frcnn.errors import DataError

Objects = list[tuple[str, float, float, float, float]]


def source(
    images: list[Objects],
    *,
    name: str = "train",
    size: tuple[int, int] = (10, 20),
    crowds: Sequence[str] = (),
    **counts: object,
) -> Source:
    builder = IndexBuilder(ImageFolder(f"/{name}", "png"))
    for i, objects in enumerate(images):
        builder.add(
            f"{i}",
            size,
            names=[item[0] for item in objects],
            boxes=[value for item in objects for value in item[1:]],
            difficult=[item[0] == "van" for item in objects],
            ignored=[item[0] in crowds for item in objects],
        )
    return Source(name, builder.build(), **counts)  # type: ignore[arg-type]


def run(
    *sources: Source, mapping: dict[str, str] | None = None, auto_resize: bool = True, **options: object
) -> tuple[Index, DataTable]:
    geometry = partial(fixed, size=(20, 40), auto_resize=auto_resize)
    settings: dict[str, object] = {"geometry": geometry, "max_objects": 5} | options
    mapping = mapping or {"Car": "vehicle", "VAN": "vehicle", "person": "Human"}
    return prepare(sources, class_mapping=mapping, **settings)  # type: ignore[arg-type]


def test_keys_match_whatever_their_case_and_classes_sort_by_code_point() -> None:
    index, _ = run(source([[("car", 1, 1, 5, 5), ("Van", 1, 1, 5, 5), ("PERSON", 1, 1, 5, 5)]]))
    assert index.class_names == ("Human", "vehicle")
    assert index.class_ids.tolist() == [1, 1, 0]
    assert index.boxes[0].tolist() == [1, 1, 5, 5]  # still pixels of the file


def test_every_object_is_accounted_for() -> None:
    index, table = run(
        source(
            [
                [
                    ("car", 1, 1, 5, 5),
                    ("van", 2, 2, 6, 6),  # difficult
                    ("car", 5, 5, 5, 9),  # no width
                    ("van", 25, 1, 30, 5),  # right of the image
                    ("car", 1, 1, 1.4, 9),  # 0.8 wide in the network input
                ],
                [("dontcare", 0, 0, 9, 9), ("dontcare", 3, 3, 3, 3), ("misc", 0, 0, 9, 9)],
                [("person", 0, 0, 20, 10)],
            ],
            degenerate={"car": 2, "misc": 3},
            unused_labels=4,
        )
    )
    assert len(index.boxes) == 3
    (account,) = table.sources
    assert account.unmapped == {"misc": 4, "dontcare": 2}
    assert (account.images, account.images_without_objects, account.unused_labels) == (3, 1, 4)
    human, vehicle = table.rows()[:2]
    assert human["class"] == "Human" and human["kept"] == 1
    assert vehicle == {
        "source": "train",
        "class": "vehicle",
        "kept": 2,
        "difficult": 1,
        "degenerate": 3,
        "outside": 1,
        "too_small": 1,
        "ignored": 0,
        "unmapped": None,
        "images": None,
        "without_objects": None,
        "unused_labels": None,
    }
    total = table.rows()[-1]
    assert [total[key] for key in ("class", "kept", "unmapped", "images", "without_objects")] == [
        *("total", 3, 6, 3, 1)
    ]
    assert sum(total[key] for key in ("kept", "degenerate", "outside", "too_small", "unmapped")) == 9 + 5
    assert {tuple(row) for row in table.rows()} == {tuple(total)}
    assert json.loads(json.dumps(table.to_dict()))["sources"][0]["classes"]["vehicle"]["kept"] == 2


def test_sources_are_counted_apart_and_joined() -> None:
    index, table = run(
        source([[("car", 1, 1, 5, 5)]], name="a"),
        source([[("person", 1, 1, 5, 5), ("car", 1, 1, 9, 9)]], name="b"),
    )
    assert [str(index.path(i)) for i in range(2)] == ["/a/0.png", "/b/0.png"]
    assert index.class_ids.tolist() == [1, 0, 1]
    assert table.kept == {"Human": 1, "vehicle": 2}
    assert [row["source"] for row in table.rows()] == ["a"] * 3 + ["b"] * 3


@pytest.mark.parametrize(("min_size", "kept"), [((1.0, 1.0), 3), ((8.5, 1.0), 2), ((1.0, 12.0), 1)])
def test_minimum_sizes_count_in_the_network_input(min_size: tuple[float, float], kept: int) -> None:
    cars: Objects = [("car", 1, 1, 5, 6), ("car", 1, 1, 6, 6), ("car", 1, 1, 6, 7)]
    index, table = run(source([cars]), mapping={"car": "car"}, min_size=min_size)
    assert len(index.boxes) == kept
    assert table.sources[0].total.too_small == 3 - kept


def test_a_box_is_clipped_before_it_is_measured() -> None:
    # 40 wide: columns 0 to 39. Starting at 38.5 leaves half a pixel; at 39, nothing.
    cars: Objects = [("car", 0, 0, 5, 5), ("car", 38.5, 0, 60, 9), ("car", 39, 0, 60, 9)]
    _, table = run(source([cars], size=(20, 40)), mapping={"car": "car"})
    total = table.sources[0].total
    assert (total.kept, total.too_small, total.outside) == (1, 1, 1)


def test_without_resize_boxes_stay_and_other_sizes_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    cars: Objects = [("car", 1, 1, 1.8, 5), ("car", 1, 1, 5, 5)]
    _, table = run(source([cars, cars]), mapping={"car": "car"}, auto_resize=False)
    assert table.sources[0].total.too_small == 2
    assert len(caplog.records) == 1
    assert "train: 2 of 2 images are not 40x20 (one is 20x10)" in caplog.text
    caplog.clear()
    run(source([cars], size=(20, 40)), mapping={"car": "car"}, auto_resize=False)
    assert not caplog.records


def test_too_many_objects_name_the_image_and_the_setting() -> None:
    car = ("car", 1.0, 1.0, 5.0, 5.0)
    images: list[Objects] = [[car], [car] * 7, [car] * 6, [*[car] * 5, ("other", 1, 1, 5, 5)]]
    with pytest.raises(DataError) as info:
        run(source(images), mapping={"car": "car"})
    assert str(info.value) == (
        "/train/1.png: an image holds more objects than there is room for\n"
        "  found: 7 objects; 2 images hold too many\n"
        "  allowed: up to 5\n"
        "  try: raise max_objects_num_per_image to 7"
    )
    assert len(run(source(images), mapping={"car": "car"}, max_objects=7)[0]) == 4


def test_a_mapping_that_matches_nothing_shows_names_and_near_misses() -> None:
    data = source([[("pedestrian", 1, 1, 5, 5), ("pedestrian", 1, 1, 5, 5), ("dontcare", 1, 1, 5, 5)]])
    with pytest.raises(DataError) as info:
        run(data, mapping={"Pedestrain": "person", "Truck": "truck"}, split="validation")
    assert str(info.value) == (
        "train: the validation data holds no objects of the mapped classes\n"
        "  found: pedestrian (2), dontcare (1)\n"
        "  allowed: names in the mapping, whatever their case: Pedestrain, Truck\n"
        "  try: map 'pedestrian', which is close to 'pedestrain'"
    )


def test_no_objects_left_says_why() -> None:
    with pytest.raises(DataError, match="mapped objects were dropped: 2 too small"):
        run(source([[("car", 1, 1, 1.2, 5)] * 2]))
    with pytest.raises(DataError, match="found: no objects at all"):
        run(source([[]]))
    with pytest.raises(DataError, match="mapped objects were dropped: 1 without area"):
        run(source([[]], degenerate={"car": 1}))


def test_a_class_without_objects_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run(source([[("car", 1, 1, 5, 5), ("persons", 1, 1, 5, 5)]]))
    assert caplog.messages == [
        "training data: no objects of Human; map 'persons', which is close to 'person'"
    ]


def test_raw_sources_are_left_as_they_were(tmp_path: Path) -> None:
    data = source([[("car", 1, 1, 50, 50)]])
    before = data.index.boxes.copy()
    run(data)
    np.testing.assert_array_equal(data.index.boxes, before)


AREAS: list[Objects] = [
    [
        ("car", 1, 1, 5, 5),
        ("DontCare", 2, 2, 9, 9),
        ("dontcare", 3, 3, 3.2, 9),  # 0.4 wide in the network input: an area may be small
        ("dontcare", 30, 3, 35, 9),  # right of the image
        ("person", 0, 0, 9, 9),  # a crowd, as the reader says
        ("tree", 0, 0, 9, 9),  # likewise, of a class that is not mapped
    ],
    [("dontcare", 1, 1, 2, 2)] * 6,
]


def test_areas_to_ignore_are_kept_apart_and_accounted_for(caplog: pytest.LogCaptureFixture) -> None:
    data = source(AREAS, crowds=("person", "tree"), degenerate={"dontcare": 2})
    index, table = run(data, ignore_classes=["dontCare", "misc"])
    assert index.class_ids.tolist() == [1, -1, -1, 0, *[-1] * 6]  # a crowd keeps its class
    assert index.ignored.tolist() == [False, *[True] * 9]
    assert index.max_ignored == 6  # more than max_objects, which areas are no part of
    (account,) = table.sources
    assert account.classes == {"Human": Counts(ignored=1), "vehicle": Counts(kept=1)}
    assert account.areas == {"dontCare": Counts(ignored=8, outside=1, degenerate=2), "misc": Counts()}
    assert account.unmapped == {"tree": 1}
    assert account.images_without_objects == 1
    row = table.rows()[2]
    assert [row[key] for key in ("class", "kept", "ignored", "outside")] == ["dontCare", 0, 8, 1]
    total = table.rows()[-1]
    fates = ("kept", "ignored", "degenerate", "outside", "too_small", "unmapped")
    assert [total[key] for key in fates] == [
        1,
        9,
        2,
        1,
        0,
        1,
    ]  # 12 in the label and 2 that the reader dropped
    assert table.kept == {"Human": 0, "vehicle": 1}
    assert "training data: no 'misc', which ignore_classes names" in caplog.messages


def test_without_ignore_classes_areas_are_those_of_the_reader() -> None:
    index, table = run(source(AREAS, crowds=("person",)))
    assert index.ignored.tolist() == [False, True]
    assert table.sources[0].unmapped == {"dontcare": 8, "DontCare": 1, "tree": 1}
    index, _ = run(source(AREAS))
    assert index.max_ignored == 0 and not index.ignored.any()


def test_a_crop_beyond_the_images_is_said(caplog: pytest.LogCaptureFixture) -> None:
    cars: Objects = [("car", 1, 1, 9, 5)]
    geometry = partial(fixed, size=(10, 20), auto_resize=True, crop=(6, 0))
    prepare([source([cars])], class_mapping={"car": "car"}, geometry=geometry, max_objects=5)
    assert "the crop reaches beyond 1 of 1 images (one is 20x10 by then)" in caplog.text

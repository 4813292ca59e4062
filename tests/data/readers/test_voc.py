from pathlib import Path

import numpy as np
import pytest
from tiny_data import voc, write_image, write_voc

from frcnn.data.index import Source
from frcnn.data.readers.voc import read_voc
from frcnn.errors import DataError

ONE = voc([("car", 1, 2, 9, 10)])


def read(root: Path, text: str | bytes) -> Source:
    """The annotation `text` of one image."""
    write_voc(root, {"a": ""})
    (root / "Annotations" / "a.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_voc(annotations=root / "Annotations", image_root=root)


def test_a_tree_becomes_an_index(tmp_path: Path) -> None:
    objects = [
        ("Traffic light", 1.0, 2.5, 9.0, 10.0),
        ("car", 3.0, 3.0, 3.5, 9.0),
        ("Car", 0.0, 0.0, 5.0, 5.0),
    ]
    write_voc(tmp_path, {"b": voc([]), "a": voc(objects, difficult=1)})
    source = read_voc(annotations=tmp_path / "Annotations", image_root=tmp_path)
    index = source.index
    assert [index.path(i) for i in range(2)] == [
        tmp_path / "JPEGImages" / name for name in ("a.jpg", "b.jpg")
    ]
    assert index.class_names == ("Traffic light", "Car")
    np.testing.assert_array_equal(index.boxes, [[1, 2.5, 9, 10], [0, 0, 5, 5]])
    np.testing.assert_array_equal(index.difficult, [True, True])
    np.testing.assert_array_equal(index.offsets, [0, 2, 2])
    np.testing.assert_array_equal(index.sizes, [[16, 32]] * 2)
    assert dict(source.degenerate) == {"car": 1}


def test_a_list_chooses_images_and_their_order(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": ONE, "b 1": ONE, "c": ONE})
    path = tmp_path / "ImageSets" / "Main" / "val.txt"
    path.write_bytes(b"\xef\xbb\xbfc\r\n\r\nb 1 \r")
    index = read_voc(annotations=path, image_root=tmp_path).index
    assert [index.frames[i] for i in range(len(index))] == ["JPEGImages/c", "JPEGImages/b 1"]


@pytest.mark.parametrize(
    ("lines", "line", "message"),
    [
        ("a\na  1\n", 2, "no such annotation\n  found: a  1\n(.*\n)*.*are for classification"),
        ("a\nb -1\n", 2, "are for classification: use train.txt"),
        (
            "a\nnone\n",
            2,
            "no such annotation\n  found: none\n  allowed: an image id: .*Annotations/<id>.xml$",
        ),
        ("a\n\na\n", 3, "listed twice\n  found: a, also in line 1"),
    ],
)
def test_lines_that_are_no_image(tmp_path: Path, lines: str, line: int, message: str) -> None:
    path = write_voc(tmp_path, {"a": ONE}) / "ImageSets" / "Main" / "train.txt"
    path.write_text(lines)
    with pytest.raises(DataError, match=message) as info:
        read_voc(annotations=path, image_root=tmp_path)
    assert info.value.where == f"{path}:{line}"


def test_lists_and_folders_without_anything(tmp_path: Path) -> None:
    path = write_voc(tmp_path, {}) / "ImageSets" / "Main" / "train.txt"
    with pytest.raises(DataError, match="the list is empty"):
        read_voc(annotations=path, image_root=tmp_path)
    with pytest.raises(DataError, match=r"no \.xml files"):
        read_voc(annotations=tmp_path / "Annotations", image_root=tmp_path)
    (tmp_path / "Annotations").rmdir()
    with pytest.raises(DataError, match="Annotations: the folder cannot be listed\n  found: No such file"):
        read_voc(annotations=path, image_root=tmp_path)


@pytest.mark.parametrize("place", ["pictures", "pictures/JPEGImages", "JPEGImages"])
def test_places_of_images(tmp_path: Path, place: str) -> None:
    write_voc(tmp_path, {"a": ONE})
    (tmp_path / "pictures").mkdir()
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / "JPEGImages" / "a.jpg").rename(tmp_path / place / "a.jpg")
    source = read_voc(annotations=tmp_path / "Annotations", image_root=tmp_path / "pictures")
    assert source.index.path(0) == tmp_path / place / "a.jpg"


def test_names_of_images(tmp_path: Path) -> None:
    """The XML's own name with the extension first, then what it says in <filename>."""
    texts = {
        "a": voc([], filename="b.jpg"),
        "b": voc([], filename="C:\\x\\c.PNG"),
        "c": voc([], filename="d"),
    }
    write_voc(tmp_path, texts)
    for name in ("b", "c"):
        (tmp_path / "JPEGImages" / f"{name}.jpg").unlink()
    write_image(tmp_path / "JPEGImages" / "c.PNG")
    write_image(tmp_path / "JPEGImages" / "d.jpg")
    index = read_voc(annotations=tmp_path / "Annotations", image_root=tmp_path, image_extension=".jpg").index
    assert [index.path(i).name for i in range(3)] == ["a.jpg", "c.PNG", "d.jpg"]


def test_missing_images_are_counted(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": ONE, "b": voc([], filename="x.jpg")})
    (tmp_path / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(DataError, match="1 of 2 annotations have no image") as info:
        read_voc(annotations=tmp_path / "Annotations", image_root=tmp_path)
    assert info.value.where == tmp_path / "Annotations" / "b.xml"
    assert info.value.found == f"no b.jpg or x.jpg in {tmp_path / 'JPEGImages'}"
    with pytest.raises(
        DataError, match=rf"(?m)2 of 2(.*\n)*.*no a\.png in {tmp_path}, {tmp_path}/JPEGImages$"
    ):
        read_voc(annotations=tmp_path / "Annotations", image_root=tmp_path, image_extension="png")


@pytest.mark.parametrize(
    "size", ["", "<size/>", "<size><width>0</width><height>0</height></size>", "<size>32</size>"]
)
def test_a_size_that_is_not_given_comes_from_the_image(tmp_path: Path, size: str) -> None:
    text = ONE.replace("<size><width>32</width><height>16</height><depth>3</depth></size>", size)
    write_voc(tmp_path, {"a": text})
    write_image(tmp_path / "JPEGImages" / "a.jpg", width=7, height=5)
    source = read_voc(annotations=tmp_path / "Annotations", image_root=tmp_path)
    np.testing.assert_array_equal(source.index.sizes, [[5, 7]])


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("<name>car</name>", "", 4, "the object has no name"),
        ("<name>car</name>", "<name> </name>", 5, "the object has no name"),
        ("<xmax>9</xmax>", "", 4, "the car has no xmax\n  found: nothing"),
        ("<xmax>9</xmax>", "<xmax>1_0</xmax>", 8, "the car has no xmax\n  found: 1_0"),
        ("<ymin>2</ymin>", "<ymin>inf</ymin>", 7, "the car has no ymin\n  found: inf"),
        ("<difficult>0</difficult>", "<difficult>Unspecified</difficult>", 6, "allowed: 0 or 1"),
        ("<width>32</width>", "<width>-1</width>", 3, "the image has no size\n  found: -1"),
        ("<width>32</width>", "<width>1.5</width>", 3, "the image has no size"),
        ("<annotation>", "<annotations>", 1, "not a VOC annotation\n  found: <annotations>"),
        ("</bndbox>", "", 8, "not XML\n  found: mismatched tag"),
        ("car", "&car;", 5, "not XML\n  found: undefined entity"),
        ("<annotation>", '<?xml version="1.0" encoding="foo"?><annotation>', 1, "an unknown encoding"),
    ],
)
def test_annotations_that_make_no_sense_name_their_line(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    assert old in ONE
    with pytest.raises(DataError, match=message) as info:
        read(tmp_path, ONE.replace(old, new))
    assert f"{tmp_path}/Annotations/a.xml:{line}" in str(info.value.where)


def test_other_elements_and_parts_of_an_object_do_not_matter(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>7</xmin></bndbox></part><pose/>"
    index = read(tmp_path, ONE.replace("<name>car", part + "<name>car")).index
    assert index.class_names == ("car",)
    np.testing.assert_array_equal(index.boxes, [[1, 2, 9, 10]])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1", "cp1252"])
def test_declared_encodings(tmp_path: Path, encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?>\r\n' + ONE.replace("car", "vélo")
    assert read(tmp_path, text.encode(encoding)).index.class_names == ("vélo",)


@pytest.mark.parametrize(
    "dtd",
    [
        "<!DOCTYPE annotation [" + '<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">' + "]>",
        '<!DOCTYPE annotation SYSTEM "http://localhost:1/a.dtd">',
        '<!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
    ],
)
def test_document_types_are_refused_before_an_entity_is_declared(tmp_path: Path, dtd: str) -> None:
    with pytest.raises(DataError, match=r"a\.xml:2: the XML declares a document type"):
        read(tmp_path, f"\n{dtd}\n" + ONE.replace("car", "&a;"))

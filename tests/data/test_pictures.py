"""Which pictures a folder, a list, a pattern or a video means, and what they are called."""

import sys

import pytest
from PIL import Image
from tiny_data import write_image

from frcnn.data.pictures import find_pictures
from frcnn.errors import DataError, SpecError


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.jpg", "LOUD.JPG", "inner/c.png", "other/c.png"):
        write_image(tmp_path / name)
    (tmp_path / "notes.md").write_text("none")
    return tmp_path


def test_a_folder_means_the_images_directly_in_it(folder):
    found = find_pictures(folder)
    assert found.names == ["LOUD.JPG", "a.jpg", "b.png"]
    assert [item.name for item in found.items] == found.names
    assert (found.count, found.skipped) == (3, 3)  # notes.md and two folders
    first = next(iter(found.items))
    assert (first.path, first.area(), first.read().size) == (folder / "LOUD.JPG", 32 * 16, (32, 16))


def test_a_pattern_reaches_into_folders_and_names_keep_them(folder):
    assert find_pictures(folder / "**" / "*.png").names == ["b.png", "inner/c.png", "other/c.png"]
    assert find_pictures(folder / "i*" / "*.png").names == ["c.png"]


def test_a_list_is_relative_to_itself_and_names_nothing_twice(folder):
    path = folder / "list.txt"
    path.write_text(f"# mine\ninner/c.png\n\n{folder / 'b.png'}\ninner/c.png\nnotes.md\nmissing.png\n")
    found = find_pictures(path)
    assert found.names == ["inner/c.png", "b.png", "missing.png"]
    assert found.skipped == 1
    assert [item.area() for item in found.items] == [512, 512, 0]


def test_a_single_image(folder):
    assert find_pictures(folder / "b.png").names == ["b.png"]


@pytest.mark.parametrize(("name", "words"), [("empty", "nothing"), ("docs", "1 files and folders")])
def test_where_there_is_no_image(tmp_path, name, words):
    (tmp_path / name).mkdir()
    if name == "docs":
        (tmp_path / name / "notes.md").write_text("none")
    with pytest.raises(DataError, match=words):
        find_pictures(tmp_path / name)


def test_a_video_without_a_decoder_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "film.mp4").write_bytes(b"")
    with pytest.raises(SpecError, match=r"frcnn\[video\]"):
        find_pictures(tmp_path / "film.mp4")


def write_video(path, *, frames):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 48), (40 * number, 0, 0)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_a_video_is_its_frames(tmp_path):
    found = find_pictures(write_video(tmp_path / "film.mp4", frames=5))
    items = list(found.items)
    assert [item.name for item in items] == [f"film_{number:06d}.jpg" for number in range(1, 6)]
    assert found.count == 5
    assert items[0].area() == 64 * 48
    reds = [item.read().getpixel((32, 24))[0] for item in items]
    assert reds == sorted(reds)
    assert reds[-1] > 100


def test_a_broken_video(tmp_path, caplog):
    pytest.importorskip("av")
    (tmp_path / "film.mp4").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="the video cannot be read"):
        find_pictures(tmp_path / "film.mp4")

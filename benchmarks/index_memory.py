"""What the index of a million objects takes, and what a process grows by, at its peak, while it is built.

On its own so that little else is imported: memory that other packages have given back would hide the growth.
"""

from pathlib import Path

from frcnn.data.index import ImageFolder, IndexBuilder

OBJECTS, PER_IMAGE = 1_000_000, 5


def peak_memory() -> int:
    """Bytes. Not `ru_maxrss`, which starts at what the parent process had."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024


def main() -> None:
    """Print one line."""
    boxes = [1.0, 2.0, 30.0, 40.0] * PER_IMAGE
    names = ["car", "van", "pedestrian", "cyclist", "dontcare"]
    before = peak_memory()
    builder = IndexBuilder(ImageFolder("/data/kitti/training", "png"))
    for number in range(OBJECTS // PER_IMAGE):
        difficult = [False] * PER_IMAGE
        builder.add(f"image_2/{number:06d}", (375, 1242), names=names, boxes=boxes, difficult=difficult)
    index = builder.build()
    grown = peak_memory() - before
    limit = 64 * OBJECTS + 128 * len(index)
    print(
        f"index of {OBJECTS:,} objects in {len(index):,} images: {index.nbytes / 1e6:.0f} MB held, "
        f"{grown / 1e6:.0f} MB at the peak; 64 bytes an object and 128 an image are {limit / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()

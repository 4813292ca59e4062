"""A folder in which the commands of the documentation can be typed as they stand: every name they use is there."""

import json
import shutil
from pathlib import Path

import runs
from keras_files import make, randomise, write_detector
from PIL import Image
from specs import TINY
from tiny_data import coco, voc, write_voc

from frcnn.encryption import seal
from frcnn.entry.main import main

CONVERT = """kitti_config {
  root_directory_path: 'training' image_dir_name: 'image_2' label_dir_name: 'label_2' image_extension: '.png'
  partition_mode: 'random' num_partitions: 2 val_split: 34 num_shards: 1
}
"""
CONVERT_COCO = """coco_config {
  root_directory_path: '/workspace/tao-experiments/coco' img_dir_names: 'train2017'
  annotation_files: 'annotations/instances_train2017.json' num_partitions: 1 num_shards: 1
}
"""
INFERENCE = "inference_config { images_dir: 'photos' model: 'RUN/checkpoints/best.ckpt' }\n"


def build(place: Path) -> Path:
    """Fill a folder, which has to be the working directory."""
    scenes = runs.scenes(place / "scenes", train=6, val=2)
    for name in ("training", "validation"):
        (place / name).symlink_to(scenes / name)
    (place / "data").mkdir()
    for link in ("data/kitti", "DIR"):
        (place / link).symlink_to(scenes)
    _coco(place / "data" / "coco")
    write_voc(
        place / "data" / "voc", {name: voc([("car", 2, 2, 20, 12)], filename=f"{name}.jpg") for name in "ab"}
    )
    lists = place / "data" / "voc" / "ImageSets" / "Main"
    shutil.copy(lists / "train.txt", lists / "val.txt")
    _pictures(place, scenes)
    for name in ("their_spec.txt", "a.txt", "b.txt"):
        (place / name).write_text(TINY + INFERENCE)
    (place / "kitti.txt").write_text(CONVERT)
    (place / "coco.txt").write_text(CONVERT_COCO)
    kitti = CONVERT.replace("kitti_config {", "kitti_config:").replace("}", "")
    words = kitti.replace("kitti_config:", "").split()
    pairs = zip(words[::2], words[1::2], strict=True)
    (place / "kitti.yaml").write_text(
        "kitti_config:\n" + "".join(f"  {key} {value}\n" for key, value in pairs)
    )
    _models(place)
    return place


def _pictures(place: Path, scenes: Path) -> None:
    images = sorted((scenes / "validation" / "image_2").iterdir())
    (place / "photos").mkdir()
    for number, path in enumerate(images):
        with Image.open(path) as image:
            image.convert("RGB").save(place / "photos" / f"{number}.jpg")
    shutil.copy(place / "photos" / "0.jpg", place / "photo.jpg")
    (place / "FOLDER").symlink_to(place / "photos")


def _coco(folder: Path) -> None:
    names = ["000001.jpg", "000002.jpg"]
    content = coco(names, [(10, "car", (2, 2, 20, 10), 0), (11, "person", (4, 2, 8, 12), 0)])
    (folder / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (folder / split).mkdir()
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        for name in names:
            Image.new("RGB", (32, 16), "gray").save(folder / split / name)
    (folder.parent / "tao").mkdir()
    (folder.parent / "tao" / "coco").symlink_to(folder)


def _models(place: Path) -> None:
    line = ["spec=their_spec.txt", "hydra.run.dir=RUN", "run.num_workers=0", "training_config.num_epochs=2"]
    assert main("train", line) == 0
    checkpoints = place / "RUN" / "checkpoints"
    for name in ("FILE.ckpt", "last.ckpt"):  # so that there is something to go on with
        shutil.copy(checkpoints / "frcnn_resnet_10.epoch_1.ckpt", checkpoints / name)
    shutil.copytree(place / "RUN", place / "RETRAINED")
    shutil.copytree(place / "RUN", place / "results" / "train" / "RUN")
    shutil.copy(checkpoints / "best.ckpt", place / "FILE")
    shutil.copy(checkpoints / "best.ckpt", place / "model.ckpt")
    resumed = "training_config {\n  resume_from_model: 'RUN/checkpoints/last.ckpt'"
    (place / "spec.txt").write_text(
        TINY.replace("training_config {", resumed).replace("num_epochs: 1", "num_epochs: 2")
    )
    assert main("prune", ["model_path=RUN/checkpoints/best.ckpt", "hydra.run.dir=OUT"]) == 0
    seal(Path(shutil.copy(checkpoints / "best.ckpt", checkpoints / "sealed.ckpt")), "a key").rename(
        checkpoints / "best.ckpt.enc"
    )
    detector = randomise(make(all_projections=True))
    write_detector(place / "model.hdf5", detector)
    shutil.copy(place / "model.hdf5", place / "detector.epoch_12.hdf5")

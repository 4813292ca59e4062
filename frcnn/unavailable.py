"""Settings that mean something this version cannot do yet: named and refused, never ignored."""

from frcnn.errors import SpecError
from frcnn.model.backbones import BACKBONES
from frcnn.spec.augmentation import ColorAugmentation, SpatialAugmentation
from frcnn.spec.fields import settings_of, walk
from frcnn.spec.run import App

LATER = "is not available in this version"


def refuse_unavailable(app: App, command: str) -> None:
    """Stop on settings that mean something this version cannot do yet, instead of ignoring them.

    Args:
        app: settings.
        command: train or evaluate; settings of training do not stop an evaluation.

    Raises:
        SpecError: all of them at once, each with the value that goes without.
    """
    training, model = app.training_config, app.model_config
    problems = []
    if model.arch not in BACKBONES:
        allowed = ", ".join(BACKBONES)
        problems.append(SpecError(LATER, where="model_config.arch", found=model.arch, allowed=allowed))
    if model.input_image_config.size_height_width is None:
        where = "model_config.input_image_config.size_min"
        problems.append(SpecError(LATER, where=where, hint="size_height_width { height width }"))
    neutral: dict[str, object] = {
        "augmentation_config.preprocessing.crop_right": 0,
        "augmentation_config.preprocessing.crop_bottom": 0,
        "augmentation_config.preprocessing.scale_width": 0.0,
        "augmentation_config.preprocessing.scale_height": 0.0,
    }
    if command == "train":
        neutral |= {
            "dataset_config.sampling_mode": 0,
            "training_config.enable_qat": False,
            "training_config.pretrained_weights": "",
            "training_config.retrain_pruned_model": "",
            "training_config.resume_from_model": "",
            "training_config.model_parallelism": [],
        }
    if command == "train" and training.enable_augmentation:
        harmless = {"hflip_probability", "rotate_probability", "contrast_center"}
        for group, message in (("spatial", SpatialAugmentation), ("color", ColorAugmentation)):
            for name in {field.name for field in settings_of(message)} - harmless:
                path = f"augmentation_config.{group}_augmentation.{name}"
                neutral[path] = 1.0 if name.startswith("zoom") else 0.0
    for path, _, value in walk(app):
        if command == "train" and path.endswith("source_weight") and value != 1.0:
            problems.append(SpecError(LATER, where=path, found=value, allowed=1.0))
        elif path in neutral and value != neutral[path]:
            without = "" if neutral[path] == "" else f"{neutral[path]}".replace("False", "false")
            hint = f"{path}={without} goes without it"
            problems.append(SpecError(LATER, where=path, found=value, allowed=repr(neutral[path]), hint=hint))
    if problems:
        raise SpecError.of(problems)

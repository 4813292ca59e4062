"""Contact sheets of the augmentation: what each step of it makes of training images."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from frcnn import build, results
from frcnn.data.dataset import DetectionDataset
from frcnn.report.training import training_grid
from frcnn.spec.augmentation import AugmentationConfig
from frcnn.spec.run import App

log = logging.getLogger(__name__)

IMAGES, DRAWS = 4, 3

STEPS = {
    "hflip": ("spatial_augmentation", ("hflip_probability",)),
    "vflip": ("spatial_augmentation", ("vflip_probability",)),
    "translate": ("spatial_augmentation", ("translate_max_x", "translate_max_y")),
    "zoom": ("spatial_augmentation", ("zoom_min", "zoom_max")),
    "rotate": ("spatial_augmentation", ("rotate_rad_max", "rotate_probability")),
    "brightness": ("color_augmentation", ("color_shift_stddev",)),
    "hue": ("color_augmentation", ("hue_rotation_max",)),
    "saturation": ("color_augmentation", ("saturation_shift_max",)),
    "contrast": ("color_augmentation", ("contrast_scale_max", "contrast_center")),
}
"""A sheet's name, and the settings that make its step; the others are neutral there."""


def write_sheets(app: App, dataset: DetectionDataset, folder: Path) -> list[Path]:
    """Draw a sheet per step that the settings switch on, and one of all steps together.

    On its own a step happens every time, whatever its probability. A row is an image, first as validation
    would see it, then as the first epochs would.

    Args:
        app: settings.
        dataset: training data.
        folder: where the PNG files go.
    """
    count = min(IMAGES, len(dataset))
    numbers = [i * (len(dataset) - 1) // max(count - 1, 1) for i in range(count)]
    plain = dataset.with_transforms(build.transforms(app, augmentation=()))
    originals = [plain.sample(number) for number in numbers]
    written, look = [], results.look(app)
    for name, config in _single_steps(app.augmentation_config, gray=dataset.channels == 1):
        spec = replace(app, augmentation_config=config)
        steps = build.augmentation(spec, tao_quirks=app.run.tao_quirks)
        augmented = dataset.with_transforms(build.transforms(app, augmentation=steps))
        samples, titles = [], []
        for number, original in zip(numbers, originals, strict=True):
            stem = dataset.index.path(number).stem
            samples += [original, *(augmented.sample(number, epoch=epoch) for epoch in range(DRAWS))]
            titles += [stem, *(f"{stem}, {name}, epoch {epoch + 1}" for epoch in range(DRAWS))]
        written.append(folder / f"{name}.png")
        training_grid(samples, look, titles=titles, columns=1 + DRAWS).save(written[-1])
        log.info("%s", written[-1])
    return written


def _single_steps(config: AugmentationConfig, *, gray: bool) -> Iterator[tuple[str, AugmentationConfig]]:
    """The configuration of each step that does something, alone and always, and of all as they are."""
    neutral = AugmentationConfig()
    for name, (block, fields) in STEPS.items():
        given, still = getattr(config, block), getattr(neutral, block)
        amounts = [field for field in fields if field not in ("rotate_probability", "contrast_center")]
        if gray and block == "color_augmentation":
            continue
        if any(getattr(given, field) != getattr(still, field) for field in amounts):
            values = {field: getattr(given, field) for field in fields}
            certain = {field: 1.0 for field in fields if field.endswith("_probability")}
            yield name, replace(neutral, **{block: replace(still, **(values | certain))})
        else:
            log.info("no sheet of %s: %s.%s switches it on", name, block, amounts[0])
    yield "all", config

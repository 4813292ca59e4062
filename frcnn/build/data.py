"""The data of a spec: found, read, counted and batched."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from frcnn.build.images import augmentation, channels, geometry, transforms
from frcnn.data.dataset import DetectionDataset
from frcnn.data.index import Source
from frcnn.data.prepare import prepare
from frcnn.data.readers.coco import read_coco
from frcnn.data.readers.files import Problem, refuse
from frcnn.data.readers.kitti import read_kitti
from frcnn.data.readers.layout import Layout, layout_of
from frcnn.data.readers.shards import find_records, in_fold, select_fold
from frcnn.data.readers.tfrecord import read_tfrecords
from frcnn.data.readers.voc import read_voc
from frcnn.data.sampling import Share, expected_draws, is_even
from frcnn.data.table import DataTable
from frcnn.data.toy import ensure_toy
from frcnn.datamodule import DetectionDataModule
from frcnn.errors import DataError, SpecError
from frcnn.paths import PathFinder, load_mounts
from frcnn.spec.dataset import DataSource, SamplingMode
from frcnn.spec.experiment import Experiment
from frcnn.spec.run import Run
from frcnn.spec.values import plain_name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Data:
    """Batches, with the account of every object.

    Attributes:
        module: training and validation batches.
        training, validation: what became of each object; None where there is no such data.
    """

    module: DetectionDataModule
    training: DataTable | None
    validation: DataTable | None


def build_data(spec: Experiment, run: Run, *, num_workers: int, train: bool = True) -> Data:
    """Read the labels of all sources and make batches of them; paths are absolute by now.

    Args:
        spec: settings.
        run: what labels may be like, which of them are areas to ignore, what angles mean.
        num_workers: loader processes.
        train: whether training data is wanted too.

    Raises:
        SpecError: a name of `run.ignore_classes` is mapped to a class, too.
        DataError: files that are missing or broken, a fold that does not exist, no objects left.
    """
    data, training = spec.dataset_config, spec.training_config
    validation = data.validation_data_source is not None or data.validation_fold is not None
    _refuse_mapped(run.ignore_classes, data.target_class_mapping)
    sources = read_sources(spec, run, validation=False) if train else []
    shares = _shares(sources, data.sampling_mode)
    train_set, train_table = data_set(spec, run, sources) if train else (None, None)
    sources = read_sources(spec, run, validation=True) if validation else []
    val_set, val_table = data_set(spec, run, sources, validation=True) if validation else (None, None)
    module = DetectionDataModule(
        train=train_set,
        validation=val_set,
        max_objects=spec.model_config.input_image_config.max_objects_num_per_image,
        batch_size=training.batch_size_per_gpu,
        validation_batch_size=spec.evaluation_config.batch_size,
        num_workers=num_workers,
        seed=spec.random_seed,
        shares=shares,
    )
    return Data(module, train_table, val_table)


def _refuse_mapped(ignore_classes: Sequence[str], mapping: Mapping[str, str]) -> None:
    keys = {plain_name(key) for key in mapping}
    if both := [name for name in ignore_classes if plain_name(name) in keys]:
        raise SpecError(
            "are classes to learn, too",
            where="run.ignore_classes",
            found=", ".join(both),
            allowed="names that dataset_config.target_class_mapping does not map, whatever their case",
        )


def _shares(sources: Sequence[Source], mode: SamplingMode) -> list[Share]:
    """How often the images of each source are drawn; says so where an epoch does not show each image once."""
    weights: dict[SamplingMode, Callable[[Source], float]] = {
        SamplingMode.USER_DEFINED: lambda source: source.weight,
        SamplingMode.PROPORTIONAL: lambda source: 1.0,
        SamplingMode.UNIFORM: lambda source: 1.0 / max(len(source.index), 1),
    }
    shares = [Share(source.name, len(source.index), weights[mode](source)) for source in sources]
    if not is_even(shares):
        total = sum(share.images for share in shares)
        for share, draws in zip(shares, expected_draws(shares), strict=True):
            log.info(
                "%s of the %s samples of an epoch come from the %s images of %s",
                *(f"{draws:,.0f}", f"{total:,}", f"{share.images:,}", share.name),
            )
    return shares


def data_set(
    spec: Experiment,
    run: Run,
    sources: Sequence[Source],
    *,
    validation: bool = False,
    problem: Problem = refuse,
) -> tuple[DetectionDataset, DataTable]:
    """What the network is shown of sources, and the account of their objects; errors as in `prepare`."""
    data, preprocessing = spec.dataset_config, spec.augmentation_config.preprocessing
    min_size = (preprocessing.min_bbox_width, preprocessing.min_bbox_height)
    index, table = prepare(
        sources,
        class_mapping=data.target_class_mapping,
        geometry=geometry(spec),
        max_objects=spec.model_config.input_image_config.max_objects_num_per_image,
        min_size=min_size,
        ignore_classes=run.ignore_classes,
        split="validation" if validation else "training",
        problem=problem,
    )
    augmented = not validation and spec.training_config.enable_augmentation
    steps = augmentation(spec, tao_quirks=run.tao_quirks) if augmented else ()
    dataset = DetectionDataset(
        index,
        transforms=transforms(spec, augmentation=steps),
        channels=channels(spec),
        min_size=min_size,
        seed=spec.random_seed,
        other_sizes=preprocessing.enable_auto_resize
        or spec.model_config.input_image_config.size_min is not None,
    )
    return dataset, table


def read_sources(spec: Experiment, run: Run, *, validation: bool, problem: Problem = refuse) -> list[Source]:
    """The sources of training or validation, as their files have them; errors as in `build_data`.

    Sources of which nothing can be read are left out if `problem` takes the error.
    """
    data, fold = spec.dataset_config, spec.dataset_config.validation_fold
    if validation and data.validation_data_source is not None:
        fold, split, whole = None, [data.validation_data_source], list[DataSource]()
    elif fold is None:
        split, whole = [*data.data_sources], []
    else:
        split, whole = _split(data.data_sources, fold, validation=validation)
    read = partial(_read, spec=spec, run=run, problem=problem)
    found = []
    for source in (*split, *whole):
        of_fold, held_out = (fold, validation) if source in split else (None, False)
        try:
            one = read(source, fold=of_fold, validation=held_out)
        except DataError as error:
            problem(error)
        else:
            found.append(replace(one, weight=source.source_weight))
    return found


def _split(
    sources: Sequence[DataSource], fold: int, *, validation: bool
) -> tuple[list[DataSource], list[DataSource]]:
    """The sources that the fold divides, and those that are training data as a whole.

    Of several sources some may lack the fold: they only train. Others may be nothing else: they only
    validate. If that leaves none, all are divided, and reading them says what is wrong.
    """
    marks = [[in_fold(path, fold) for path in _records(source)] for source in sources]
    split = [source for source, marked in zip(sources, marks, strict=True) if any(marked)]
    if not split or validation:
        return split or [*sources], []
    whole = [source for source, marked in zip(sources, marks, strict=True) if not any(marked)]
    for source in whole:
        log.warning("%s has no fold %s: all of it is training data", source.tfrecords_path, fold)
    mixed = [source for source, marked in zip(sources, marks, strict=True) if any(marked) and not all(marked)]
    if not (mixed or whole):
        return split, []
    for source in split:
        if source not in mixed:
            log.warning("%s is fold %s only: none of it is training data", source.tfrecords_path, fold)
    return mixed, whole


def _records(source: DataSource) -> list[Path]:
    """The record files of a source; none where it is of another kind."""
    pattern = source.tfrecords_path
    return find_records(pattern) if layout_of(pattern)[0] is Layout.RECORDS else []


def _read(
    source: DataSource,
    *,
    spec: Experiment,
    run: Run,
    fold: int | None,
    validation: bool,
    problem: Problem,
) -> Source:
    root, extension = Path(source.image_directory_path), spec.dataset_config.image_extension
    layout, labels = layout_of(source.tfrecords_path)
    if fold is not None and layout is not Layout.RECORDS:
        raise DataError(
            "validation_fold needs TFRecords",
            where="dataset_config.validation_fold",
            found=f"{labels}, {layout}",
            hint="give validation_data_source instead",
        )
    if layout is Layout.RECORDS:
        files = find_records(source.tfrecords_path)
        if fold is not None:
            files = select_fold(files, fold, validation=validation)
        name = source.tfrecords_path
        return read_tfrecords(
            files=files, name=name, image_root=root, image_extension=extension, problem=problem
        )
    readers: dict[Layout, Callable[..., Source]] = {
        Layout.KITTI: partial(
            read_kitti,
            labels=labels,
            image_extension=extension,
            allow_missing=run.allow_missing_labels,
            allow_scores=run.allow_label_scores,
        ),
        Layout.COCO: partial(read_coco, annotations=labels),
        Layout.VOC: partial(read_voc, annotations=labels, image_extension=extension),
    }
    return readers[layout](image_root=root, problem=problem)


def locate_data(
    spec: Experiment, run: Run, *, train: bool = True, problem: Problem = refuse
) -> list[DataSource]:
    """Draw a built-in data set if asked for, and make every data path in the spec absolute.

    Returns:
        The sources with a path that leads nowhere, if `problem` takes the errors; else none.

    Raises:
        DataError: a path that leads nowhere, with the places that were tried.
    """
    mounts = load_mounts(run.mounts)
    if run.generate == "toy":
        drawn = ensure_toy(Path(run.data_root).expanduser())
        mounts |= {f"{run.data_root}/{split}": str(drawn / split) for split in ("training", "validation")}
    finder = PathFinder(spec_folder=run.spec_folder, mounts=mounts)
    data = spec.dataset_config
    sources = {f"dataset_config.data_sources.{i}": source for i, source in enumerate(data.data_sources)}
    if not train and data.validation_data_source is not None:
        sources = {}
    if data.validation_data_source is not None:
        sources["dataset_config.validation_data_source"] = data.validation_data_source
    lost = []
    for path, source in sources.items():
        for name in ("tfrecords_path", "image_directory_path"):
            try:
                setattr(source, name, str(finder.find(getattr(source, name), field=f"{path}.{name}")))
            except DataError as error:
                problem(error)
                lost.append(source)
    return lost

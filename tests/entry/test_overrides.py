"""The command line is checked against conf/ and the settings before Hydra is imported."""

import pytest

from frcnn.entry.overrides import check, expand, fields_on, parse, sections
from frcnn.errors import SpecError
from frcnn.paths import conf_dir


def refusal(*items):
    with pytest.raises(SpecError) as caught:
        check(items, conf_dir())
    return str(caught.value)


def test_a_line_is_taken_apart():
    line = parse(
        ["-m", "--cfg", "job", "spec=a.txt,'b.txt'", "enc_key=x", "-r", "out", "lr=step", "~run.mounts.a"]
    )
    assert line.flags == ["-m", "--cfg", "job"]
    assert line.values == {"spec": ["a.txt", "b.txt"], "enc_key": ["x"]}
    assert line.overrides == ["hydra.run.dir=out", "hydra.sweep.dir=out", "lr=step", "~run.mounts.a"]
    assert line.groups == {"lr"}


def test_a_bare_word_is_refused():
    with pytest.raises(SpecError, match="key=value"):
        parse(["resnet18"])


def test_good_lines_pass():
    check(
        [
            "backbone=resnet18,resnet34",
            "logger=[csv,wandb]",
            "hydra.run.dir=x",
            "+run.mounts.a=b",
            "lr=glob(*)",
        ],
        conf_dir(),
    )


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("backbone=resnet19", "did you mean resnet18"),
        ("lr=0.01", "learning_rate.soft_start.base_lr"),
        ("training=20", "training_config.num_epochs"),
        ("model=runs/best.ckpt", "model_path=FILE"),
        ("trainer.max_epochs=3", "training_config.num_epochs"),
        ("trainer.check_val_every_n_epoch=1", "validation_period_during_training"),
        ("training_config.num_epoch=3", "did you mean training_config.num_epochs?"),
        ("num_epochs=3", "did you mean training_config.num_epochs?"),
        ("bakbone=resnet18", "did you mean backbone?"),
        ("dataset_config.data_sources.0.pth=x", "unknown setting"),
        ("dataset_config.data_sources[0].tfrecords_path=x", "data_sources.0.tfrecords_path"),
        ("training_config.num_epochs=1.5", "a whole number"),
        ("model_config.freeze_bn=maybe", "true or false"),
    ],
)
def test_mistakes_are_explained(item, words):
    assert words in refusal(item)


def test_all_mistakes_come_together():
    message = refusal("backbone=x", "trainer.max_epochs=3", "foo=1")
    assert "3 problems" in message


def test_two_members_of_a_oneof_are_refused():
    words = refusal("training_config.optimizer.sgd.lr=1", "training_config.optimizer.adam.lr=1")
    assert "only one may be set" in words


def test_block_ids_may_be_floats():
    assert expand(["model_config.freeze_blocks=[0.0,1.0]"], {}) == ["model_config.freeze_blocks=[0,1]"]


def test_fields_on_a_path():
    assert [path for path, _, _ in fields_on("dataset_config.data_sources.0.source_weight")] == [
        "dataset_config",
        "dataset_config.data_sources",
        "dataset_config.data_sources.source_weight",
    ]
    assert fields_on("dataset_config.nothing") == []


def test_a_oneof_member_clears_its_siblings():
    assert expand(["training_config.optimizer.sgd.momentum=0.9"], {}) == [
        "training_config.optimizer.adam=null",
        "training_config.optimizer.rmsprop=null",
        "training_config.optimizer.sgd.momentum=0.9",
    ]
    assert expand(["dataset_config.validation_fold=0"], {})[0] == "dataset_config.validation_data_source=null"
    assert expand(["training_config.optimizer.sgd=null"], {}) == ["training_config.optimizer.sgd=null"]


def test_a_map_value_replaces_the_map():
    key = "dataset_config.target_class_mapping"
    assert expand([f"{key}={{a: b}}"], {key: ["car"]}) == [f"~{key}.car", f"++{key}={{a: b}}"]
    assert expand([f"+{key}.a=b"], {key: ["car"]}) == [f"+{key}.a=b"]
    assert expand([f"{key}={{a: b}}", f"{key}={{c: d}}"], {key: []}) == [f"++{key}={{c: d}}"]


def test_sections_to_create():
    assert sections(["training_config.early_stopping.patience=3"]) == ["training_config.early_stopping"]
    assert sections(["training_config.visualizer.wandb_config.name=x"]) == [
        "training_config.visualizer",
        "training_config.visualizer.wandb_config",
    ]
    assert sections(["training_config.num_epochs=3"]) == []


@pytest.mark.parametrize("words", [["-r"], ["spec="], ["spec=a.txt", "spec=b.txt"]])
def test_half_said_things_are_refused(words):
    with pytest.raises(SpecError):
        parse(words)


def test_a_key_may_hold_commas():
    assert parse(["enc_key=a,b"]).values["enc_key"] == ["a,b"]

"""YAML specs that are broken say where."""

import pytest

from frcnn.bridge import yaml
from frcnn.errors import SpecError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model_config: [", "<string>:1:"),
        ("- a", "is no mapping"),
        ("model_config:\n  arch: 3", "<string>:2:9: model_config.arch"),
        ("model_config: {freeze_bnn: 1}", "did you mean freeze_bn"),
        ("verbose: 'yes'", "True or False"),
        ("dataset_config: {target_class_mapping: {car: 1}}", "a quoted string"),
        ("random_seed: 1\nrandom_seed: 2", "each once"),
        ("[a]: 1", "keys that are text"),
        ("enc_key: !foo bar", "a quoted string"),
        ("enc_key: ${x}", "references"),
        ("a: " + "[" * 5000, "nested too deeply"),
    ],
)
def test_refusals(text, words):
    with pytest.raises(SpecError) as caught:
        yaml.loads(text)
    assert words in str(caught.value)


def test_numbers_as_people_write_them():
    spec = yaml.loads("training_config: {rpn_min_overlap: 1, regularizer: {type: L2, weight: 1e-4}}")
    assert spec.training_config.rpn_min_overlap == 1.0
    assert spec.training_config.regularizer.weight == 1e-4


def test_sections_of_a_run_are_kept_apart():
    document = yaml.parse("random_seed: 1\nrun: {name: x}\n# a comment\n")
    assert (document.spec.random_seed, document.extra, document.comments) == (1, {"run": {"name": "x"}}, True)

"""The schema itself: size, numbers and the page that is generated from it."""

from pathlib import Path

from frcnn.spec import Experiment, messages_below, settings_of
from frcnn.spec.reference import page

ROOT = Path(__file__).resolve().parents[2]


def test_every_message_and_field_is_there():
    # spec-and-data section 1: 31 messages below Experiment; 195 fields with training_config.output_model.
    messages = list(messages_below(Experiment))
    assert len(messages) == 31
    assert sum(len(settings_of(message)) for message in messages) == 195


def test_numbers_are_unique_in_each_message():
    for message in messages_below(Experiment):
        numbers = [field.number for field in settings_of(message)]
        assert len(set(numbers)) == len(numbers), message


def test_every_field_says_what_it_is():
    assert all(field.doc for message in messages_below(Experiment) for field in settings_of(message))


def test_the_reference_page_is_up_to_date():
    assert (ROOT / "docs" / "spec-reference.md").read_text() == page()

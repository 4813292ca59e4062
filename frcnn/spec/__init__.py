"""The one source of truth for settings: TAO's schema as dataclasses (standard library only)."""

from frcnn.spec.experiment import Experiment
from frcnn.spec.fields import REQUIRED, Message, Setting, messages_below, settings_of, walk

__all__ = ["REQUIRED", "Experiment", "Message", "Setting", "messages_below", "settings_of", "walk"]

"""Conditions of a model: classes, numbers, parts of images, or texts, each with a name."""

from .base import Condition, Conditions, Examples, NamedCondition
from .captions import TextCondition
from .classes import ClassCondition
from .given import Given, require_given
from .numbers import VectorCondition
from .part import PartCondition, observed_part
from .tokenizer import Tokenizer

__all__ = [
    "ClassCondition",
    "Condition",
    "Conditions",
    "Examples",
    "Given",
    "NamedCondition",
    "PartCondition",
    "TextCondition",
    "Tokenizer",
    "VectorCondition",
    "observed_part",
    "require_given",
]

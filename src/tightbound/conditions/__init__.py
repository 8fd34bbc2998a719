"""What a model is given: classes, numbers, a part of a picture, or a text."""

from .base import (
    ClassCondition,
    Condition,
    Examples,
    PartCondition,
    TextCondition,
    VectorCondition,
    missing,
    observed_part,
)
from .tokenizer import Tokenizer

__all__ = [
    "ClassCondition",
    "Condition",
    "Examples",
    "PartCondition",
    "TextCondition",
    "Tokenizer",
    "VectorCondition",
    "missing",
    "observed_part",
]

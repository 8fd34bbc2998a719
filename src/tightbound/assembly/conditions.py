"""The condition of a model, and its embeddings for the parts."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import nn

from ..autoregressive import TokenPrefix
from ..conditions import ClassCondition, Condition, Conditions, NamedCondition, TextCondition, VectorCondition
from ..distributions import Embeddings
from ..errors import UsageError
from ..networks import ClassEmbedding, ImageEmbedding, Observed, TokenEmbedding
from ..options.data_spec import DataSpec
from ..options.parts import ConditionOptions, TextPositions

__all__ = ["condition_of", "embedding_of", "features_of", "places_of", "prefix_of", "rotary_places", "row_of"]


def condition_of(options: ConditionOptions, data: DataSpec) -> Condition:
    """The condition named by the options, for that data, or several.

    Raises:
        UsageError: If the data lacks one, or none is named.
    """
    numbers = {0: "", 1: "vector"}.get(len(data.condition_shape), "image")
    there = [*(["class"] if data.classes else []), *([numbers] if numbers else []), *(["text"] * data.captioned)]
    asked = options.condition if isinstance(options.condition, tuple) else (options.condition,)
    names = [there[0]] if asked == ("auto",) and there else [*asked]
    lacking = [name for name in names if name not in there]
    if lacking or not names:
        raise UsageError(
            "This data does not have that condition.",
            got=", ".join(lacking) or "none",
            expected=", ".join(there) or "classes, numbers beside the examples, or captions; this data has none",
            remedy="Use data in class sub-folders, with a metadata.jsonl, or an .npz with 'y' or 'c'; or recipe 'vae'.",
        )
    found = [_named(name, options, data) for name in names]
    return found[0] if len(found) == 1 else Conditions(*found)


def _named(name: str, options: ConditionOptions, data: DataSpec) -> NamedCondition:
    if name == "class":
        return ClassCondition(data.classes, options.drop_condition, data.absent)
    if name == "text":
        return TextCondition(options.vocabulary, options.caption_length, options.drop_condition)
    return VectorCondition(data.condition_shape, options.drop_condition)


def embedding_of(condition: Condition, dim: int) -> nn.Module:
    """A new embedding of a condition, learned separately for each part; the sum of several conditions' embeddings."""
    return _of_each(condition, lambda part: features_of(part, dim))


def prefix_of(condition: Condition | None, width: int, positions: TextPositions = "learned") -> nn.Module | None:
    """The prefix of a transformer: the tokens of a text, or features of another condition, or their sum."""
    return None if condition is None else _of_each(condition, lambda part: row_of(part, width, positions))


def rotary_places(condition: Condition | None, positions: TextPositions, behind: int = 0) -> int:
    """Length of a transformer's prefix with rotary positions: that of a text, plus ``behind`` entries."""
    longest = 0 if condition is None else max(map(places_of, condition.parts.values()))
    return longest + behind if positions == "rotary" and longest else 0


def _of_each(condition: Condition, make: Callable[[NamedCondition], nn.Module]) -> nn.Module:
    """The module of the one condition that there is, or those of several by their names."""
    each = {name: make(part) for name, part in condition.parts.items()}
    return Embeddings(each) if len(each) > 1 else next(iter(each.values()))


@functools.singledispatch
def features_of(part: NamedCondition, dim: int) -> nn.Module:
    """Features of one condition; one function for each class of conditions.

    Raises:
        UsageError: If no function is registered for the condition.
    """
    raise UsageError(
        f"No features are known of a {type(part).__name__}.",
        remedy="Register a function that makes them: tightbound.assembly.conditions.features_of.register.",
    )


@features_of.register
def _of_class(part: ClassCondition, dim: int) -> nn.Module:
    return ClassEmbedding(len(part.classes), dim)


@features_of.register
def _of_numbers(part: VectorCondition, dim: int) -> nn.Module:
    return ImageEmbedding(part.shape, dim) if len(part.shape) == 3 else Observed(part.size, dim)


@features_of.register
def _of_text(part: TextCondition, dim: int) -> nn.Module:
    return TokenEmbedding(part.vocabulary, part.size, dim)


@functools.singledispatch
def row_of(part: NamedCondition, width: int, positions: TextPositions) -> nn.Module:
    """The sequence of vectors of a condition; one function for each class with more than one vector."""
    return features_of(part, width)


@row_of.register
def _tokens(part: TextCondition, width: int, positions: TextPositions) -> nn.Module:
    return TokenPrefix(part.vocabulary, part.size, width, positions)


@functools.singledispatch
def places_of(part: NamedCondition) -> int:
    """Length of the sequence of vectors of a condition; 0 for a single vector."""
    return 0


@places_of.register
def _places_of_text(part: TextCondition) -> int:
    return part.size

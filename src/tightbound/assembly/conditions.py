"""The condition of a model, and its embeddings for the parts."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..autoregressive import TokenPrefix
from ..conditions import ClassCondition, Condition, TextCondition, VectorCondition
from ..errors import UsageError
from ..networks import ClassEmbedding, ImageEmbedding, Observed, TokenEmbedding
from ..options.data_spec import DataSpec
from ..options.parts import ConditionOptions, TextPositions

__all__ = ["condition_of", "embedding_of", "prefix_of", "rotary_places"]


def condition_of(options: ConditionOptions, data: DataSpec) -> Condition:
    """The condition named by the options, for that data.

    Raises:
        UsageError: If the data has none.
    """
    numbers = {0: "", 1: "vector"}.get(len(data.condition_shape), "image")
    there = [*(["class"] if data.classes else []), *([numbers] if numbers else []), *(["text"] * data.captioned)]
    name = options.condition if options.condition != "auto" or not there else there[0]
    if name not in there:
        raise UsageError(
            "This data does not have that condition.",
            got=name,
            expected=", ".join(there) or "classes, numbers beside the examples, or captions; this data has none",
            remedy="Use data in class sub-folders, with a metadata.jsonl, or an .npz with 'y' or 'c'; or recipe 'vae'.",
        )
    if name == "class":
        return ClassCondition(data.classes, options.drop_condition, data.absent)
    if name == "text":
        return TextCondition(options.vocabulary, options.caption_length, options.drop_condition)
    return VectorCondition(data.condition_shape, options.drop_condition)


def embedding_of(condition: Any, dim: int) -> nn.Module:
    """A new embedding of a condition, learned separately for each part."""
    if isinstance(condition, TextCondition):
        return TokenEmbedding(condition.vocabulary, condition.size, dim)
    if isinstance(condition, ClassCondition):
        return ClassEmbedding(len(condition.classes), dim)
    return ImageEmbedding(condition.shape, dim) if len(condition.shape) == 3 else Observed(condition.size, dim)


def prefix_of(condition: Any, width: int, positions: TextPositions = "learned") -> nn.Module | None:
    """The prefix of a transformer: the tokens of a text, or features of another condition."""
    if isinstance(condition, TextCondition):
        return TokenPrefix(condition.vocabulary, condition.size, width, positions)
    return embedding_of(condition, width) if condition else None


def rotary_places(condition: Any, positions: TextPositions, behind: int = 0) -> int:
    """Length of a transformer's prefix with rotary positions: that of a text, plus ``behind`` entries."""
    return condition.size + behind if positions == "rotary" and isinstance(condition, TextCondition) else 0

"""Seeded splits for sources without official splits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import DataError
from ..options.data import DataOptions
from .sources.raw import Part

__all__ = ["divided", "held_out"]

TEST_SHARE = 0.1
"""Share held out as the test split, if there is none; at least one example."""
MOST_VALIDATION = 10_000
"""Maximum size of a held-out validation split."""


def divided(parts: Mapping[str, Part], options: DataOptions) -> dict[str, Part]:
    """Parts for all three splits; missing ones are held out of the training part.

    Raises:
        DataError: If a required part is empty, or the training part is too small to be divided.
    """
    if "train" not in parts:
        raise DataError("The data has no training split.", got=f"only {', '.join(parts)}", expected="train")
    result = dict(parts)
    if "test" not in result:
        count = max(1, round(TEST_SHARE * len(result["train"])))
        result["train"], result["test"] = held_out(result["train"], count, options.split_seed, "test")
    if "valid" not in result:
        share = round(options.validation * len(result["train"]))
        count = min(max(1, share), MOST_VALIDATION) if options.validation > 0 else 0
        result["train"], result["valid"] = held_out(result["train"], count, options.split_seed, "validation")
    for name in ("train", "test"):
        if len(result[name]) == 0:
            raise DataError(f"The {name} split is empty.", expected="at least 1 example")
    return result


def held_out(part: Part, count: int, seed: int, what: str) -> tuple[Part, Part]:
    """All but ``count`` examples, and those, chosen by a seed, each in their original order.

    Args:
        part: The part to divide; its values are not copied.
        count: Number of examples to hold out.
        seed: Seed of the choice.
        what: Name of the held-out split, for the message.

    Raises:
        DataError: If no examples would remain.

    Example:
        >>> rest, held = held_out(Part(np.arange(5)), 2, seed=0, what="test")
        >>> rest.dense().tolist(), held.dense().tolist()
        ([1, 3, 4], [0, 2])
    """
    if count == 0:
        return part, part.take(np.arange(0))
    if count >= len(part):
        raise DataError(
            f"There are too few examples for a {what} split.",
            got=f"{len(part)} example{'s' * (len(part) != 1)}",
            expected=f"at least {count + 1}",
            remedy="Add examples, or provide the splits (folders train/, valid/ and test/).",
        )
    # RandomState, because its stream is frozen: a split must stay the same over all versions of NumPy.
    order = np.random.RandomState(seed).permutation(len(part)).astype(np.int64)
    return part.take(np.sort(order[count:])), part.take(np.sort(order[:count]))

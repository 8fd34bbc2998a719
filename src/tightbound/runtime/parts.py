"""What a part of a model may ask of its training, beside the gradients of its parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager

from torch import Tensor
from torch.optim import Optimizer

__all__ = ["LearnsByItself", "LearnsFromCaptions", "StartsFromData"]

STARTING = 2000
"""Training examples that a part which starts from data sees, unless it says how many it wants."""


class StartsFromData(ABC):
    """Abstract: a part that starts where the data lies: pseudo-inputs, means and scales."""

    @property
    def examples_wanted(self) -> int:
        """How many training examples :meth:`initialise` wants."""
        return STARTING

    @abstractmethod
    def initialise(self, x: Tensor) -> None:
        """Starts from training examples ``(n, *shape)``; its own parts are its own business."""


class LearnsFromCaptions(ABC):
    """Abstract: a part that learns from the captions of the training examples before anything else does."""

    @abstractmethod
    def initialise_captions(self, captions: Iterable[str]) -> None:
        """Learns from captions."""


class LearnsByItself(ABC):
    """Abstract: a part that learns from what passes through it, beside what the optimiser moves."""

    @abstractmethod
    def part_of_batch(self, *, more: bool, empty: bool) -> AbstractContextManager[None]:
        """Within it, what passes is a part of a batch, from whose parts together it learns as from the whole.

        Args:
            more: Whether another part follows.
            empty: Whether the part has no examples of its own: what passes counts for nothing.
        """

    @abstractmethod
    def before_step(self, optimizer: Optimizer) -> None:
        """What is to be done to the gradients and the optimiser's memory before each of its steps."""

"""Hooks of model parts into training, beside gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager

from torch import Tensor
from torch.optim import Optimizer

__all__ = ["LearnsByItself", "LearnsFromCaptions", "MeasuresLatents", "StartsFromData"]

STARTING = 2000
"""Default number of training examples for initialising a part from data."""


class StartsFromData(ABC):
    """Abstract: a part initialised from data: pseudo-inputs, means and scales."""

    @property
    def examples_wanted(self) -> int:
        """Number of training examples for :meth:`initialise`."""
        return STARTING

    @abstractmethod
    def initialise(self, x: Tensor) -> None:
        """Initialises from training examples ``(n, *shape)``, including its own parts."""


class LearnsFromCaptions(ABC):
    """Abstract: a part that learns from the captions of the training examples before training starts."""

    @abstractmethod
    def initialise_captions(self, captions: Iterable[str]) -> None:
        """Learns from captions."""


class MeasuresLatents(ABC):
    """Abstract: a part that keeps statistics of the latents of the training examples, measured after training."""

    @property
    @abstractmethod
    def measured(self) -> bool:
        """Whether it has them, from a training or from the file it starts from."""

    @abstractmethod
    def measure_latents(self, batches: Iterable[Tensor]) -> None:
        """Measures them anew.

        Args:
            batches: All training examples, in parts ``(n, *shape)``.
        """


class LearnsByItself(ABC):
    """Abstract: a part that learns from its inputs in the forward pass, not only from the optimiser."""

    @abstractmethod
    def part_of_batch(self, *, number: int, of: int, more: bool, empty: bool) -> AbstractContextManager[None]:
        """Inside the block, inputs are one part of a batch; it learns from all parts as from the complete batch.

        Args:
            number: Of the part, over all processes.
            of: Number of parts.
            more: Whether another part follows.
            empty: Whether the part has no examples of its own; its inputs are then ignored.
        """

    @abstractmethod
    def before_step(self, optimizer: Optimizer) -> None:
        """Adjusts gradients and optimiser state before each optimiser step."""

    @abstractmethod
    def forget(self) -> None:
        """Forgets what it knows of its tensors beside them, after they were set from outside: a step was taken back."""

"""The base class of training steps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ...conditions import Given
from ...data import Batch, Data
from ...models import Model
from ...options.training import TrainingOptions
from ..clock import Clock

__all__ = ["Group", "Step"]


@dataclass(frozen=True, eq=False)
class Group:
    """A group of parameters with common settings.

    Args:
        parameters: The parameters.
        share: Factor on the learning rate.
        clip_norm: Maximum norm of their gradient; None for no clipping.
    """

    parameters: Sequence[nn.Parameter]
    share: float = 1.0
    clip_norm: float | None = None


class Step(nn.Module):
    """Abstract: from a batch to the rows of its examples, in nats, ``(rows, n)``; the mean of the first is maximised.

    It holds the model, and is the module that is compiled and distributed over processes. Its own buffers and parts are
    saved with a resumable state, not with the model.

    Args:
        model: The model.
    """

    rows: tuple[str, ...]
    """Names of the rows; the first is maximised, and "bound" selects the model, or the first if there is none."""
    keeps_last: bool = False
    """Whether the last weights are kept, since no row tells better from worse."""
    unsaved: tuple[str, ...] = ()
    """Names of its parts that are read from files, and not saved with a state."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        for name in model.recipe.frozen if model.recipe else ():  # only here: a convolution in use rounds otherwise
            model.parts[name].requires_grad_(False)

    @abstractmethod
    def forward(self, x: Tensor, beta: Tensor, c: Given | None = None) -> Tensor:
        """The rows.

        Args:
            x: Examples, ``(n, *shape)``.
            beta: Rises from 0 to 1 during warm-up.
            c: Their conditions.
        """

    def see(self, batch: Batch) -> tuple[Tensor, Given | None]:
        """A batch as the step sees it, and its conditions."""
        return self.model.see(batch)

    def before_step(self, clock: Clock) -> None:
        """Sets other scheduled quantities; tensors are filled in place."""

    def begin(self, data: Data, options: TrainingOptions) -> None:
        """Prepares its own parts once, before the first step of a new run; the same in every process."""

    def describe(self) -> list[str]:
        """What its own parts are, as sentences printed before training."""
        return []

    def readings(self) -> dict[str, float | list[float]]:
        """Further numbers for the log beside the means of its rows; synchronises with the device."""
        return {}

    def compiled(self) -> nn.Module:
        """The step as it is run with ``--compile``."""
        return cast(nn.Module, torch.compile(self))

    def groups(self, options: TrainingOptions) -> list[Group]:
        """The parameter groups; by default one with all trained parameters."""
        return [Group([p for p in self.parameters() if p.requires_grad], clip_norm=self.clip_norm(options))]

    def clip_norm(self, options: TrainingOptions) -> float | None:
        """The maximum gradient norm: as given, or as the recipe asks."""
        if options.clip_norm == "auto":
            recipe, data = self.model.recipe, self.model.data_spec
            return recipe.clip_norm(data) if recipe and data else None
        return None if options.clip_norm == "none" else float(options.clip_norm)

    def ema(self, options: TrainingOptions) -> float:
        """The decay of the moving average of the weights: as given, or as the recipe asks."""
        if options.ema == "auto":
            return self.model.recipe.ema if self.model.recipe else 0.0
        return options.ema

    @property
    def selects(self) -> int:
        """The index of the row that selects the model."""
        return self.rows.index("bound") if "bound" in self.rows else 0

    @property
    def own_tensors(self) -> dict[str, Tensor]:
        """The tensors that do not belong to the model, by name."""
        theirs = {id(tensor) for tensor in (*self.model.parameters(), *self.model.buffers())}
        own = {name: t.detach() for name, t in self.state_dict(keep_vars=True).items() if id(t) not in theirs}
        return {name: t for name, t in own.items() if name.partition(".")[0] not in self.unsaved}

r"""What a model is: a conditional distribution :math:`p(x \mid c)` that knows what its numbers mean.

Convention: ``x`` has shape ``(*batch, *event)``; log-densities are in nats, summed over an example.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.modules.module import _IncompatibleKeys

from ..conditions import Condition, Examples, Given
from ..errors import UsageError
from ..likelihoods import Measure, undeclared
from ..options.data_spec import DataSpec
from ..posteriors import Codes, Space

__all__ = ["Model", "Taken"]

Taken = dict[str, dict[str, nn.Module]]
"""By each stage of a recipe, the parts that a model takes from it, by their names in the model of its run."""


class Model(nn.Module):
    r"""Abstract: a module whose call returns the distribution :math:`p(x \mid c)`.

    What the distribution offers is declared by its type: ``sample`` always; ``log_prob`` unless it is a
    :class:`~tightbound.distributions.Bounded`, which offers ``lower_bound`` instead; ``terms`` where it is the
    :class:`~tightbound.models.Marginal` of a model with latents. Whatever it is, it can be trained, evaluated and
    reported on.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> class Blob(Model):
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.mean = nn.Parameter(torch.zeros(2))
        ...
        ...     def forward(self, c: Given | None = None) -> Distribution:
        ...         return Independent(Normal(self.mean, 1.0), 1)
        >>> Blob()().log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    recipe: Any = None
    """What it was built from; None for a model put together by hand."""
    data_spec: DataSpec | None = None
    """The data that it was built for."""
    new: bool = False
    """Whether a recipe has just built it: its training then starts it, unless it is given weights before."""
    lacks: str = ""
    """Runs whose weights it is still to take over, before it can be used."""
    loaded_weights: str = ""
    """Digest of the weights that a run gave it: what is measured is of these, whatever the run has since."""

    def __init__(self) -> None:
        super().__init__()
        self.condition: Condition | None = None
        self.taken: Taken = {}

    def forward(self, c: Given | None = None) -> Distribution:
        """The distribution of x given c.

        Args:
            c: Conditions of shape ``(*batch)``; None for a model that is given none.
        """
        raise NotImplementedError

    @property
    def space(self) -> Space | None:
        """What can be read from its latents; None without any."""
        return None

    @property
    def codes(self) -> Codes | None:
        """The same where its latents stand for codes; None of others."""
        return self.space if isinstance(self.space, Codes) else None

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What it is made of, by name; ``decoder`` is what says how likely data is."""
        return {}

    @property
    def reconstructs(self) -> bool:
        """Whether the mean of what it says of an example is to be had in one pass."""
        return False

    @property
    def can_sample(self) -> bool:
        """Whether it can be sampled: an autoencoder has no prior to do so."""
        return True

    @property
    def completes(self) -> bool:
        """Whether it completes pictures: whether it is given the part of one that is seen."""
        return self.condition is not None and self.condition.to_complete

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of its numbers."""
        return next(self.parameters()).dtype

    def require_weights(self) -> None:
        """Refuses a model that is to take over weights and does not have them yet.

        Raises:
            UsageError: If it is one.
        """
        if self.lacks:
            raise UsageError(
                "This model takes over weights of another run, and does not have them yet.",
                got=f"a new model, without those of {self.lacks}",
                remedy="Call tightbound.training.start_model(model, data.train) first, as tightbound.train does.",
            )

    def see(self, batch: Examples) -> tuple[Tensor, Given | None]:
        """A batch of data as the model sees it: examples ``(n, *shape)`` in its own type, and their conditions.

        Args:
            batch: On the device of the model.
        """
        return batch.x.to(self.dtype), self.conditions(batch)

    def conditions(self, batch: Examples) -> Given | None:
        """The conditions of a batch of data, of shape ``(n,)``, where the model is given any."""
        return None if self.condition is None else self.condition(batch).to(dtype=self.dtype)

    def measure(self, data: DataSpec) -> Measure:
        """What its log-likelihood is for that data."""
        return undeclared(data)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """Takes over weights, which training then leaves as they are."""
        self.new, self.lacks = False, ""
        return super().load_state_dict(state_dict, strict, assign)

r"""Models: conditional distributions :math:`p(x \mid c)` that state what their log-density means.

Convention: ``x`` has shape ``(*batch, *event)``; log-densities are in nats, summed over an example.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.modules.module import _IncompatibleKeys

from ..conditions import Condition, Examples, Given, require_given
from ..errors import ShapeError, UsageError
from ..likelihoods import Measure, undeclared
from ..options.data_spec import DataSpec
from ..posteriors import Codes, Space
from ..spec import kind_of

__all__ = ["Model", "Taken"]

Taken = dict[str, dict[str, nn.Module]]
"""For each stage of a recipe, the parts taken from it, by their names in the model of its run."""


class Model(nn.Module):
    r"""Abstract: a module whose call returns the distribution :math:`p(x \mid c)`.

    What the distribution supports is declared by its type: ``sample`` always; ``log_prob`` unless it is a
    :class:`~tightbound.distributions.Bounded`, which offers ``lower_bound`` instead; ``terms`` where it is the
    :class:`~tightbound.models.Marginal` of a model with latents. Every model can be trained, evaluated and reported on.

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
    """The recipe it was built from; None for a model built by hand."""
    data_spec: DataSpec | None = None
    """The data that it was built for."""
    new: bool = False
    """Whether it was just built by a recipe: training then initialises it, unless weights are loaded first."""
    lacks: str = ""
    """Runs whose weights must be loaded before it can be used."""
    loaded_weights: str = ""
    """Digest of the weights loaded from a run; measurements belong to these, even if the run changes later."""

    def __init__(self) -> None:
        super().__init__()
        self.condition: Condition | None = None
        self.taken: Taken = {}

    def forward(self, c: Given | None = None) -> Distribution:
        """The distribution of x given c.

        Args:
            c: Conditions of shape ``(*batch)``; None for an unconditional model.
        """
        raise NotImplementedError

    @property
    def space(self) -> Space | None:
        """The space of its latents; None without latents."""
        return None

    @property
    def codes(self) -> Codes | None:
        """The space of its latents if they are codes, else None."""
        return self.space if isinstance(self.space, Codes) else None

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Its modules by name; ``decoder`` is the one that defines the likelihood."""
        return {}

    @property
    def reconstructs(self) -> bool:
        """Whether its mean of an example takes one pass."""
        return False

    @property
    def can_sample(self) -> bool:
        """Whether it can be sampled; an autoencoder has no prior."""
        return True

    @property
    def completes(self) -> bool:
        """Whether it completes images: whether its condition is the observed part of one."""
        return self.condition is not None and self.condition.to_complete

    @property
    def origin(self) -> str:
        """Its recipe by name, for messages; or that it was built by hand."""
        return "a model built by hand" if self.recipe is None else f"recipe {kind_of(self.recipe)}"

    @property
    def device(self) -> torch.device:
        """The device of its parameters; the CPU without any."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its parameters; torch's default without any."""
        return next((p.dtype for p in self.parameters()), torch.get_default_dtype())

    def require_weights(self) -> None:
        """Refuses a model that still needs the weights of another run.

        Raises:
            UsageError: If it is one.
        """
        if self.lacks:
            raise UsageError(
                "This model needs the weights of another run, which are not loaded yet.",
                got=f"a new model, without those of {self.lacks}",
                remedy="Call tightbound.training.start_model(model, data.train) first, as tightbound.train does.",
            )

    def require_conditions(self, c: Given | None) -> None:
        """Refuses conditions with other names or sizes than the model's.

        Args:
            c: What the model is called with; None is refused where a part needs a condition.

        Raises:
            UsageError: If they have other names, or the model was built without conditions.
            ShapeError: If they have other sizes.
        """
        if c is None or (self.condition is None and self.recipe is None):
            return
        require_given(c)
        parts = {} if self.condition is None else self.condition.parts
        if set(c) != set(parts):
            raise UsageError(
                "These are not the conditions of this model.",
                got=", ".join(c) or "none",
                expected=", ".join(parts) or "none: the model is unconditional",
                remedy="Use x, c = model.see(batch) for data, or model.condition.read(words) for text.",
            )
        for name, part in parts.items():
            if c[name].shape[-1] != part.size:
                raise ShapeError(
                    f"The condition {name} has the wrong size.",
                    got=tuple(c[name].shape),
                    expected=f"(*batch, {part.size})",
                )

    def see(self, batch: Examples) -> tuple[Tensor, Given | None]:
        """A batch of data as the model sees it: examples ``(n, *shape)`` in its own dtype, and their conditions.

        Args:
            batch: The batch, on the model's device.
        """
        return batch.x.to(self.dtype), self.conditions(batch)

    def conditions(self, batch: Examples) -> Given | None:
        """The conditions of a batch of data, of shape ``(n,)``, for a conditional model."""
        return None if self.condition is None else self.condition(batch).to(dtype=self.dtype)

    def measure(self, data: DataSpec) -> Measure:
        """What its log-likelihood means for that data."""
        return undeclared(data)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """Loads weights, which training then does not initialise again."""
        self.new, self.lacks = False, ""
        return super().load_state_dict(state_dict, strict, assign)

"""Compiled likelihoods for evaluation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...conditions import Given
from ...distributions import Value
from ...likelihoods import EntryLikelihood, Likelihood
from ...models.latent import LatentVariableModel, replaced

__all__ = ["with_compiled_density"]


def with_compiled_density(model: LatentVariableModel) -> LatentVariableModel:
    """The same model, sharing its parameters, with ``log p(x | z)`` after the decoder compiled to one loop.

    The networks are not compiled, since libraries compute their matrix products. Likelihoods of other kinds are
    unchanged.

    Args:
        model: The model.
    """
    if not isinstance(model.likelihood, EntryLikelihood):
        return model
    return replaced(model, likelihood=_Compiled(model.likelihood))


class _Compiled(Likelihood):
    def __init__(self, likelihood: EntryLikelihood) -> None:
        super().__init__()
        self.likelihood, self.shape = likelihood, likelihood.shape
        self.parameters_per_entry = likelihood.parameters_per_entry
        self.training = likelihood.training
        self.log_prob = torch.compile(lambda features, x: likelihood.distribution(features).log_prob(x), dynamic=True)

    def forward(self, z: Tensor, c: Given | None = None) -> Distribution:
        return _Decoded(self.likelihood.features(z, c), self.likelihood.shape, self.log_prob)


class _Decoded(Value):
    """A distribution that is only evaluated."""

    def __init__(self, features: Tensor, shape: tuple[int, ...], log_prob: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.features, self._log_prob = features, log_prob
        super().__init__(features.shape[: features.dim() - 1 - len(shape)], torch.Size(shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        return self._log_prob(self.features, value)

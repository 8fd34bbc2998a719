r"""Structured output: the missing part of an image given the rest, :math:`p(x_m \mid x_o)`.

Convention: the condition ``part`` is a flattened image, NaN where missing, ``(*batch, D)``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..conditions import Given
from ..distributions import Partial
from ..options.data_spec import DataSpec
from .base import Likelihood, Measure

__all__ = ["CompletionLikelihood", "Filled", "Prediction"]


class CompletionLikelihood(Likelihood):
    """A likelihood of the missing entries only; observed entries keep their values.

    Args:
        complete: The likelihood of all entries given z and c.
        missing: Number of missing entries.

    Example:
        >>> from tightbound.likelihoods import Bernoulli
        >>> from tightbound.networks import MLP, Observed
        >>> inner = Bernoulli(MLP(2, 4, (), condition_dim=8), (2,), (1, 2, 2))
        >>> inner.embedding = Observed(4)
        >>> likelihood = CompletionLikelihood(inner, missing=3)
        >>> seen = Given({"part": torch.tensor([[torch.nan, torch.nan, 1.0, torch.nan]])})
        >>> likelihood(torch.zeros(1, 2), seen).mean[0, 0, 1, 0]
        tensor(1., grad_fn=<SelectBackward0>)
    """

    def __init__(self, complete: Likelihood, missing: int) -> None:
        super().__init__()
        self.embedding = None
        self.complete, self.missing, self.shape = complete, missing, complete.shape
        self.parameters_per_entry = complete.parameters_per_entry

    def forward(self, z: Tensor, c: Given) -> Distribution:
        return Partial(self.complete(z, c), c["part"].unflatten(-1, self.shape))

    def measure(self, data: DataSpec) -> Measure:
        """What the log-likelihood means for that data: it covers the missing entries only."""
        return _of_missing(self.complete.measure(data), self.missing, data)


class Prediction(Likelihood):
    r"""The missing entries predicted from the observed ones, :math:`p(x_m \mid x_o)`.

    Args:
        complete: The likelihood of all entries given c; c is the only input of its network.
        missing: Number of missing entries.

    Example:
        >>> from tightbound.likelihoods import Bernoulli
        >>> from tightbound.networks import MLP, Observed
        >>> inner = Bernoulli(MLP(0, 4, (), condition_dim=8), (0,), (1, 2, 2))
        >>> inner.embedding = Observed(4)
        >>> seen = Given({"part": torch.tensor([[torch.nan, torch.nan, 1.0, torch.nan]])})
        >>> Prediction(inner, missing=3)(seen).mean[0, 0, 1, 0]
        tensor(1., grad_fn=<SelectBackward0>)
    """

    mean_in_one_pass = True

    def __init__(self, complete: Likelihood, missing: int) -> None:
        super().__init__()
        self.embedding = None
        self.complete, self.missing, self.shape = complete, missing, complete.shape
        self.parameters_per_entry = complete.parameters_per_entry

    def forward(self, c: Given) -> Distribution:
        seen = c["part"]
        return Partial(self.complete(seen[..., :0], c), seen.unflatten(-1, self.shape))

    def measure(self, data: DataSpec) -> Measure:
        """What the log-likelihood means for that data: it covers the missing entries only."""
        return _of_missing(self.complete.measure(data), self.missing, data)


def _of_missing(whole: Measure, missing: int, data: DataSpec) -> Measure:
    note = f"{whole.note}; of the {missing} missing entries given the others"
    return Measure(whole.kind, note, whole.offset * missing / data.dimensions, missing)


class Filled(nn.Module):
    """An image with missing pixels filled by a prediction, and their mask: input of a prior network.

    Args:
        prediction: Maps the condition to the distribution of the image; it is not trained here.

    Example:
        >>> from tightbound.likelihoods import Bernoulli
        >>> from tightbound.networks import MLP, Observed
        >>> inner = Bernoulli(MLP(0, 4, (), condition_dim=8), (0,), (1, 2, 2))
        >>> inner.embedding = Observed(4)
        >>> Filled(Prediction(inner, 3))(torch.full((5, 4), torch.nan)).shape
        torch.Size([5, 8])
    """

    def __init__(self, prediction: nn.Module) -> None:
        super().__init__()
        self.prediction = prediction

    def forward(self, seen: Tensor) -> Tensor:
        with torch.no_grad():
            filled = self.prediction(Given({"part": seen})).mean.flatten(1)
        return torch.cat([filled.to(seen.dtype), seen.isnan().to(seen.dtype)], dim=1)

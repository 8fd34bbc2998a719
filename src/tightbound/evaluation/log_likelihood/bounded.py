r"""The likelihood of a model whose prior has only a lower bound: at most the negative ELBO.

Convention: an estimate of :math:`\log p(z)` that is right in the mean is wrong inside the logarithm of a mean of
weights, which its noise would raise; so these models have no importance-weighted estimate.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...data import DataSpec
from ...likelihoods import Measure
from ...models import Terms
from ..estimate import likelihood_fields

__all__ = ["DRAWS", "MOST_DRAWS", "by_bound", "has_only_bound"]

DRAWS = 10
"""Default number of draws for each example, of which a bound is the mean."""
MOST_DRAWS = 50
"""Draws beyond these change a mean over examples by nothing."""


def has_only_bound(terms: Terms) -> bool:
    """Whether there is an ELBO, but no density of a prior.

    Args:
        terms: The model's terms for any example.
    """
    return terms.bounded and terms.exact_likelihood and not terms.exact and not terms.estimated


def by_bound(elbo: Tensor, measure: Measure, spec: DataSpec, draws: int) -> dict[str, Any]:
    """The fields of an evaluation on the likelihood, from its bound.

    Args:
        elbo: The ELBO of each example as model input, ``(n,)`` nats.
        measure: Meaning of the log-likelihood for this data.
        spec: Of the data.
        draws: Number of draws of each example that the bound is the mean of.
    """
    told = likelihood_fields(elbo, measure, spec)
    return told and {
        **told,
        "trusted": False,
        "method": "bound",
        "notes": (measure.note, f"{ONLY_BOUND}, with {draws} draw{'s' * (draws != 1)} for each example"),
    }


ONLY_BOUND = "the prior's log-probability is only bounded: the nll is the negative ELBO, an upper bound"

r"""Likelihoods :math:`p(x \mid z, c)`."""

from .base import (
    Bernoulli,
    Categorical,
    DiscretizedLogisticLikelihood,
    Gaussian,
    Likelihood,
    LogitLaplaceLikelihood,
    Measure,
    Scale,
    density_of,
    measure_of,
)
from .completion import CompletionLikelihood
from .correlated import FullGaussianLikelihood
from .pixel_decoder import AutoregressiveLikelihood

__all__ = [
    "AutoregressiveLikelihood",
    "Bernoulli",
    "Categorical",
    "CompletionLikelihood",
    "DiscretizedLogisticLikelihood",
    "FullGaussianLikelihood",
    "Gaussian",
    "Likelihood",
    "LogitLaplaceLikelihood",
    "Measure",
    "Scale",
    "density_of",
    "measure_of",
]

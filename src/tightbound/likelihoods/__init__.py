r"""Likelihoods :math:`p(x \mid z, c)`."""

from .base import Likelihood, Measure, declared, density_of, mass_of, undeclared
from .completion import CompletionLikelihood, Prediction
from .correlated import FullGaussianLikelihood
from .entries import (
    Bernoulli,
    Categorical,
    DiscretizedLogisticLikelihood,
    EntryLikelihood,
    Gaussian,
    Laplace,
    LogitLaplaceLikelihood,
    Scale,
)
from .logistic_mixture import DiscretizedLogisticMixtureLikelihood
from .pixel_decoder import AutoregressiveLikelihood

__all__ = [
    "AutoregressiveLikelihood",
    "Bernoulli",
    "Categorical",
    "CompletionLikelihood",
    "DiscretizedLogisticLikelihood",
    "DiscretizedLogisticMixtureLikelihood",
    "EntryLikelihood",
    "FullGaussianLikelihood",
    "Gaussian",
    "Laplace",
    "Likelihood",
    "LogitLaplaceLikelihood",
    "Measure",
    "Prediction",
    "Scale",
    "declared",
    "density_of",
    "mass_of",
    "undeclared",
]

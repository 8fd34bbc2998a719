"""Distributions that torch lacks, and the contract that all of them keep."""

from .bernoulli import Bernoulli
from .conditional import Conditional, check_event, has_density, independent, leading_shape
from .dirac import Dirac
from .discretized_logistic import DiscretizedLogistic
from .divergence import kl_per_dimension
from .levels import CategoricalLevels

__all__ = [
    "Bernoulli",
    "CategoricalLevels",
    "Conditional",
    "Dirac",
    "DiscretizedLogistic",
    "check_event",
    "has_density",
    "independent",
    "kl_per_dimension",
    "leading_shape",
]

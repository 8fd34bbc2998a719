"""Distributions that torch lacks, and the contract that all of them keep."""

from .conditional import Conditional, check_event, has_density, independent
from .dirac import Dirac
from .discretized_logistic import DiscretizedLogistic
from .divergence import kl_per_dimension
from .levels import CategoricalLevels

__all__ = [
    "CategoricalLevels",
    "Conditional",
    "Dirac",
    "DiscretizedLogistic",
    "check_event",
    "has_density",
    "independent",
    "kl_per_dimension",
]

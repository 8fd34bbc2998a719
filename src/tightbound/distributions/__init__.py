"""Distributions that torch lacks, and the contract that all of them keep."""

from .bernoulli import Bernoulli, BernoulliVector
from .conditional import Conditional, check_event, has_density, independent, leading_shape
from .dirac import Dirac
from .discretized_logistic import DiscretizedLogistic
from .divergence import kl_per_dimension
from .flows import FlowLayers, Pushed
from .full_gaussian import FullGaussian
from .levels import CategoricalLevels
from .mixture import MixtureOfGaussians
from .zuko_guard import load_zuko

__all__ = [
    "Bernoulli",
    "BernoulliVector",
    "CategoricalLevels",
    "Conditional",
    "Dirac",
    "DiscretizedLogistic",
    "FlowLayers",
    "FullGaussian",
    "MixtureOfGaussians",
    "Pushed",
    "check_event",
    "has_density",
    "independent",
    "kl_per_dimension",
    "leading_shape",
    "load_zuko",
]

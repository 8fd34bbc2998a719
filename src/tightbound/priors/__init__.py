r"""Priors :math:`p(z \mid c)`."""

from .categorical import BernoulliPrior, CategoricalPrior
from .flow import FlowPrior
from .gaussian import ConditionalNormal, DiagonalNormal, GaussianMixture
from .normal import StandardNormal
from .uniform import UniformCodePrior
from .vamp import VampPrior

__all__ = [
    "BernoulliPrior",
    "CategoricalPrior",
    "ConditionalNormal",
    "DiagonalNormal",
    "FlowPrior",
    "GaussianMixture",
    "StandardNormal",
    "UniformCodePrior",
    "VampPrior",
]

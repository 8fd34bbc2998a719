r"""Priors :math:`p(z \mid c)`."""

from .autoregressive import AutoregressiveCodes, AutoregressivePrior, ConvolutionalGrid, TransformerGrid
from .categorical import BernoulliPrior, CategoricalPrior
from .flow import FlowPrior
from .gaussian import ConditionalNormal, DiagonalNormal, GaussianMixture
from .normal import StandardNormal
from .uniform import UniformCodePrior
from .vamp import VampPrior

__all__ = [
    "AutoregressiveCodes",
    "AutoregressivePrior",
    "BernoulliPrior",
    "CategoricalPrior",
    "ConditionalNormal",
    "ConvolutionalGrid",
    "DiagonalNormal",
    "FlowPrior",
    "GaussianMixture",
    "StandardNormal",
    "TransformerGrid",
    "UniformCodePrior",
    "VampPrior",
]

r"""Posteriors :math:`q(z \mid x, c)`."""

from .categorical import BernoulliPosterior, CategoricalPosterior
from .cholesky import CholeskyGaussian
from .dirac import DiracPosterior
from .empty import EmptyPosterior
from .flow import FlowPosterior
from .gaussian import DiagonalGaussian, ExactLinearGaussian

__all__ = [
    "BernoulliPosterior",
    "CategoricalPosterior",
    "CholeskyGaussian",
    "DiagonalGaussian",
    "DiracPosterior",
    "EmptyPosterior",
    "ExactLinearGaussian",
    "FlowPosterior",
]

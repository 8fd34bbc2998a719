r"""Posteriors :math:`q(z \mid x, c)`."""

from .cholesky import CholeskyGaussian
from .dirac import DiracPosterior
from .flow import FlowPosterior
from .gaussian import DiagonalGaussian, ExactLinearGaussian

__all__ = ["CholeskyGaussian", "DiagonalGaussian", "DiracPosterior", "ExactLinearGaussian", "FlowPosterior"]

r"""Posteriors :math:`q(z \mid x, c)`."""

from .dirac import DiracPosterior
from .gaussian import DiagonalGaussian, ExactLinearGaussian

__all__ = ["DiagonalGaussian", "DiracPosterior", "ExactLinearGaussian"]

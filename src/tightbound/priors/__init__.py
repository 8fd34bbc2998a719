r"""Priors :math:`p(z \mid c)`."""

from .flow import FlowPrior
from .gaussian import DiagonalNormal, GaussianMixture
from .normal import StandardNormal
from .vamp import VampPrior

__all__ = ["DiagonalNormal", "FlowPrior", "GaussianMixture", "StandardNormal", "VampPrior"]

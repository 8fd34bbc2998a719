r"""Priors :math:`p(z \mid c)`."""

from .normal import StandardNormal

__all__ = ["StandardNormal"]

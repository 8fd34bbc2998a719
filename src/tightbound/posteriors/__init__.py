r"""Posteriors :math:`q(z \mid x, c)`."""

from .categorical import BernoulliPosterior, CategoricalPosterior
from .cholesky import CholeskyGaussian
from .dirac import DiracPosterior
from .empty import EmptyPosterior
from .flow import FlowPosterior
from .gaussian import DiagonalGaussian, ExactLinearGaussian
from .quantized import PyramidDecoder, PyramidPosterior, QuantizedPosterior

__all__ = [
    "BernoulliPosterior",
    "CategoricalPosterior",
    "CholeskyGaussian",
    "DiagonalGaussian",
    "DiracPosterior",
    "EmptyPosterior",
    "ExactLinearGaussian",
    "FlowPosterior",
    "PyramidDecoder",
    "PyramidPosterior",
    "QuantizedPosterior",
]

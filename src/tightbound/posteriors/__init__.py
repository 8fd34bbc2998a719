r"""Posteriors :math:`q(z \mid x, c)`."""

from .base import CodePosterior, Codes, Compared, Layers, PackedLayers, Posterior, Reals, Space
from .categorical import BernoulliPosterior, CategoricalPosterior, RelaxedPosterior
from .cholesky import CholeskyGaussian
from .dirac import DiracPosterior
from .encoded import Draws, Encoded, EncodedCodes, Moments
from .flow import FlowPosterior
from .gaussian import DiagonalGaussian, ExactLinearGaussian
from .quantized import PyramidDecoder, PyramidPosterior, QuantizedPosterior

__all__ = [
    "BernoulliPosterior",
    "CategoricalPosterior",
    "CholeskyGaussian",
    "CodePosterior",
    "Codes",
    "Compared",
    "DiagonalGaussian",
    "DiracPosterior",
    "Draws",
    "Encoded",
    "EncodedCodes",
    "ExactLinearGaussian",
    "FlowPosterior",
    "Layers",
    "Moments",
    "PackedLayers",
    "Posterior",
    "PyramidDecoder",
    "PyramidPosterior",
    "QuantizedPosterior",
    "Reals",
    "RelaxedPosterior",
    "Space",
]

r"""Posteriors :math:`q(z \mid x, c)`."""

from .base import CodePosterior, Codes, Compared, Layers, PackedLayers, Posterior, Reals, Space
from .categorical import BernoulliPosterior, CategoricalPosterior, RelaxedPosterior
from .cholesky import CholeskyGaussian
from .dirac import DiracPosterior
from .encoded import Draws, Encoded, EncodedCodes, Moments
from .flow import FlowPosterior
from .gaussian import DiagonalGaussian, ExactLinearGaussian, GridGaussian
from .quantized import PyramidDecoder, PyramidPosterior, QuantizedPosterior
from .statistics import LatentStatistics
from .top_down import ARMS, Arm, Direct, Merge, PackedNormal, Residual, TopDownPosterior, merge

__all__ = [
    "ARMS",
    "Arm",
    "BernoulliPosterior",
    "CategoricalPosterior",
    "CholeskyGaussian",
    "CodePosterior",
    "Codes",
    "Compared",
    "DiagonalGaussian",
    "DiracPosterior",
    "Direct",
    "Draws",
    "Encoded",
    "EncodedCodes",
    "ExactLinearGaussian",
    "FlowPosterior",
    "GridGaussian",
    "LatentStatistics",
    "Layers",
    "Merge",
    "Moments",
    "PackedLayers",
    "PackedNormal",
    "Posterior",
    "PyramidDecoder",
    "PyramidPosterior",
    "QuantizedPosterior",
    "Reals",
    "RelaxedPosterior",
    "Residual",
    "Space",
    "TopDownPosterior",
    "merge",
]

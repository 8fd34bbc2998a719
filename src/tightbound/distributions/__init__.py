"""Distributions that torch lacks, and their common contract."""

from .bernoulli import Bernoulli, BernoulliVector
from .codes import CodeDistribution, CodeMass, CodePoint, UniformCodes
from .conditional import (
    Conditional,
    Embeddings,
    Unconditional,
    broadcast,
    embedded,
    independent,
    leading_shape,
    require_event_shape,
)
from .contract import Bounded, Value, WithoutDensity, has_density, is_certain, log_prob_per_dimension, lower_bound
from .dirac import Dirac
from .discretized_logistic import DiscretizedLogistic
from .divergence import gaussian_factors, kl_per_dimension
from .flows import FlowLayers, Pushed
from .full_gaussian import FullGaussian
from .levels import CategoricalLevels
from .logistic_mixture import DiscretizedLogisticMixture
from .logit_laplace import LogitLaplace
from .mixture import MixtureOfGaussians
from .one_hot import Bits, OneHot
from .partial import Partial
from .relaxed import RelaxedBernoulli, RelaxedCategorical
from .sampling import Sampling, Steered, drawn
from .zuko_guard import load_zuko

__all__ = [
    "Bernoulli",
    "BernoulliVector",
    "Bits",
    "Bounded",
    "CategoricalLevels",
    "CodeDistribution",
    "CodeMass",
    "CodePoint",
    "Conditional",
    "Dirac",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Embeddings",
    "FlowLayers",
    "FullGaussian",
    "LogitLaplace",
    "MixtureOfGaussians",
    "OneHot",
    "Partial",
    "Pushed",
    "RelaxedBernoulli",
    "RelaxedCategorical",
    "Sampling",
    "Steered",
    "Unconditional",
    "UniformCodes",
    "Value",
    "WithoutDensity",
    "broadcast",
    "drawn",
    "embedded",
    "gaussian_factors",
    "has_density",
    "independent",
    "is_certain",
    "kl_per_dimension",
    "leading_shape",
    "load_zuko",
    "log_prob_per_dimension",
    "lower_bound",
    "require_event_shape",
]

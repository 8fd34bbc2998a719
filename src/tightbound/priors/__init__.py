r"""Priors :math:`p(z \mid c)`. All modules here are imported with the package, to register their names."""

import importlib
import pkgutil

from .base import PRIORS, Setting, named
from .categorical import BernoulliPrior, CategoricalPrior
from .flow import FlowPrior
from .gaussian import ConditionalNormal, DiagonalNormal, GaussianMixture
from .normal import StandardNormal
from .uniform import UniformCodePrior
from .vamp import VampPrior

__all__ = [
    "PRIORS",
    "BernoulliPrior",
    "CategoricalPrior",
    "ConditionalNormal",
    "DiagonalNormal",
    "FlowPrior",
    "GaussianMixture",
    "Setting",
    "StandardNormal",
    "UniformCodePrior",
    "VampPrior",
    "named",
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

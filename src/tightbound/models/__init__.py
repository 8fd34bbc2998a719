"""Models: conditional distributions, with latent variables or without."""

from .latent import LatentVariableModel, Marginal
from .model import Model, Taken
from .pixels import PixelModel
from .terms import Entry, Estimated, Latent, Terms

__all__ = ["Entry", "Estimated", "Latent", "LatentVariableModel", "Marginal", "Model", "PixelModel", "Taken", "Terms"]

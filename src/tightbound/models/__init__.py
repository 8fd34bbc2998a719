"""Models: conditional distributions, with latent variables or without."""

from .latent import Latent, LatentVariableModel, Marginal, Terms

__all__ = ["Latent", "LatentVariableModel", "Marginal", "Terms"]

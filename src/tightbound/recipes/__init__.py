"""The named systems of the literature: one frozen dataclass each, at once Python options, flags and file content."""

from .autoencoder import Autoencoder
from .base import Recipe, find_recipe
from .linear_vae import LinearVAE
from .vae import VAE

__all__ = ["VAE", "Autoencoder", "LinearVAE", "Recipe", "find_recipe"]

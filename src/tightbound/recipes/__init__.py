"""The named systems of the literature: one frozen dataclass each, at once Python options, flags and file content."""

from .autoencoder import Autoencoder
from .base import Recipe, find_recipe
from .completion import Completion, CompletionBaseline
from .cvae import CVAE
from .linear_vae import LinearVAE
from .vae import VAE

__all__ = ["CVAE", "VAE", "Autoencoder", "Completion", "CompletionBaseline", "LinearVAE", "Recipe", "find_recipe"]

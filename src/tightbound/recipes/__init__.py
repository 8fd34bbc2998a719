"""Named models from the literature: each a frozen dataclass that defines Python options, flags and file content."""

from .autoencoder import Autoencoder
from .base import Recipe, Stage, find_recipe
from .completion import Completion, CompletionBaseline
from .cvae import CVAE
from .diffusion import DDPM, EDM, VDM, NoisyClassifierRecipe, RectifiedFlow, ScoreSDE
from .dvae import DVAE
from .gumbel_vae import GumbelVAE
from .hvae import HVAE
from .kl_autoencoder import KLAutoencoder, VQAutoencoder
from .ladder import VDVAE, Ladder
from .linear_vae import LinearVAE
from .pixels import PixelCNNRecipe, TransformerRecipe
from .two_stage import TwoStage
from .vae import VAE
from .vq_vae import VQVAE, VQVAE2

__all__ = [
    "CVAE",
    "DDPM",
    "DVAE",
    "EDM",
    "HVAE",
    "VAE",
    "VDM",
    "VDVAE",
    "VQVAE",
    "VQVAE2",
    "Autoencoder",
    "Completion",
    "CompletionBaseline",
    "GumbelVAE",
    "KLAutoencoder",
    "Ladder",
    "LinearVAE",
    "NoisyClassifierRecipe",
    "PixelCNNRecipe",
    "Recipe",
    "RectifiedFlow",
    "ScoreSDE",
    "Stage",
    "TransformerRecipe",
    "TwoStage",
    "VQAutoencoder",
    "find_recipe",
]

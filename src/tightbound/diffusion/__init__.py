"""Diffusion: paths, schedules, denoisers, samplers and their guidance; and masked diffusion of codes."""

from .bidirectional import MaskedTransformer
from .denoiser import Denoiser, Moments, Preconditioned
from .latent_prior import DiffusionPrior
from .masked import CodeDenoiser
from .masked_prior import MaskedCodes, MaskedPrior
from .model import Diffused, Diffusion
from .objective import training_rows
from .oracles import GaussianOracle, MixtureOracle
from .paths import PATHS, Path
from .sampler import ExampleNoise, Sampler
from .schedules import Cosine, FlowTime, Learned, Linear, LogNormal, ScaledLinear, Schedule, first_gamma, grid
from .steps import STEPS

__all__ = [
    "PATHS",
    "STEPS",
    "CodeDenoiser",
    "Cosine",
    "Denoiser",
    "Diffused",
    "Diffusion",
    "DiffusionPrior",
    "ExampleNoise",
    "FlowTime",
    "GaussianOracle",
    "Learned",
    "Linear",
    "LogNormal",
    "MaskedCodes",
    "MaskedPrior",
    "MaskedTransformer",
    "MixtureOracle",
    "Moments",
    "Path",
    "Preconditioned",
    "Sampler",
    "ScaledLinear",
    "Schedule",
    "first_gamma",
    "grid",
    "training_rows",
]

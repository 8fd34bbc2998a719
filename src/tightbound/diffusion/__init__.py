"""Diffusion: paths, schedules, denoisers, samplers and their guidance."""

from .denoiser import Denoiser, Moments, Preconditioned
from .model import Diffused, Diffusion
from .oracles import GaussianOracle, MixtureOracle
from .paths import PATHS, Path
from .sampler import ExampleNoise, Sampler
from .schedules import Cosine, FlowTime, Learned, Linear, LogNormal, ScaledLinear, Schedule, first_gamma, grid
from .steps import STEPS

__all__ = [
    "PATHS",
    "STEPS",
    "Cosine",
    "Denoiser",
    "Diffused",
    "Diffusion",
    "ExampleNoise",
    "FlowTime",
    "GaussianOracle",
    "Learned",
    "Linear",
    "LogNormal",
    "MixtureOracle",
    "Moments",
    "Path",
    "Preconditioned",
    "Sampler",
    "ScaledLinear",
    "Schedule",
    "first_gamma",
    "grid",
]

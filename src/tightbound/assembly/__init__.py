"""From the options of a recipe to the parts of a model."""

from . import (
    completion,
    conditional,
    continuous,
    diffusion,
    discrete,
    hierarchies,
    latent_diffusion,
    pixels,
    quantized,
    second_stage,
)
from .base import assemble, build

__all__ = [
    "assemble",
    "build",
    "completion",
    "conditional",
    "continuous",
    "diffusion",
    "discrete",
    "hierarchies",
    "latent_diffusion",
    "pixels",
    "quantized",
    "second_stage",
]

"""Trained models with a new prior over their latents: one function for each prior."""

from __future__ import annotations

import functools
import math

import torch
from torch import nn

from .. import priors
from ..autoregressive import PixelCNN, Transformer
from ..autoregressive.prior import AutoregressivePrior, ConvolutionalGrid, TransformerGrid
from ..conditions import Condition
from ..diffusion import Diffusion, DiffusionPrior, Linear, MaskedPrior, MaskedTransformer, Moments, Preconditioned
from ..distributions import Unconditional
from ..errors import UsageError
from ..models import LatentVariableModel
from ..models.latent import require_unconditional, with_latents
from ..networks.denoising import VectorDenoiser
from ..options import priors as options_of
from ..options.data_spec import DataSpec
from ..options.priors import CodePrior, FlowPrior, MixturePrior, PixelCNNPrior, SecondPrior, TransformerPrior
from ..posteriors import CodePosterior
from ..recipes import TwoStage
from ..runtime.modes import evaluating
from ..runtime.randomness import fixed_noise
from ..spec import kind_of
from .base import assemble, build
from .conditions import condition_of, embedding_of, prefix_of, rotary_places

__all__ = ["new_prior", "two_stage"]

FEATURES, UNKNOWN = 128, -12.0
"""Size of the features of a condition, and the first gamma of a prior by diffusion before it is measured."""
Made = tuple[nn.Module, Condition | None]
"""A prior and its condition."""


@assemble.register(TwoStage)
def two_stage(recipe: TwoStage, data: DataSpec) -> LatentVariableModel:
    """A frozen posterior and likelihood, and a new prior over their latents."""
    first = with_latents(build(recipe.first.recipe, data))
    require_unconditional(first)
    prior, condition = new_prior(recipe.prior, first, data)
    for part in (first.posterior, first.likelihood):
        part.requires_grad_(False)
        part.embedding = Unconditional()
    if first.codes is not None:
        first.codes.posterior.at_mode = True
    model = LatentVariableModel(prior, first.likelihood, first.posterior)
    model.condition = condition
    model.taken = {"first": {"posterior": first.posterior, "likelihood": first.likelihood}}
    return model


@functools.singledispatch
def new_prior(options: SecondPrior, first: LatentVariableModel, data: DataSpec) -> Made:
    """The prior that the options describe, and its condition; one function for each class of options.

    Args:
        options: The options.
        first: The first stage, which defines the latents.
        data: Shape and range of one example.

    Raises:
        UsageError: If it does not fit the latents or the data, or no function is registered for the options.
    """
    raise UsageError(
        f"No prior is registered for {type(options).__name__}.",
        remedy="Register a function that builds it: tightbound.assembly.second_stage.new_prior.register.",
    )


@new_prior.register
def _pixelcnn(options: PixelCNNPrior, first: LatentVariableModel, data: DataSpec) -> Made:
    posterior, condition = _codes(options, first), _condition(options, data)
    grids = [_convolutional(posterior, level, options, condition) for level in range(len(posterior.grids))]
    return AutoregressivePrior(posterior, grids), condition


@new_prior.register
def _transformer(options: TransformerPrior, first: LatentVariableModel, data: DataSpec) -> Made:
    posterior, condition = _codes(options, first), _condition(options, data)
    grids = [_attending(posterior, level, options, condition) for level in range(len(posterior.grids))]
    return AutoregressivePrior(posterior, grids), condition


@new_prior.register
def _masked(options: options_of.MaskedPrior, first: LatentVariableModel, data: DataSpec) -> Made:
    posterior, condition, o = _codes(options, first), _condition(options, data), options
    embedding = prefix_of(condition, o.width)
    network = MaskedTransformer(posterior.levels, posterior.grids, o.width, o.layers, o.heads, o.dropout, embedding)
    return MaskedPrior(posterior, network, o.timesteps), condition


@new_prior.register
def _mixture(options: MixturePrior, first: LatentVariableModel, data: DataSpec) -> Made:
    return priors.GaussianMixture(_size(options, first, data), options.components), None


@new_prior.register
def _flow(options: FlowPrior, first: LatentVariableModel, data: DataSpec) -> Made:
    return priors.FlowPrior(_size(options, first, data), "coupling", options.transforms), None


@new_prior.register
def _diffusion(options: options_of.DiffusionPrior, first: LatentVariableModel, data: DataSpec) -> Made:
    condition, size = _condition(options, data), _size(options, first, data)
    network = VectorDenoiser(size, options.width, options.layers, FEATURES if condition else 0)
    moments = Moments(torch.zeros(size), torch.ones(size))
    embedding = None if condition is None else embedding_of(condition, FEATURES)
    denoiser = Preconditioned(network, moments=moments, embedding=embedding)
    first_gamma = UNKNOWN if options.first_gamma == "auto" else options.first_gamma
    schedule = Linear(first_gamma, options.last_gamma)
    return DiffusionPrior(Diffusion(denoiser, schedule, (size,), moments=moments)), condition


# -- over codes -------------------------------------------------------------------------------------------------------


def _codes(options: SecondPrior, first: LatentVariableModel) -> CodePosterior:
    """The posterior of a first stage whose latents are codes."""
    if first.codes is None:
        raise UsageError(
            "This prior is over codes, but the latents are real-valued.", got=_name(options), remedy="--prior flow"
        )
    return first.codes.posterior


def _condition(options: CodePrior | options_of.DiffusionPrior, data: DataSpec) -> Condition | None:
    return None if options.condition == "none" else condition_of(options, data)


def _convolutional(
    posterior: CodePosterior, level: int, o: PixelCNNPrior, condition: Condition | None
) -> ConvolutionalGrid:
    shape, above = posterior.grids[level], posterior.levels[:level]
    network = PixelCNN(
        posterior.levels[level],
        shape if len(shape) > 1 else (1, *shape),
        o.channels,
        o.layers,
        o.kernel,
        attention_every=o.attention_every if level == 0 else 0,
        heads=o.heads,
        dropout=o.dropout,
        condition_dim=o.channels if condition else 0,
        grid_channels=o.channels if above else 0,
    )
    return ConvolutionalGrid(network, embedding_of(condition, o.channels) if condition else None, above)


def _attending(
    posterior: CodePosterior, level: int, o: TransformerPrior, condition: Condition | None
) -> TransformerGrid:
    above = posterior.levels[:level]
    positions = sum(math.prod(grid) for grid in posterior.grids[:level])
    rotary = rotary_places(condition, o.text_positions, positions)
    network = Transformer(
        posterior.levels[level], posterior.grids[level], o.width, o.layers, o.heads, o.dropout, rotary
    )
    embedding = prefix_of(condition, o.width, o.text_positions)
    return TransformerGrid(network, embedding, above, positions)


# -- over vectors -----------------------------------------------------------------------------------------------------


def _size(options: SecondPrior, first: LatentVariableModel, data: DataSpec) -> int:
    """The size of a first stage's latent vectors."""
    if first.codes is not None:
        raise UsageError(
            "This prior is over vectors, but the latents are codes.", got=_name(options), remedy="--prior pixelcnn"
        )
    shape = _shape(first, data)
    if len(shape) != 1:
        raise UsageError(
            "This prior is over vectors, but the latents are real-valued grids.",
            got=f"latents of shape {tuple(shape)}, and {_name(options)}",
            expected="latents of shape (size,)",
            remedy="Train a first stage whose latents are vectors, such as recipe 'vae'.",
        )
    return shape[0]


@torch.no_grad()
def _shape(first: LatentVariableModel, data: DataSpec) -> torch.Size:
    """The shape of a latent, from encoding an example of zeros."""
    x = torch.zeros(1, *data.shape, dtype=first.dtype, device=first.device)
    with evaluating(first), fixed_noise():
        return first.posterior(x).event_shape


def _name(options: SecondPrior) -> str:
    return f"--prior {kind_of(options).removesuffix('-prior')}"

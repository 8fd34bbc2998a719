"""Builds parts from their names in the options."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from ..distributions import Conditional
from ..errors import UsageError
from ..likelihoods import (
    Bernoulli,
    Categorical,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    Gaussian,
    Likelihood,
    LogitLaplaceLikelihood,
    Scale,
)
from ..likelihoods.correlated import FullGaussianLikelihood, require_small_vector
from ..likelihoods.pixel_decoder import AutoregressiveLikelihood
from ..networks import MLP, ConvolutionalDecoder, ConvolutionalEncoder, PixelDecoder
from ..options.data_spec import DataSpec
from ..options.parts import EntryLikelihood, LikelihoodName, Networks, ScaleName
from ..posteriors import CholeskyGaussian, DiagonalGaussian, DiracPosterior, FlowPosterior
from ..priors import PRIORS, Setting
from ..recipes.continuous import ContinuousRecipe

CONTEXT = 64
"""Size of the context of a flow posterior's layers."""

__all__ = [
    "decoder",
    "encoder",
    "entry_likelihood",
    "likelihood",
    "likelihood_on",
    "posterior",
    "prior",
    "require_levels",
]


def encoder(recipe: Networks, data: DataSpec, outputs: int, condition_dim: int = 0) -> nn.Module:
    """The encoder network, from one example to ``outputs`` features."""
    if recipe.network == "mlp":
        return MLP(data.shape, outputs, recipe.hidden, recipe.activation, condition_dim)
    _check_image(data)
    return ConvolutionalEncoder(
        data.shape, outputs, recipe.channels, activation=recipe.activation, condition_dim=condition_dim
    )


def decoder(recipe: Networks, data: DataSpec, inputs: int, parameters: int, condition_dim: int = 0) -> nn.Module:
    """The decoder network, from a latent with ``inputs`` entries to ``parameters`` numbers per entry of an example."""
    if recipe.network == "mlp":
        outputs = parameters * data.dimensions
        return MLP(inputs, outputs, recipe.hidden[::-1], recipe.activation, condition_dim)
    _check_image(data)
    channels, *sides = data.shape
    shape = (parameters * channels, *sides)
    return ConvolutionalDecoder(
        inputs,
        shape,
        recipe.channels,
        activation=recipe.activation,
        condition_dim=condition_dim,
        upsampling=recipe.upsampling,
    )


def likelihood(recipe: ContinuousRecipe, data: DataSpec, condition_dim: int = 0) -> Likelihood:
    """The likelihood named by the recipe, for that data, on the recipe's decoder.

    Raises:
        UsageError: If it cannot model that data.
    """
    if recipe.likelihood == "autoregressive":
        _check_no_scale(recipe.likelihood, recipe.scale)
        return _autoregressive(recipe, data, condition_dim)
    make = lambda parameters: decoder(recipe, data, recipe.latent_dim, parameters, condition_dim)
    options = (recipe.likelihood, recipe.scale, recipe.variance, recipe.likelihood_components)
    return likelihood_on(make, (recipe.latent_dim,), data, *options)


def entry_likelihood(
    options: EntryLikelihood, make: Callable[[int], nn.Module], latent: Sequence[int], data: DataSpec
) -> Likelihood:
    """The likelihood named by the options, with independent entries given the latent, on any decoder.

    Args:
        options: Its name, scale, variance and components.
        make: Builds the decoder for a number of parameters per entry.
        latent: Shape of one latent.
        data: The data spec.

    Raises:
        UsageError: If it cannot model that data.
    """
    given = (options.likelihood, options.scale, options.variance, options.likelihood_components)
    return likelihood_on(make, latent, data, *given)


def likelihood_on(
    make: Callable[[int], nn.Module],
    latent: Sequence[int],
    data: DataSpec,
    name: LikelihoodName,
    scale: ScaleName = "auto",
    variance: float = 0.5,
    components: int = 5,
) -> Likelihood:
    """The likelihood of that name, with independent entries given the latent, on any decoder.

    Args:
        make: Builds the decoder for a number of parameters per entry.
        latent: Shape of one latent.
        data: The data spec.
        name: Name of the likelihood.
        scale: Of gaussian and discretized-logistic; of full-gaussian, auto or network.
        variance: Fixed or initial, of gaussian and full-gaussian.
        components: Of discretized-logistic-mixture.

    Raises:
        UsageError: If it cannot model that data.
    """
    if name == "full-gaussian":
        return _full_gaussian(make, latent, data, scale, variance)
    kind, own = _resolved(name, scale, data)
    if kind in ("bernoulli", "categorical", "logit-laplace", "discretized-logistic-mixture"):
        _check_no_scale(kind, scale)
    per_entry = 2 if own == "network" else 1
    if kind == "bernoulli":
        _check_unit_interval(data)
        return Bernoulli(make(1), latent, data.shape)
    if kind == "gaussian":
        return Gaussian(make(per_entry), latent, data.shape, own, variance)
    if kind == "logit-laplace":
        _check_unit_interval(data)
        return LogitLaplaceLikelihood(make(2), latent, data.shape)
    levels = require_levels(kind, data)
    if kind == "categorical":
        return Categorical(make(levels), latent, data.shape, levels)
    if kind == "discretized-logistic-mixture":
        return _mixture(make, latent, data, levels, components)
    return DiscretizedLogisticLikelihood(make(per_entry), latent, data.shape, levels, own)


def _mixture(
    make: Callable[[int], nn.Module], latent: Sequence[int], data: DataSpec, levels: int, components: int
) -> Likelihood:
    if levels == 2:
        raise UsageError(
            "A mixture of logistics has nothing to add where there are two levels.",
            got="binary data",
            remedy="Use --likelihood bernoulli.",
        )
    parameters = DiscretizedLogisticMixtureLikelihood.parameters_for(data.shape, components)
    return DiscretizedLogisticMixtureLikelihood(make(parameters), latent, data.shape, levels, components)


def _full_gaussian(
    make: Callable[[int], nn.Module], latent: Sequence[int], data: DataSpec, scale: ScaleName, variance: float
) -> Likelihood:
    if scale not in ("auto", "network"):
        raise UsageError(
            "The likelihood 'full-gaussian' has a full covariance.",
            got=f"--scale {scale}",
            expected="auto, one covariance for every z, or network, one for each",
            remedy="Leave --scale out, or use --likelihood gaussian.",
        )
    require_small_vector(data.shape)
    if scale == "auto":
        return FullGaussianLikelihood(make(1), latent, data.shape, "shared", variance)
    return FullGaussianLikelihood(make(1 + data.dimensions), latent, data.shape, "network", variance)


def _autoregressive(recipe: ContinuousRecipe, data: DataSpec, condition_dim: int) -> Likelihood:
    _check_image(data)
    levels = require_levels("autoregressive", data)
    network = PixelDecoder(
        recipe.latent_dim,
        data.shape,
        1 if levels == 2 else levels,
        recipe.pixel_channels,
        recipe.pixel_layers,
        condition_dim=condition_dim,
    )
    return AutoregressiveLikelihood(network, recipe.latent_dim, data.shape, levels)


def posterior(recipe: ContinuousRecipe, data: DataSpec, condition_dim: int = 0) -> Conditional:
    """The posterior named by the recipe."""
    d = recipe.latent_dim
    if recipe.posterior == "gaussian":
        return DiagonalGaussian(encoder(recipe, data, 2 * d, condition_dim), data.shape)
    if recipe.posterior == "cholesky":
        return CholeskyGaussian(encoder(recipe, data, d + d * (d + 1) // 2, condition_dim), data.shape, d)
    if recipe.posterior == "dirac":
        return DiracPosterior(encoder(recipe, data, d, condition_dim), data.shape)
    network = encoder(recipe, data, 2 * d + CONTEXT, condition_dim)
    return FlowPosterior(network, data.shape, d, CONTEXT, recipe.posterior, recipe.transforms)


def prior(recipe: ContinuousRecipe, data: DataSpec, q: nn.Module) -> nn.Module:
    """The prior named by the recipe; a vamp prior uses its posterior."""
    return PRIORS[recipe.prior](Setting(recipe.latent_dim, recipe.components, recipe.transforms, data, q))


def _resolved(name: LikelihoodName, scale: ScaleName, data: DataSpec) -> tuple[str, Scale]:
    """The names with ``auto`` replaced."""
    automatic = "bernoulli" if data.levels == 2 else "discretized-logistic"
    kind = name if name != "auto" else automatic if data.discrete else "gaussian"
    if scale != "auto":
        return kind, scale
    if kind == "discretized-logistic":
        return kind, "per-dimension"
    return kind, "shared" if name == "auto" else "fixed"


def require_levels(kind: str, data: DataSpec) -> int:
    """The levels of discrete data, which a likelihood needs.

    Args:
        kind: Its name.
        data: The data spec.

    Raises:
        UsageError: If the data is continuous.
    """
    if not data.discrete or data.levels is None:
        raise UsageError(
            f"The likelihood {kind!r} needs discrete levels, but this data is continuous.",
            got="dequantized data" if data.dequantized else "continuous data",
            remedy="Use --likelihood gaussian, or data with levels (without --dequantize).",
        )
    return data.levels


def _check_no_scale(kind: str, scale: ScaleName) -> None:
    if scale != "auto":
        raise UsageError(f"The likelihood {kind!r} has no scale.", got=scale, remedy="Leave --scale out.")


def _check_image(data: DataSpec) -> None:
    if len(data.shape) != 3:
        raise UsageError(
            "A convolutional network needs images.",
            got=f"examples of shape {data.shape}",
            expected="(channels, height, width)",
            remedy="Use --network mlp.",
        )


def _check_unit_interval(data: DataSpec) -> None:
    if data.levels is None:
        raise UsageError(
            "This likelihood needs values in [0, 1].",
            got="continuous data",
            remedy="Use --likelihood gaussian.",
        )

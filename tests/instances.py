"""Every kind of data, part and system, as lists that the properties run over; all in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from tightbound.conditions import Given
from tightbound.data import DataSpec
from tightbound.likelihoods import (
    Bernoulli,
    Categorical,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    Gaussian,
    Scale,
)
from tightbound.likelihoods.correlated import FullGaussianLikelihood, Noise
from tightbound.models import LatentVariableModel, Marginal, Terms
from tightbound.networks import MLP, ConvolutionalDecoder, ConvolutionalEncoder, LinearWithConstant
from tightbound.objectives import Capacity, Elbo, Iwae, Mmd, Score, StickingTheLanding, TotalCorrelation
from tightbound.objectives.rows import rows
from tightbound.posteriors import (
    CholeskyGaussian,
    DiagonalGaussian,
    DiracPosterior,
    ExactLinearGaussian,
    FlowPosterior,
)
from tightbound.priors import DiagonalNormal, FlowPrior, GaussianMixture, StandardNormal, VampPrior
from tightbound.recipes import HVAE, VAE, VDVAE, Autoencoder, Ladder, LinearVAE, Recipe
from tightbound.recipes.continuous import PosteriorName
from tightbound.recipes.vae import PriorName

LATENT, CONDITION = 3, 2

GREY = DataSpec("grey", (1, 8, 8), levels=17, classes=("zero", "one"))
RGB = DataSpec("rgb", (3, 6, 4), levels=256)
ODD = DataSpec("odd", (1, 7, 9), levels=5)
BINARY = DataSpec("binary", (1, 8, 8), levels=2)
LEVELS = DataSpec("vector with levels", (5,), levels=3)
CONTINUOUS = DataSpec("continuous", (6,), levels=None)
CONTINUOUS_IMAGE = DataSpec("continuous image", (1, 5, 5), levels=None)
DEQUANTIZED = DataSpec("dequantized", (1, 4, 4), levels=17, dequantized=True)
SPECS = [GREY, RGB, ODD, BINARY, LEVELS, CONTINUOUS, CONTINUOUS_IMAGE, DEQUANTIZED]


def double(*shape: int) -> Tensor:
    """Normal noise."""
    return torch.randn(*shape, dtype=torch.float64)


def examples(spec: DataSpec, n: int) -> Tensor:
    """Random examples of that kind, ``(n, *shape)``."""
    if spec.levels is None:
        return double(n, *spec.shape)
    level = torch.randint(spec.levels, (n, *spec.shape)).double()
    return (level + torch.rand_like(level)) / spec.levels if spec.dequantized else level / (spec.levels - 1)


@dataclass(frozen=True)
class Part:
    """A likelihood or a posterior, and the data it is for.

    Args:
        name: Its title in the tests.
        spec: The data.
        make: From the condition's size (0 for none) to the module.
    """

    name: str
    spec: DataSpec
    make: Callable[[int], nn.Module]
    conditional: bool = True

    def build(self, condition_dim: int = 0) -> Any:
        return self.make(condition_dim).double()


def _decoder(spec: DataSpec, parameters: int, condition_dim: int) -> nn.Module:
    return MLP(LATENT, parameters * spec.dimensions, (7,), "tanh", condition_dim)


def _bernoulli(spec: DataSpec) -> Part:
    make = lambda c: Bernoulli(_decoder(spec, 1, c), (LATENT,), spec.shape)
    return Part(f"bernoulli, {spec.name}", spec, make)


def _gaussian(spec: DataSpec, scale: Scale) -> Part:
    parameters = 2 if scale == "network" else 1
    make = lambda c: Gaussian(_decoder(spec, parameters, c), (LATENT,), spec.shape, scale)
    return Part(f"gaussian, {scale} scale, {spec.name}", spec, make)


def _full_gaussian(noise: Noise) -> Part:
    parameters = 1 if noise == "shared" else 1 + CONTINUOUS.dimensions
    decoder = lambda c: _decoder(CONTINUOUS, parameters, c)
    make = lambda c: FullGaussianLikelihood(decoder(c), (LATENT,), CONTINUOUS.shape, noise)
    return Part(f"full gaussian, {noise} factor, {CONTINUOUS.name}", CONTINUOUS, make)


def _discretized_logistic(spec: DataSpec, scale: Scale) -> Part:
    parameters, levels = 2 if scale == "network" else 1, spec.levels or 0
    make = lambda c: DiscretizedLogisticLikelihood(_decoder(spec, parameters, c), (LATENT,), spec.shape, levels, scale)
    return Part(f"discretized logistic, {scale} scale, {spec.name}", spec, make)


def _discretized_logistic_mixture(spec: DataSpec) -> Part:
    parameters, levels = DiscretizedLogisticMixtureLikelihood.parameters_for(spec.shape, 3), spec.levels or 0
    decoder = lambda c: _decoder(spec, parameters, c)
    make = lambda c: DiscretizedLogisticMixtureLikelihood(decoder(c), (LATENT,), spec.shape, levels, components=3)
    return Part(f"mixture of discretized logistics, {spec.name}", spec, make)


def _categorical(spec: DataSpec) -> Part:
    levels = spec.levels or 0
    make = lambda c: Categorical(_decoder(spec, levels, c), (LATENT,), spec.shape, levels)
    return Part(f"categorical, {spec.name}", spec, make)


def _convolutional(spec: DataSpec) -> Part:
    channels, *sides = spec.shape
    decoder = lambda c: ConvolutionalDecoder(LATENT, (2 * channels, *sides), (4, 6), 8, condition_dim=c)
    make = lambda c: Gaussian(decoder(c), (LATENT,), spec.shape, "network")
    return Part(f"gaussian by convolutions, {spec.name}", spec, make)


SCALES: tuple[Scale, ...] = get_args(Scale)

LIKELIHOODS = [
    *[_bernoulli(spec) for spec in (BINARY, GREY)],
    *[_gaussian(spec, scale) for spec in (CONTINUOUS, ODD, DEQUANTIZED) for scale in SCALES],
    *[_full_gaussian(noise) for noise in get_args(Noise)],
    *[_discretized_logistic(spec, scale) for spec in (GREY, RGB, LEVELS) for scale in SCALES],
    *[_discretized_logistic_mixture(spec) for spec in (GREY, RGB)],
    *[_categorical(spec) for spec in (GREY, LEVELS)],
    *[_convolutional(spec) for spec in (RGB, ODD)],
]


def linear_gaussian(spec: DataSpec, scale: Scale, latent_dim: int = LATENT) -> Gaussian:
    """A linear Gaussian likelihood with weights and scales that are not special."""
    likelihood = Gaussian(MLP(latent_dim, spec.dimensions, ()), (latent_dim,), spec.shape, scale, variance=0.3).double()
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return likelihood


def _exact(scale: Scale) -> Part:
    make = lambda c: ExactLinearGaussian(linear_gaussian(CONTINUOUS_IMAGE, scale))
    return Part(f"exact, {scale} scale", CONTINUOUS_IMAGE, make, conditional=False)


def _flow(kind: Any) -> Part:
    encoder = lambda c: MLP(GREY.shape, 2 * LATENT + 5, (7,), "tanh", c)
    return Part(f"{kind} flow", GREY, lambda c: FlowPosterior(encoder(c), GREY.shape, LATENT, 5, kind, hidden=(8,)))


POSTERIORS = [
    Part("gaussian by mlp", GREY, lambda c: DiagonalGaussian(MLP(GREY.shape, 2 * LATENT, (7,), "tanh", c), GREY.shape)),
    Part(
        "gaussian by convolutions",
        ODD,
        lambda c: DiagonalGaussian(ConvolutionalEncoder(ODD.shape, 2 * LATENT, (4, 6), 8, condition_dim=c), ODD.shape),
    ),
    Part(
        "gaussian, linear mean",
        LEVELS,
        lambda c: DiagonalGaussian(LinearWithConstant(LEVELS.shape, LATENT), LEVELS.shape),
        conditional=False,
    ),
    Part(
        "cholesky",
        GREY,
        lambda c: CholeskyGaussian(MLP(GREY.shape, LATENT + 6, (7,), "tanh", c), GREY.shape, LATENT),
    ),
    *[_flow(kind) for kind in ("iaf", "spline")],
    Part("dirac", RGB, lambda c: DiracPosterior(MLP(RGB.shape, LATENT, (7,), "tanh", c), RGB.shape)),
    *[_exact(scale) for scale in ("fixed", "shared", "per-dimension")],
]

NETWORKS: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "linear map": (lambda c: MLP(4, 6, (), condition_dim=c), (4,), (6,)),
    "mlp": (lambda c: MLP((1, 7, 9), 6, (8, 5), "gelu", c), (1, 7, 9), (6,)),
    **{
        f"convolutional encoder, {shape}": (
            lambda c, shape=shape: ConvolutionalEncoder(shape, 6, (4, 6, 8), 8, condition_dim=c),
            shape,
            (6,),
        )
        for shape in [(1, 12, 12), (3, 16, 8), (1, 7, 9), (2, 5, 16), (1, 3, 3), (1, 1, 1)]
    },
    **{
        f"convolutional decoder, {shape}": (
            lambda c, shape=shape: ConvolutionalDecoder(4, shape, (4, 6, 8), 8, condition_dim=c),
            (4,),
            shape,
        )
        for shape in [(1, 12, 12), (3, 16, 8), (1, 7, 9), (2, 5, 16), (1, 3, 3), (1, 1, 1)]
    },
}


def _nested_prior(condition_dim: int) -> LatentVariableModel:
    """A latent-variable model over vectors of size LATENT: a prior like any other."""
    likelihood = Gaussian(MLP(2, LATENT, (4,), "tanh", condition_dim), (2,), (LATENT,), "shared")
    posterior = DiagonalGaussian(MLP(LATENT, 4, (4,), "tanh", condition_dim), (LATENT,))
    return LatentVariableModel(StandardNormal(2), likelihood, posterior)


def _vamp(posterior: nn.Module) -> nn.Module:
    return VampPrior(posterior, torch.rand(4, *GREY.shape)).double()


PRIORS: dict[str, Callable[[int], nn.Module]] = {
    "standard normal": lambda c: StandardNormal(LATENT).double(),
    "diagonal normal": lambda c: DiagonalNormal(LATENT).double(),
    "mixture": lambda c: GaussianMixture(LATENT, 4).double(),
    "coupling flow": lambda c: FlowPrior(LATENT, "coupling", 2, (8,)).double(),
    "spline flow": lambda c: FlowPrior(LATENT, "spline", 2, (8,)).double(),
    "vamp": lambda c: _vamp(DiagonalGaussian(MLP(GREY.shape, 2 * LATENT, (7,), "tanh"), GREY.shape)),
    "vamp of cholesky": lambda c: _vamp(CholeskyGaussian(MLP(GREY.shape, LATENT + 6, (7,)), GREY.shape, LATENT)),
    "latent-variable model": lambda c: _nested_prior(c).double(),
}

_small: dict[str, Any] = {"latent_dim": LATENT, "hidden": (7,), "channels": (4, 6), "activation": "tanh"}

SYSTEMS: list[tuple[Recipe, DataSpec]] = [
    *[(VAE(**_small), spec) for spec in SPECS],
    *[(VAE(**_small, network="convolutional"), spec) for spec in (GREY, RGB, ODD, CONTINUOUS_IMAGE)],
    (VAE(**_small, likelihood="bernoulli"), GREY),
    *[(VAE(**_small, likelihood="gaussian", scale=scale), ODD) for scale in SCALES],
    *[(VAE(**_small, likelihood="full-gaussian", scale=scale), CONTINUOUS) for scale in ("auto", "network")],
    *[(VAE(**_small, likelihood="discretized-logistic", scale=scale), LEVELS) for scale in SCALES],
    (VAE(**_small, likelihood="discretized-logistic-mixture", likelihood_components=2), RGB),
    *[(VAE(**_small, likelihood="categorical"), spec) for spec in (GREY, LEVELS)],
    (VAE(**_small, likelihood="categorical", network="convolutional"), ODD),
    (VAE(**_small, objective=Elbo(samples=3)), GREY),
    (VAE(**_small, objective=Iwae(samples=5)), BINARY),
    (VAE(**_small, objective=Elbo(beta=4.0)), BINARY),
    *[
        (VAE(**_small, posterior=posterior, prior=prior, components=4), GREY)
        for posterior in get_args(PosteriorName)
        if posterior != "dirac"
        for prior in get_args(PriorName)
        if (posterior, prior) != ("gaussian", "normal")
    ],
    (VAE(**_small, posterior="cholesky", prior="vamp", components=4), CONTINUOUS_IMAGE),
    (VAE(**_small, posterior="iaf", prior="vamp", components=4, likelihood="gaussian", network="convolutional"), RGB),
    (VAE(**_small, posterior="dirac", objective=Mmd(beta=0.0)), GREY),
    (VAE(**_small, objective=Mmd()), GREY),
    (VAE(**_small, objective=TotalCorrelation(beta=4.0)), BINARY),
    (VAE(**_small, objective=StickingTheLanding()), BINARY),
    (VAE(**_small, objective=Score(samples=4)), BINARY),
    (VAE(**_small, objective=Iwae(gradient="dreg", samples=4)), BINARY),
    (VAE(**_small, objective=Elbo(divergence="monte-carlo")), BINARY),
    (VAE(**_small, objective=Elbo(free_bits=0.1)), BINARY),
    (VAE(**_small, objective=Capacity(capacity=5.0, beta=10.0)), BINARY),
    *[(Autoencoder(**_small), spec) for spec in (GREY, CONTINUOUS)],
    (Autoencoder(**_small, network="convolutional", likelihood="auto", scale="network"), RGB),
    *[
        (LinearVAE(latent_dim=LATENT, posterior=posterior, scale=scale), spec)
        for spec in (CONTINUOUS, DEQUANTIZED)
        for posterior in ("exact", "gaussian")
        for scale in ("shared", "per-dimension")
    ],
]

_grids: dict[str, Any] = {"channels": 4, "latent_channels": 2, "blocks": 1, "zero_last": False}

HIERARCHIES: list[tuple[Recipe, DataSpec]] = [
    (HVAE(layers=(4, 3, 2), hidden=(7,)), GREY),
    (HVAE(layers=(4, 2), hidden=(7, 6), prior="mixture", components=3, objective=Iwae(samples=3)), BINARY),
    (HVAE(layers=(4, 2), hidden=(7,), network="convolutional", channels=(4, 6)), RGB),
    (HVAE(layers=(4, 4), hidden=(7,), prior="coupling", transforms=1), CONTINUOUS),
    (HVAE(layers=(4, 2), hidden=(7,), objective=Elbo(free_bits=0.1, free_bits_group=0)), LEVELS),
    (Ladder(**_grids, grids=(1, 4), groups=(1, 2)), GREY),
    (Ladder(**_grids, grids=(1, 2, 4), groups=(1,), posterior="merge"), BINARY),
    (Ladder(**_grids, grids=(1, 7), groups=(1, 2), posterior="direct", objective=Iwae(samples=2)), ODD),
    (VDVAE(**_grids, grids=(1, 3), groups=(1, 2), likelihood="discretized-logistic-mixture"), RGB),
    (VDVAE(**_grids, grids=(1, 2, 4), groups=(1, 1, 2), objective=Elbo(free_bits=0.1, balance=True)), GREY),
    (VDVAE(**_grids, grids=(1, 4), groups=(2,), recompute=True, likelihood="gaussian", scale="network"), GREY),
]
"""Models of several latents, with every kind of group and posterior."""


def system_name(system: tuple[Recipe, DataSpec]) -> str:
    """The recipe with the options that are not its defaults, and the data."""
    recipe, spec = system
    options = [
        str(value)
        for field in dataclasses.fields(recipe)
        if field.name not in _small and (value := getattr(recipe, field.name)) != field.default
    ]
    return ", ".join([type(recipe).__name__, *options, spec.name])


def system_id(system: tuple[Recipe, DataSpec]) -> str:
    return system_name(system).replace(" ", "-").replace(",-", ",")


def named(part: Part) -> str:
    return part.name.replace(" ", "-").replace(",-", ",")


def condition(n: int, condition_dim: int) -> Given | None:
    """One condition per example, or none."""
    return Given({"vector": double(n, condition_dim)}) if condition_dim else None


class Replayed(nn.Module):
    """A posterior whose samples are given, to compare objectives under the same noise."""

    def __init__(self, posterior: nn.Module, z: Tensor) -> None:
        super().__init__()
        self.posterior, self.z = posterior, z

    def forward(self, x: Tensor, c: Given | None = None) -> Distribution:
        q = self.posterior(x, c)
        assert q.has_rsample
        q.rsample = lambda sample_shape=(): self.z
        return q


def terms_with(model: LatentVariableModel, x: Tensor, z: Tensor, c: Given | None = None) -> Any:
    """The terms of x at given samples of the posterior, ``(k, *batch, *latent)``."""
    return Marginal(LatentVariableModel(model.prior, model.likelihood, Replayed(model.posterior, z)), c).terms(
        x, k=len(z)
    )


class _Told:
    """In the place of a model's distribution: terms that are known already."""

    def __init__(self, terms: Terms) -> None:
        self.known = terms

    def terms(self, x: Tensor, k: int = 1, *, pathwise: bool = True) -> Terms:
        return self.known


def rows_of(recipe: Recipe, terms: Terms, beta: float | Tensor = 0.5, examples: int = 100) -> Any:
    """The objective, the bound and its two halves that a recipe makes of terms."""
    px: Any = _Told(terms)
    return rows(recipe.training_objective, px, terms.log_likelihood, beta, examples)  # pyright: ignore[reportArgumentType]


def objective_of(recipe: Recipe, terms: Terms, beta: float | Tensor = 0.5) -> Tensor:
    """What a recipe maximises, of terms."""
    return rows_of(recipe, terms, beta)[0]


def bound_of(recipe: Recipe, terms: Terms) -> Tensor:
    """What a recipe reports, of terms."""
    return rows_of(recipe, terms)[1]


def training_terms(model: LatentVariableModel, x: Tensor) -> Terms:
    """The terms that a recipe's objective wants."""
    assert model.recipe is not None
    objective = model.recipe.training_objective
    return model().terms(x, objective.samples, pathwise=not isinstance(objective, Score))


def without_gradient(module: nn.Module) -> list[str]:
    """Names of the parameters that no gradient has reached."""
    return [name for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def is_level(x: Tensor, levels: int) -> bool:
    """Whether every entry is l / (levels - 1)."""
    scaled = x.double() * (levels - 1)
    return bool(((scaled - scaled.round()).abs() < 1e-6).all() and (x >= 0).all() and (x <= 1).all())


def within_error(values: Tensor, expected: Tensor | float, errors: float = 4.0) -> bool:
    """Whether the mean over the first dimension is within so many of its standard errors."""
    return bool(((values.mean(0) - expected).abs() <= errors * values.std(0) / len(values) ** 0.5 + 1e-12).all())

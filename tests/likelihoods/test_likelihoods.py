"""Every likelihood keeps the shape and range of its data, and is the distribution that it says it is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from instances import (
    BINARY,
    CONDITION,
    CONTINUOUS,
    DEQUANTIZED,
    GREY,
    LATENT,
    LIKELIHOODS,
    SCALES,
    Part,
    condition,
    double,
    examples,
    is_level,
    named,
    without_gradient,
)
from tightbound.data import DataSpec
from tightbound.errors import ShapeError, UsageError
from tightbound.likelihoods import (
    Bernoulli,
    Categorical,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    Gaussian,
    Likelihood,
)
from tightbound.networks import MLP

LEVELLED = [part for part in LIKELIHOODS if "gaussian" not in part.name]
FACTORISED = [part for part in LIKELIHOODS if not part.name.startswith(("full gaussian", "mixture"))]


@pytest.fixture(params=LIKELIHOODS, ids=named)
def part(request: pytest.FixtureRequest) -> Part:
    return request.param


@pytest.mark.parametrize("condition_dim", [0, CONDITION], ids=["no-condition", "condition"])
def test_shapes(part: Part, condition_dim: int) -> None:
    likelihood = part.build(condition_dim)
    for leading in [(5,), (4, 5), (2, 4, 5)]:
        px = likelihood(double(*leading, LATENT), condition(5, condition_dim))
        assert px.batch_shape == leading
        assert px.event_shape == part.spec.shape
        assert px.mean.shape == (*leading, *part.spec.shape)
        assert px.sample().shape == (*leading, *part.spec.shape)
        assert px.sample((3,)).shape == (3, *leading, *part.spec.shape)
        assert px.log_prob(examples(part.spec, 5)).shape == leading


def test_samples_and_means_have_the_range_of_the_data(part: Part) -> None:
    px = part.build()(10 * double(20, LATENT))
    sample = px.sample()
    assert sample.dtype == torch.float64
    assert sample.isfinite().all()
    if part in LEVELLED:
        levels = 2 if isinstance(part.build(), Bernoulli) else part.spec.levels
        assert levels is not None
        assert is_level(sample, levels)
        assert ((px.mean >= 0) & (px.mean <= 1)).all()


@pytest.mark.parametrize("part", [part for part in LEVELLED if part in FACTORISED], ids=named)
def test_every_entry_sums_to_one_over_its_levels(part: Part) -> None:
    likelihood = part.build()
    levels = getattr(likelihood, "levels", 2)
    px = likelihood(5 * double(3, LATENT))
    x = torch.arange(levels).double() / (levels - 1)
    entries = px.base_dist.log_prob(x.reshape(-1, *[1] * (1 + len(part.spec.shape))))  # broadcast over all entries
    total = entries.exp().sum(0)
    assert total.shape == (3, *part.spec.shape)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


@pytest.mark.parametrize("part", FACTORISED, ids=named)
def test_log_prob_is_summed_over_the_entries(part: Part) -> None:
    px, x = part.build()(double(5, LATENT)), examples(part.spec, 5)
    torch.testing.assert_close(px.log_prob(x), px.base_dist.log_prob(x).flatten(1).sum(1))


def test_gradient_reaches_every_parameter(part: Part) -> None:
    likelihood = part.build(CONDITION)
    likelihood(double(5, LATENT), condition(5, CONDITION)).log_prob(examples(part.spec, 5)).sum().backward()
    assert without_gradient(likelihood) == []


def test_precision_and_repr(part: Part) -> None:
    likelihood, x = part.build(), examples(part.spec, 5)
    z = double(5, LATENT)
    exact = likelihood(z).log_prob(x)
    assert exact.dtype == torch.float64
    rounded = likelihood.float()(z.float()).log_prob(x.float())
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded.double(), exact, rtol=2e-4, atol=2e-3)
    assert type(likelihood).__name__ in repr(likelihood)
    assert repr(likelihood(z.float()))


def test_half_the_squared_error_and_a_constant() -> None:
    likelihood = Gaussian(MLP(LATENT, 64, (7,)), (LATENT,), (1, 8, 8)).double()
    z, x = double(5, LATENT), double(5, 1, 8, 8)
    mean = likelihood(z).mean
    expected = (x - mean).square().flatten(1).sum(1) + 32 * math.log(math.pi)
    torch.testing.assert_close(-likelihood(z).log_prob(x), expected, rtol=0, atol=1e-6)  # log(1/2) is kept in float32
    with torch.no_grad():
        likelihood.log_scale.fill_(math.log(math.sqrt(0.5)))
    torch.testing.assert_close(-likelihood(z).log_prob(x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("scale", SCALES)
def test_scales(scale: str) -> None:
    network = MLP(LATENT, (2 if scale == "network" else 1) * 6, (7,))
    likelihood = Gaussian(network, (LATENT,), (6,), scale, variance=0.25).double()  # pyright: ignore
    std = likelihood(double(4, LATENT)).base_dist.scale  # pyright: ignore
    assert std.shape == (4, 6)
    assert bool((std[0] == std[1]).all()) == (scale != "network")
    learned = dict(likelihood.named_parameters()).get("log_scale")
    assert (learned is None) == (scale == "fixed")
    assert likelihood.log_scale.shape == ((6,) if scale == "per-dimension" else ())
    torch.testing.assert_close(likelihood.log_scale.exp(), torch.full_like(likelihood.log_scale, 0.5))


def test_the_bernoulli_is_binary_cross_entropy() -> None:
    likelihood = Bernoulli(MLP(LATENT, 64, (7,)), (LATENT,), (1, 8, 8)).double()
    z = double(5, LATENT)
    probabilities = torch.sigmoid(likelihood.network(z)).reshape(5, 1, 8, 8)
    for x in (examples(BINARY, 5), examples(GREY, 5)):
        expected = F.binary_cross_entropy(probabilities, x, reduction="none").flatten(1).sum(1)
        torch.testing.assert_close(-likelihood(z).log_prob(x), expected)


def test_a_categorical_takes_its_levels_from_the_right_channel() -> None:
    class Network(nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(len(z), 5, 1, 2, 2, dtype=z.dtype)  # levels before the shape of an example
            logits[:, 3, :, 0, 1] = 50.0
            return logits

    px = Categorical(Network(), (LATENT,), (1, 2, 2), levels=5)(double(1, LATENT))
    torch.testing.assert_close(px.mean[0, 0, 0, 1], torch.tensor(0.75).double())
    torch.testing.assert_close(px.mean[0, 0, 1, 1], torch.tensor(0.5).double())


@pytest.mark.parametrize("variance", [0.0, -1.0, math.nan])
def test_a_variance_must_be_positive(variance: float) -> None:
    with pytest.raises(UsageError, match="positive"):
        Gaussian(MLP(2, 6), (2,), (6,), variance=variance)


def test_unknown_scales_are_refused() -> None:
    with pytest.raises(UsageError, match="per-dimension"):
        Gaussian(MLP(2, 6), (2,), (6,), "perdimension")  # pyright: ignore[reportArgumentType]


def test_a_decoder_of_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match="expected"):
        Gaussian(MLP(2, 7), (2,), (6,))(torch.zeros(5, 2))
    with pytest.raises(ShapeError, match="expected"):
        Categorical(MLP(2, 6), (2,), (6,), levels=3)(torch.zeros(4, 5, 2))


def likelihood_for(kind: str, levels: int = 17) -> Likelihood:
    make = {
        "bernoulli": lambda: Bernoulli(nn.Identity(), (2,), (1, 8, 8)),
        "gaussian": lambda: Gaussian(nn.Identity(), (2,), (1, 8, 8)),
        "discretized-logistic": lambda: DiscretizedLogisticLikelihood(nn.Identity(), (2,), (1, 8, 8), levels),
        "mixture": lambda: DiscretizedLogisticMixtureLikelihood(nn.Identity(), (2,), (1, 8, 8), levels),
        "categorical": lambda: Categorical(nn.Identity(), (2,), (1, 8, 8), levels),
    }
    return make[kind]()


OTHER_LEVELS = DataSpec("other", (1, 8, 8), levels=5)


@pytest.mark.parametrize(
    ("kind", "data", "measure"),
    [
        ("bernoulli", BINARY, "mass"),
        ("bernoulli", GREY, "none"),
        ("bernoulli", DataSpec("d", (1, 8, 8), levels=2, dequantized=True), "none"),
        ("bernoulli", CONTINUOUS, "none"),
        ("gaussian", CONTINUOUS, "density"),
        ("gaussian", GREY, "density"),
        ("gaussian", DEQUANTIZED, "bound"),
        *[
            case
            for kind in ("discretized-logistic", "mixture", "categorical")
            for case in [
                (kind, GREY, "mass"),
                (kind, OTHER_LEVELS, "none"),
                (kind, CONTINUOUS, "none"),
                (kind, DEQUANTIZED, "none"),
            ]
        ],
    ],
)
def test_what_a_value_is_for_given_data(kind: str, data: DataSpec, measure: str) -> None:
    got = likelihood_for(kind).measure(data)
    assert got.kind == measure
    assert got.comparable == (measure in ("mass", "bound"))
    assert got.note
    assert (got.offset != 0) == (measure == "bound")


def test_dequantisation_turns_a_uniform_density_into_the_uniform_mass() -> None:
    """The density of (level + u) / L that is 1 on the unit cube is the mass L^-D: D ln L nats."""
    measure = likelihood_for("gaussian").measure(DEQUANTIZED)
    log_density = 0.0
    assert -log_density + measure.offset == pytest.approx(16 * math.log(17), abs=1e-12)


def test_dequantisation_bounds_the_mass_of_a_level() -> None:
    """E_u log p((l + u) / L) - ln L <= log of the mass that the density has in the level's cell."""
    spec = DataSpec("one pixel", (1,), levels=17, dequantized=True)
    likelihood = Gaussian(MLP(1, 1, ()), (1,), (1,), variance=0.01).double()
    px = likelihood(double(1, 1))
    x = (torch.arange(17).double()[:, None] + torch.linspace(0, 1, 2001).double()) / 17
    log_density = px.log_prob(x.unsqueeze(-1))
    bound = log_density.mean(1) - likelihood.measure(spec).offset
    mass = log_density.exp().mean(1).div(17).log()
    assert (bound <= mass + 1e-9).all()
    assert (mass - bound).min() < 0.01  # and not by chance: near the mean it is tight
    assert mass.exp().sum() <= 1 + 1e-6

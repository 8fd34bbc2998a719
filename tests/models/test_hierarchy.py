r"""Hierarchies of latents: a model whose prior is a model, held against linear Gaussians in closed form.

A chain :math:`z_L \to \dots \to z_1 \to x` of numbers, :math:`z_i \mid z_{i+1} \sim \mathcal{N}(w_i z_{i+1}, s_i^2)`.
"""

from __future__ import annotations

import dataclasses
import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

import tightbound as tb
from tightbound import objectives
from tightbound.conditions import Given
from tightbound.distributions import Bounded, Sampling, independent
from tightbound.errors import ObjectiveError, UsageError
from tightbound.evaluation import evaluate, numbers
from tightbound.likelihoods import Gaussian
from tightbound.models import Estimated, Latent, LatentVariableModel, Marginal, Terms
from tightbound.objectives import elbo, iwae, naive_monte_carlo
from tightbound.objectives.rows import rows
from tightbound.options.objectives import Gsnn, Hybrid, NaiveMonteCarlo, Objective
from tightbound.posteriors import DiagonalGaussian, Layers
from tightbound.priors import StandardNormal

CHAINS = {
    "one layer": [(0.7, 0.6)],
    "two layers": [(0.7, 0.6), (1.3, 0.5)],
    "three layers": [(0.7, 0.6), (1.3, 0.5), (-0.8, 0.9)],
    "four layers": [(0.7, 0.6), (1.3, 0.5), (-0.8, 0.9), (1.1, 0.3)],
    "sharp layers": [(1.0, 0.3), (4.0, 0.1)],
}
"""Weights and deviations of each chain, from the data up; above them stands a standard normal."""
X = torch.tensor([[0.3], [-2.0], [1.1]], dtype=torch.float64)


class Line(nn.Module):
    """A Gaussian whose mean is a line: a likelihood of z, or a posterior of x."""

    def __init__(self, weight: float, std: float, nodes: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))
        self.std, self.nodes = std, nodes

    def forward(self, inputs: Tensor, c: Given | None = None) -> Distribution:
        mean = self.weight * inputs
        base = Normal(mean, torch.full_like(mean, self.std))
        return Independent(base, 1) if self.nodes is None else At(base, self.nodes)


class At(Independent):
    """A Gaussian whose samples are its mean and plus or minus its deviation, in a given pattern.

    Means over them are exact for polynomials of the second degree: all that the terms of a linear Gaussian chain are.
    """

    def __init__(self, base: Normal, nodes: Tensor) -> None:
        super().__init__(base, 1)
        self.nodes = nodes

    def rsample(self, sample_shape: object = ()) -> Tensor:
        nodes = self.nodes.view(-1, 1, 1)
        return self.base_dist.loc + self.base_dist.scale * nodes


def variances(chain: list[tuple[float, float]]) -> list[float]:
    """Marginal variances of z1 ... zL, and of x before them."""
    found = [1.0]
    for w, s in reversed(chain):
        found.insert(0, w**2 * found[0] + s**2)
    return found


def model_of(chain: list[tuple[float, float]], shift: float = 0.0, nodes: bool = False) -> LatentVariableModel:
    """The chain with its exact posteriors, or ones that are off by a factor of the weight."""
    var, layers = variances(chain), len(chain)
    signs = torch.tensor(list(product([-1.0, 1.0], repeat=layers)), dtype=torch.float64).T
    prior: nn.Module = StandardNormal(1).double()
    for i in reversed(range(layers)):
        w, s = chain[i]
        gain, std = w * var[i + 1] / var[i], math.sqrt(var[i + 1] * s**2 / var[i])
        q = Line(gain + shift, std, signs[i] if nodes else None)
        prior = LatentVariableModel(prior, Line(w, s), q)
    assert isinstance(prior, LatentVariableModel)
    return prior


def log_p(chain: list[tuple[float, float]]) -> Tensor:
    zero = torch.zeros((), dtype=torch.float64)
    return Normal(zero, zero + math.sqrt(variances(chain)[0])).log_prob(X).squeeze(-1)


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_exact_posteriors_make_every_weight_the_likelihood(chain: list[tuple[float, float]]) -> None:
    terms = model_of(chain)().terms(X, k=7)
    assert terms.exact
    assert terms.log_weights.shape == (7, 3)
    torch.testing.assert_close(terms.log_weights, log_p(chain).expand(7, 3), atol=1e-10, rtol=0)
    torch.testing.assert_close(objectives.iwae(terms), log_p(chain), atol=1e-10, rtol=0)


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_the_default_elbo_is_the_likelihood_in_the_mean(chain: list[tuple[float, float]]) -> None:
    samples = objectives.elbo(model_of(chain)().terms(X, k=1))
    assert samples.shape == (3,)
    torch.testing.assert_close(objectives.elbo(model_of(chain, nodes=True)().terms(X, k=2 ** len(chain))), log_p(chain))
    many = objectives.elbo(model_of(chain)().terms(X.expand(100_000, 3, 1), k=1)).detach()
    error = many.std(0) / math.sqrt(len(many))
    assert ((many.mean(0) - log_p(chain)).abs() <= 3 * error + 1e-9).all()


@pytest.mark.parametrize("shift", [0.0, 0.2], ids=["exact", "off"])
@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_each_layers_kl_is_its_closed_expectation(chain: list[tuple[float, float]], shift: float) -> None:
    terms = model_of(chain, shift, nodes=True)().terms(X, k=2 ** len(chain))
    numbered = [f"z{i}" for i in range(1, len(chain) + 1)]
    assert [entry.name for entry in terms.entries] == (numbered if len(chain) > 1 else ["z"])
    torch.testing.assert_close(
        torch.stack([entry.kl().squeeze(-1) for entry in terms.entries]),
        torch.stack(expected_kls(chain, shift)),
        atol=1e-10,
        rtol=0,
    )
    total = objectives.reconstruction(terms) - sum(expected_kls(chain, shift))
    torch.testing.assert_close(objectives.elbo(terms), total, atol=1e-10, rtol=0)
    assert (total <= log_p(chain) + 1e-10).all()


def expected_kls(chain: list[tuple[float, float]], shift: float) -> list[Tensor]:
    """Of every layer, the mean of log q − log p over all of q, by the moments of q."""
    var, kls = variances(chain), list[Tensor]()
    mean, spread = X.squeeze(-1), torch.zeros(3, dtype=torch.float64)  # of what the layer's q is given
    for i, (w, s) in enumerate(chain):
        gain, v = w * var[i + 1] / var[i] + shift, var[i + 1] * s**2 / var[i]
        mean, spread = gain * mean, gain**2 * spread + v  # of z_i under q
        entropy = 0.5 * math.log(2 * math.pi * math.e * v)
        if i + 1 == len(chain):
            kls.append(-entropy + 0.5 * (math.log(2 * math.pi) + mean.square() + spread))
            continue
        w_up, s_up = chain[i + 1]
        g = w_up * var[i + 2] / var[i + 1] + shift
        v_up = var[i + 2] * s_up**2 / var[i + 1]
        # z_i - w z_{i+1}, with z_{i+1} = g z_i + noise of variance v_up
        left = 1 - w_up * g
        square = left**2 * (mean.square() + spread) + w_up**2 * v_up
        kls.append(-entropy + 0.5 * (math.log(2 * math.pi * s_up**2) + square / s_up**2))
    return kls


def test_below_the_top_the_closed_form_would_be_thirty_nats_too_low() -> None:
    """Here q(z1 | x) is broad and p(z1 | z2) sharp, at a z2 that was drawn from this very z1."""
    px = model_of([(0.5, 3.0), (4.0, 0.1)], nodes=True)()
    terms = px.terms(X, k=4)
    below, top = terms.latents
    assert (below.paired, top.paired, below.analytic, top.analytic) == (False, True, False, True)
    closed = torch.distributions.kl_divergence(below.posterior, below.prior).mean(0)  # pyright: ignore
    assert ((closed - below.kl().squeeze(-1)).abs() > 30).all()
    torch.testing.assert_close(objectives.elbo(terms), log_p([(0.5, 3.0), (4.0, 0.1)]), atol=1e-10, rtol=0)
    with pytest.raises(ObjectiveError, match="z1 has no closed form"):
        terms.kl(analytic=True)


def test_gradients_reach_every_layer() -> None:
    model = model_of(CHAINS["three layers"], shift=0.1)
    (-objectives.elbo(model().terms(X, k=5)).sum()).backward()
    assert all(p.grad is not None and p.grad.abs() > 0 for p in model.parameters())


def test_a_hierarchy_samples_from_the_top_down() -> None:
    torch.manual_seed(0)
    chain = CHAINS["three layers"]
    drawn = model_of(chain)().sample((100_000,))
    assert drawn.shape == (100_000, 1)
    assert drawn.var().item() == pytest.approx(variances(chain)[0], rel=0.02)


def test_layers_have_the_names_they_were_given_and_no_two_the_same() -> None:
    top = LatentVariableModel(StandardNormal(1).double(), Line(1.0, 1.0), Line(0.5, 0.5), name="style")
    assert [e.name for e in LatentVariableModel(top, Line(1.0, 1.0), Line(0.5, 0.5))().terms(X).entries] == [
        "z1",
        "style",
    ]
    with pytest.raises(UsageError, match="same name"):
        LatentVariableModel(top, Line(1.0, 1.0), Line(0.5, 0.5), name="style")().terms(X)


def test_a_hierarchy_has_a_space_for_each_layer() -> None:
    space = model_of(CHAINS["three layers"]).space
    assert isinstance(space, Layers)
    assert {name: tuple(z.shape) for name, z in space.latents(X).items()} == {f"z{i}": (3, 1) for i in (1, 2, 3)}


class Noisy(Bounded):
    """A likelihood that is only bounded: unbiased estimates of a bound of -10."""

    def __init__(self, z: Tensor) -> None:
        super().__init__(z.shape[:-1], torch.Size((1,)), validate_args=False)

    @property
    def mean(self) -> Tensor:
        return torch.zeros(self.batch_shape + self.event_shape)

    def lower_bound(self, x: Tensor) -> Tensor:
        return -10 + torch.randn(self.batch_shape, dtype=x.dtype)


class NoisyLikelihood(nn.Module):
    def forward(self, z: Tensor, c: Given | None = None) -> Distribution:
        return Noisy(z)


def test_a_bound_as_likelihood_is_refused_inside_a_logarithm_and_allowed_outside() -> None:
    terms = LatentVariableModel(StandardNormal(1).double(), NoisyLikelihood(), Line(0.5, 0.5))().terms(X, k=1000)
    assert not terms.exact
    assert (objectives.elbo(terms) < -9.9).all()
    with pytest.raises(ObjectiveError, match="exact densities"):
        objectives.iwae(terms)


class Guessed(Bounded):
    """A prior of which only a bound is known."""

    def __init__(self) -> None:
        super().__init__(torch.Size(), torch.Size((1,)), validate_args=False)

    def lower_bound(self, x: Tensor) -> Tensor:
        return Normal(0.0, 1.0).log_prob(x).sum(-1) - 0.1


class GuessedPrior(nn.Module):
    def forward(self, c: Given | None = None) -> Distribution:
        return Guessed()


def test_a_prior_with_a_bound_alone_gives_an_elbo_and_no_weights() -> None:
    terms = LatentVariableModel(GuessedPrior(), Line(1.0, 1.0), Line(0.5, 0.5))().terms(X, k=3)
    assert terms.bounded
    assert not terms.exact
    assert objectives.elbo(terms).isfinite().all()


def test_an_estimated_divergence_is_counted_and_never_weighed() -> None:
    z = Latent(
        torch.zeros(2, 3, 1),
        Independent(Normal(torch.zeros(3, 1), 1.0), 1),
        Independent(Normal(torch.zeros(1), 1.0), 1),
    )
    terms = Terms(torch.full((2, 3), -5.0), (z, Estimated("diffusion", torch.full((3, 4), 0.5))))
    assert objectives.elbo(terms).tolist() == [-7.0] * 3
    assert not terms.exact
    with pytest.raises(ObjectiveError, match="only estimated"):
        _ = terms.latents
    with pytest.raises(ObjectiveError, match="estimate"):
        terms.kl(analytic=True)


def test_a_models_own_distribution_offers_what_its_type_says() -> None:
    px = model_of(CHAINS["two layers"])()
    assert isinstance(px, Marginal)
    assert px.lower_bound(X).shape == (3,)
    with pytest.raises(ObjectiveError, match="lower_bound"):
        px.log_prob(X)


class NoisyBound(Bounded):
    """A likelihood that is only a bound: −10 with noise."""

    def __init__(self, batch: torch.Size) -> None:
        super().__init__(batch, torch.Size((2,)), validate_args=False)

    @property
    def mean(self) -> Tensor:
        return torch.zeros(self.batch_shape + self.event_shape)

    def lower_bound(self, x: Tensor) -> Tensor:
        return -10 + torch.randn(torch.broadcast_shapes(self.batch_shape, x.shape[:-1]))


class BoundLikelihood(nn.Module):
    def forward(self, z: Tensor, c: Given | None = None) -> Distribution:
        return NoisyBound(z.shape[:-1])


def test_a_likelihood_that_is_a_bound_is_never_averaged_inside_a_logarithm() -> None:
    model = LatentVariableModel(StandardNormal(2), BoundLikelihood(), DiagonalGaussian(nn.Linear(2, 4), (2,)))
    x = torch.zeros(5, 2)
    elbo(model().terms(x))
    for refused in (lambda: iwae(model().terms(x, 5)), lambda: naive_monte_carlo(model().generated(x, 5))):
        with pytest.raises(ObjectiveError, match="only a bound"):
            refused()
    data = tb.data.Data.from_arrays(torch.randn(20, 2), test=torch.randn(10, 2))
    found = evaluate(model, data.test, k=5)
    assert found.nll is None
    assert found.elbo is not None
    assert any("itself a bound" in note for note in found.notes)


def test_a_likelihood_of_a_users_own_is_predicted_from_latents_of_the_prior() -> None:
    class Own(nn.Module):
        def forward(self, z: Tensor, c: Given | None = None) -> Distribution:
            return independent(Normal(z, torch.ones(())), 1)

    model = LatentVariableModel(StandardNormal(2), Own(), DiagonalGaussian(nn.Linear(2, 4), (2,)))
    assert model().generated(torch.zeros(5, 2), 3).log_likelihood.shape == (3, 5)


def two_layers() -> LatentVariableModel:
    above, below = DiagonalGaussian(nn.Linear(2, 2), (2,)), DiagonalGaussian(nn.Linear(2, 4), (2,))
    top = LatentVariableModel(StandardNormal(1), Gaussian(nn.Linear(1, 2), (1,), (2,), "shared"), above)
    return LatentVariableModel(top, Gaussian(nn.Linear(2, 2), (2,), (2,), "shared"), below)


def test_a_temperature_steers_every_layer() -> None:
    z = two_layers()().sample_latent((50,), Sampling(temperature=0.0))
    assert torch.equal(z, z[:1].expand_as(z))


@pytest.mark.parametrize("objective", [Hybrid(share=0.5), Gsnn(), NaiveMonteCarlo(samples=3)])
def test_a_hierarchy_predicts_from_latents_of_its_prior(objective: Objective) -> None:
    found = rows(objective, two_layers()(), torch.zeros(4, 2), torch.ones(()), 4)
    assert found.shape[-1] == 4
    assert found.isfinite().all()


def test_each_layer_has_its_kl_and_active_units_in_tables() -> None:
    data = tb.data.Data.from_arrays(torch.randn(20, 2), test=torch.randn(10, 2))
    found = evaluate(two_layers(), data.test, k=5)
    assert found.kl is not None
    assert found.kl_per_dimension is not None
    shown = {row.name: row.text for row in numbers.rows(found)}
    assert shown["kl_per_dimension"] == ", ".join(f"{n} {sum(d):.2f}" for n, d in found.kl_per_dimension.items())
    assert math.isclose(sum(map(sum, found.kl_per_dimension.values())), found.kl.value, rel_tol=1e-4)
    assert found.active_per_layer is not None
    assert found.dimensions_per_layer == {"z1": 2, "z2": 1}
    assert (sum(found.active_per_layer.values()), found.dimensions) == (found.active_units, 3)
    assert shown["active_per_layer"] == f"z1 {found.active_per_layer['z1']}/2, z2 {found.active_per_layer['z2']}/1"


class WithEstimate(Marginal):
    """A model whose prior's term is only estimated."""

    def terms(
        self, x: Tensor, k: int | None = 1, posterior: Distribution | None = None, *, pathwise: bool = True
    ) -> Terms:
        found = super().terms(x, k, posterior, pathwise=pathwise)
        return dataclasses.replace(found, entries=(*found.entries, Estimated("prior", torch.full((len(x), 1), 2.0))))


class Estimating(LatentVariableModel):
    def forward(self, c: Given | None = None) -> Marginal:
        return WithEstimate(self, c)


def test_a_divergence_that_is_estimated_has_an_elbo_and_no_likelihood() -> None:
    parts = StandardNormal(2), Gaussian(nn.Linear(2, 2), (2,), (2,), "shared"), DiagonalGaussian(nn.Linear(2, 4), (2,))
    data = tb.data.Data.from_arrays(torch.randn(20, 2), test=torch.randn(10, 2))
    model, plain = Estimating(*parts), LatentVariableModel(*parts)
    found, without = evaluate(model, data.test, k=5), evaluate(plain, data.test, k=5)
    assert found.nll is None
    assert found.elbo is not None
    assert without.elbo is not None
    assert found.kl_per_dimension is not None
    assert found.kl_per_dimension["prior"] == (2.0,)
    assert math.isclose(found.elbo.value, without.elbo.value - 2, rel_tol=1e-5)
    assert any("only estimated" in note for note in found.notes)
    assert model().lower_bound(torch.zeros(4, 2)).shape == (4,)
    with pytest.raises(ObjectiveError, match="no exact density: prior"):
        iwae(model().terms(torch.zeros(4, 2), 3))

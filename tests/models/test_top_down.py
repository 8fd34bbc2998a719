"""Top-down hierarchies in one packed latent, against closed forms: linear-Gaussian chains with exact posteriors."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from tightbound import objectives
from tightbound.data import DataSpec
from tightbound.distributions import Sampling
from tightbound.errors import ShapeError, UnknownName, UsageError
from tightbound.likelihoods import Gaussian
from tightbound.models import LatentVariableModel
from tightbound.models.latent import replaced
from tightbound.networks.ladder import Group, LadderDecoder
from tightbound.networks.limits import LEAST, within
from tightbound.posteriors.top_down import ARMS, Arm, Direct, Merge, Residual, TopDownPosterior, merge
from tightbound.priors import GaussianMixture, StandardNormal
from tightbound.recipes import VDVAE, Ladder
from tightbound.recipes.ladder import ArmName

CHAINS = {
    "one layer": [(0.7, 0.6)],
    "two layers": [(0.7, 0.6), (1.3, 0.5)],
    "three layers": [(0.7, 0.6), (1.3, 0.5), (-0.8, 0.9)],
    "four layers": [(0.7, 0.6), (1.3, 0.5), (-0.8, 0.9), (1.1, 0.3)],
    "sharp layers": [(1.0, 0.3), (4.0, 0.1)],
}
"""Weights and deviations of each chain, from the data up; above them stands a standard normal."""
X = torch.tensor([[[[0.3]]], [[[-2.0]]], [[[1.1]]]], dtype=torch.float64)
MNIST = DataSpec("mnist", shape=(1, 28, 28), levels=2)


class Link(Group):
    """z_l = w z_{l+1} + s u: the state is the latent itself."""

    def __init__(self, weight: float, std: float) -> None:
        super().__init__((1, 1, 1))
        self.weight, self.log_std = weight, math.log(std)

    def prior(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.weight * h, torch.full_like(h, self.log_std), h

    def absorb(self, h: Tensor, z: Tensor) -> Tensor:
        return z


class Exact(nn.Module):
    """What an arm's network must give for the exact q(z_l | z_{l+1}, x), whose precision is that of prior and message.

    The message of x about z_l is Gaussian: x = a z_l + noise of variance v.
    """

    def __init__(self, arm: type[Arm], weight: float, std: float, a: float, v: float) -> None:
        super().__init__()
        self.arm, self.weight, self.std, self.a, self.v = arm, weight, std, a, v

    def forward(self, seen: Tensor) -> Tensor:
        x = seen[:, -1:]
        message, spread = x / self.a, self.v / self.a**2
        if self.arm is Merge:
            return torch.cat([message, torch.full_like(x, raw(math.sqrt(spread)))], dim=1)
        prior, variance = self.weight * seen[:, :1], self.std**2
        std = (1 / (1 / variance + 1 / spread)) ** 0.5
        mean = std**2 * (prior / variance + message / spread)
        if self.arm is Direct:
            return torch.cat([mean, torch.full_like(x, raw(std))], dim=1)
        return torch.cat([(mean - prior) / self.std, torch.full_like(x, raw(std / self.std))], dim=1)


def raw(std: float) -> float:
    """What an arm turns into that standard deviation."""
    return math.log(math.expm1((std - LEAST) / (1 - LEAST))) - math.log(math.expm1(1.0))


class Same(nn.Module):
    """Features of x: itself, on the one grid."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x]


def model_of(chain: list[tuple[float, float]], arm: type[Arm], shift: float = 0.0) -> LatentVariableModel:
    """The chain with its exact posteriors from the top down, or ones that are off."""
    links, (w, s) = [(0.0, 1.0), *reversed(chain[1:])], chain[0]
    decoder = LadderDecoder([Link(*link) for link in links], 1, (1, 1, 1), 1)
    decoder.unpatch, decoder.last = nn.Sequential(), nn.Sequential(Scaled(w))
    arms, a, v = list[Arm](), w, s**2
    for weight, std in reversed(links):  # from the data up
        arms.insert(0, arm(Exact(arm, weight, std, a + shift, v)))
        v, a = v + (a * std) ** 2, a * weight
    q = TopDownPosterior(Same(), arms, [0] * len(links), decoder, (1, 1, 1))
    likelihood = Gaussian(decoder, (len(links),), (1, 1, 1), "fixed", s**2)
    model = LatentVariableModel(StandardNormal(len(links)), likelihood, q).double()
    likelihood.log_scale.fill_(math.log(s))  # which was rounded to float32
    return model


class Scaled(nn.Module):
    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, h: Tensor) -> Tensor:
        return self.weight * h


def log_p(chain: list[tuple[float, float]]) -> Tensor:
    variance = 1.0
    for w, s in reversed(chain):
        variance = w**2 * variance + s**2
    zero = torch.zeros((), dtype=torch.float64)
    return Normal(zero, zero + math.sqrt(variance)).log_prob(X).flatten()


EVERY = [pytest.param(chain, arm, id=f"{name}-{kind}") for name, chain in CHAINS.items() for kind, arm in ARMS.items()]


@pytest.mark.parametrize(("chain", "arm"), EVERY)
def test_exact_posteriors_make_every_weight_the_likelihood(chain: list[tuple[float, float]], arm: type[Arm]) -> None:
    terms = model_of(chain, arm)().terms(X, k=7)
    assert terms.exact
    assert [entry.name for entry in terms.entries] == [f"z{i}" for i in range(1, len(chain) + 1)]
    torch.testing.assert_close(terms.log_weights, log_p(chain).expand(7, 3), atol=1e-10, rtol=0)


@pytest.mark.parametrize(("chain", "arm"), EVERY)
def test_the_default_elbo_is_the_likelihood_in_the_mean(chain: list[tuple[float, float]], arm: type[Arm]) -> None:
    px = model_of(chain, arm)()
    terms = px.terms(X, k=100_000)
    assert all(entry.analytic for entry in terms.entries)
    samples = terms.log_likelihood - sum(
        kl_divergence(latent.posterior, latent.prior) for latent in terms.latents if latent.prior is not None
    )
    assert samples.shape == (100_000, 3)
    error = samples.std(0) / math.sqrt(100_000)
    assert ((objectives.elbo(terms) - log_p(chain)).abs() <= 3 * error + 1e-9).all()
    torch.testing.assert_close(samples.mean(0), objectives.elbo(terms), atol=1e-8, rtol=0)


@pytest.mark.parametrize(("chain", "arm"), EVERY)
def test_each_layers_kl_is_its_closed_expectation(chain: list[tuple[float, float]], arm: type[Arm]) -> None:
    terms = model_of(chain, arm)().terms(X, k=100_000)
    for latent, expected in zip(terms.latents, expected_kls(chain), strict=True):
        assert latent.prior is not None
        found = kl_divergence(latent.posterior, latent.prior)
        error = found.std(0) / math.sqrt(len(found))
        assert ((latent.kl().squeeze(-1) - expected).abs() <= 4 * error + 1e-9).all(), latent.name
    total = terms.log_likelihood.mean(0) - torch.stack(expected_kls(chain)).sum(0)
    error = terms.log_likelihood.std(0) / math.sqrt(100_000)
    assert ((total - log_p(chain)).abs() <= 4 * error).all()


def expected_kls(chain: list[tuple[float, float]]) -> list[Tensor]:
    """Of every layer from the data up: the mean of its KL over the exact posterior of the layers above it."""
    links, x, found = [*chain[1:], (0.0, 1.0)], X.flatten(), list[Tensor]()
    variances = [1.0]
    for w, s in reversed(chain[1:]):
        variances.insert(0, w**2 * variances[0] + s**2)
    a, v = chain[0][0], chain[0][1] ** 2  # x = a z_l + noise of variance v
    for i, (w, s) in enumerate(links):
        above = variances[i + 1] if i + 1 < len(variances) else 1.0
        p, noise = 1 / (1 / s**2 + a**2 / v), v + (a * s) ** 2  # of z_l given z_{l+1} and x; of x given z_{l+1}
        spread = 1 / (1 / above + (a * w) ** 2 / noise)
        square = (x / a - w * spread * a * w * x / noise).square() + w**2 * spread
        found.append(0.5 * (p / s**2 - 1 - math.log(p / s**2) + (p * a**2 / v) ** 2 * square / s**2))
        a, v = a * w, noise
    return found


@pytest.mark.parametrize("chain", [CHAINS["two layers"], CHAINS["four layers"]], ids=["two", "four"])
def test_importance_weighting_rises_with_k_and_stays_below(chain: list[tuple[float, float]]) -> None:
    torch.manual_seed(0)
    weights = model_of(chain, Residual, shift=0.3)().terms(X, k=120_000).log_weights
    means, before = list[Tensor](), None
    for k in (1, 2, 5, 20, 100):
        bounds = weights.unflatten(0, (-1, k)).logsumexp(1) - math.log(k)
        means.append(bounds.mean(0))
        error = bounds.std(0) / math.sqrt(len(bounds))
        assert (means[-1] <= log_p(chain) + 3 * error).all()
        assert before is None or (means[-1] >= before).all()
        before = means[-1]
    assert (means[0] < log_p(chain) - 0.001).all()


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_all_arms_give_the_same_bound_when_they_express_the_same_posterior(chain: list[tuple[float, float]]) -> None:
    found = list[Tensor]()
    for arm in ARMS.values():
        torch.manual_seed(0)
        found.append(objectives.elbo(model_of(chain, arm, shift=0.1)().terms(X, k=20_000)))
    torch.testing.assert_close(found[0], found[1], atol=1e-10, rtol=0)
    torch.testing.assert_close(found[0], found[2], atol=1e-10, rtol=0)
    assert (found[0] < log_p(chain)).any()


@pytest.mark.parametrize("name", [*ARMS])
def test_one_pass_equals_the_three_modules(name: ArmName) -> None:
    torch.manual_seed(0)
    model = _trained_like(Ladder(channels=8, posterior=name, grids=(1, 4, 7), groups=(1, 2, 1)).build(MNIST)).double()
    x = torch.rand(3, 1, 28, 28, dtype=torch.float64).round()
    px = model()
    torch.manual_seed(1)
    terms = px.terms(x, k=4)
    torch.manual_seed(1)
    q = px.posterior(x)
    u = q.rsample((4,))
    torch.testing.assert_close(terms.log_likelihood, px.likelihood(u).log_prob(x), atol=1e-10, rtol=0)
    torch.testing.assert_close(terms.log_prior, px.prior().log_prob(u), atol=1e-10, rtol=0)
    torch.testing.assert_close(terms.log_posterior, q.log_prob(u), atol=1e-10, rtol=0)
    packed = model.space.joined({entry.name: entry.z for entry in terms.latents})
    torch.testing.assert_close(packed, u, atol=0, rtol=0)


def _trained_like(model: LatentVariableModel) -> LatentVariableModel:
    """With last layers that are no longer zero."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.03 * torch.randn_like(p))
    return model


def test_noise_and_centred_form_have_the_same_kl() -> None:
    """KL(q(z) || p(z)) in the space of z equals that of the noise, entry by entry."""
    torch.manual_seed(0)
    mean, log_std, m, log_s = torch.randn(4, 50, dtype=torch.float64)
    for arm, (a, b) in {
        Residual: ((m - mean) / log_std.exp(), log_s - log_std),
        Direct: (m, log_s),
    }.items():
        loc, std = arm(nn.Identity()).moments(a, b, mean, log_std)
        centred = kl_divergence(Normal(m, log_s.exp()), Normal(mean, log_std.exp()))
        packed = kl_divergence(Normal(loc, std), Normal(torch.zeros_like(loc), torch.ones_like(std)))
        torch.testing.assert_close(packed, centred, atol=1e-12, rtol=1e-12)
    product = merge(Normal(mean, log_std.exp()), Normal(m, log_s.exp()))
    loc, std = Merge(nn.Identity()).moments(m, log_s, mean, log_std)
    torch.testing.assert_close(mean + log_std.exp() * loc, product.mean, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(log_std.exp() * std, product.stddev, atol=1e-12, rtol=1e-12)


def test_a_rare_example_does_not_overflow() -> None:
    """Means and deviations are multiplied from group to group: without a limit, what is far away grows at each."""
    data = DataSpec("digits", shape=(1, 8, 8), levels=17)
    model = Ladder(grids=(1, 4), groups=(1, 5), channels=8, zero_last=False).build(data)
    with torch.no_grad():
        for arm in model.posterior.arms:
            for layer in arm.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    layer.weight.mul_(30)
        kl = model().terms(torch.rand(50, 1, 8, 8)).entries
    for entry in kl:
        assert entry.kl().max() < 100, "nats of one number"


def test_squeezing_is_smooth_and_keeps_what_is_small() -> None:
    x = torch.linspace(-50, 50, 1001, dtype=torch.float64)
    found = within(x, 7.0)
    assert (found.diff() >= 0).all()
    assert found.abs().max() <= 7
    small = x.abs() < 0.5
    torch.testing.assert_close(found[small], x[small], rtol=2e-3, atol=0)


def test_merging_needs_gaussians() -> None:
    with pytest.raises(UsageError, match="Only Gaussians"):
        merge(torch.distributions.Laplace(0.0, 1.0), Normal(0.0, 1.0))
    p = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
    assert merge(p, p).event_shape == (3,)


def test_recomputing_changes_no_gradient() -> None:
    found = list[Tensor]()
    for recompute in (False, True):
        torch.manual_seed(0)
        model = _trained_like(VDVAE(channels=8, grids=(1, 7), groups=(1, 2), recompute=recompute).build(MNIST))
        objectives.elbo(model().terms(torch.rand(3, 1, 28, 28).round())).sum().backward()
        assert all(p.grad is not None for p in model.parameters())
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[0], found[1])


def test_layers_can_be_given_and_the_rest_redrawn() -> None:
    torch.manual_seed(0)
    model = _trained_like(Ladder(channels=8, grids=(1, 7), groups=(1, 2)).build(MNIST))
    px = model()
    drawn = px.sample_layers((5,))
    assert {name: tuple(z.shape) for name, z in drawn.items()} == {"z1": (5, 392), "z2": (5, 392), "z3": (5, 8)}
    again = px.sample_layers((5,), above={"z3": drawn["z3"]})
    assert (again["z3"] == drawn["z3"]).all()
    assert (again["z2"] != drawn["z2"]).any()
    cold = px.sample_layers((5,), Sampling(layers=(0.0, 1.0, 0.5)))
    assert (cold["z1"] == 0).all()
    assert (cold["z2"] != 0).all()
    with pytest.raises(UsageError, match="one for each layer"):
        px.sample_layers((5,), Sampling(layers=(0.0, 1.0)))


def _small() -> LatentVariableModel:
    torch.manual_seed(0)
    recipe = Ladder(channels=8, grids=(1, 4), groups=(1, 2), likelihood="bernoulli")
    return _trained_like(recipe.build(DataSpec("digits", (1, 8, 8), levels=2))).double()


def test_a_density_broadcasts_like_that_of_any_distribution() -> None:
    model = _small()
    q = model().posterior(torch.rand(3, 1, 8, 8, dtype=torch.float64))
    u = q.sample((4,))
    pairs = q.log_prob(u[0].unsqueeze(1))
    assert pairs.shape == (3, 3)
    torch.testing.assert_close(pairs.diagonal(), q.log_prob(u[0]))
    torch.testing.assert_close(q.log_prob(u[0, 0])[0], q.log_prob(u[0])[0])
    with pytest.raises((ShapeError, RuntimeError)):
        q.log_prob(u[0, :2])


def test_a_likelihood_with_another_network_is_not_overlooked() -> None:
    """Then the decoder's output of the pass is of no use, and the terms are those of the three modules."""
    model, x = _small(), torch.rand(3, 1, 8, 8, dtype=torch.float64).round()
    other = replaced(model, likelihood=_trained_like(copy.deepcopy(model.likelihood)))  # pyright: ignore[reportArgumentType]
    torch.manual_seed(1)
    terms = other().terms(x)
    torch.manual_seed(1)
    u = other().posterior(x).sample((1,))
    torch.testing.assert_close(terms.log_likelihood, other().likelihood(u).log_prob(x))
    torch.manual_seed(1)
    assert (terms.log_likelihood - model().terms(x).log_likelihood).abs().min() > 1e-3


def test_no_examples_are_no_error() -> None:
    model = _small()
    assert model().sample((0,)).shape == (0, 1, 8, 8)
    q = model().posterior(torch.zeros(0, 1, 8, 8, dtype=torch.float64))
    assert q.mean.shape == (0, 264)
    assert q.log_prob(q.sample((2,))).shape == (2, 0)


def test_given_layers_reach_to_the_top() -> None:
    px = _small()()
    drawn = px.sample_layers((5,))
    with pytest.raises(UsageError, match="all above them"):
        px.sample_layers((5,), above={"z2": drawn["z2"]})
    with pytest.raises(UnknownName, match="zz"):
        px.sample_layers((5,), above={"zz": drawn["z2"]})


def test_under_a_prior_that_does_not_factorise_layers_are_drawn_together() -> None:
    model = _small()
    px = replaced(model, prior=GaussianMixture(264, 2).double())()
    drawn = px.sample_layers((5,))
    assert px.sample_layers((5,), Sampling(temperature=0.5))["z1"].shape == drawn["z1"].shape
    for how, above in ((Sampling(), {"z3": drawn["z3"]}), (Sampling(layers=(1.0, 1.0, 0.5)), None)):
        with pytest.raises(UsageError, match="depend on each other"):
            px.sample_layers((5,), how, above)
    assert [entry.name for entry in px.terms(px.sample((3,)).double()).entries] == ["z"]

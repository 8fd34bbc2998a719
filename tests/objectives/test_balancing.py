"""Balancing of layers: its weights, what it never touches, and what it cannot be asked of; free bits of hierarchies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from instances import BINARY, GREY, double, examples
from tightbound.distributions import independent
from tightbound.errors import ObjectiveError, UsageError
from tightbound.models import Latent, Terms
from tightbound.objectives import Elbo, balanced, elbo, free_bits, kl_weights, reconstruction
from tightbound.objectives.balancing import LEAST
from tightbound.objectives.penalties import layer_costs
from tightbound.objectives.rows import rows
from tightbound.options.objectives import Iwae
from tightbound.recipes import HVAE, VAE, Ladder
from tightbound.training.notes import idle_balance

LADDER = Ladder(grids=(1, 4), groups=(2, 1), channels=4, latent_channels=2, zero_last=False)
CHAIN = HVAE(layers=(5, 3), hidden=(8,))


def layers(*means: Tensor) -> Terms:
    """A hierarchy whose layers have posteriors N(m, 1) and priors N(0, 1): the KL of a dimension is m² / 2."""
    entries = []
    for i, mean in enumerate(means, start=1):
        q = independent(Normal(mean, torch.ones_like(mean)), 1)
        p = independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
        entries.append(Latent(mean.detach().unsqueeze(0), q, p, f"z{i}"))
    n = len(means[0])
    return Terms(torch.linspace(-3, -1, n, dtype=means[0].dtype).unsqueeze(0), tuple(entries))


def test_weights_are_nats_per_dimension_over_their_mean() -> None:
    kl = torch.tensor([6.0, 1.0, 0.0], dtype=torch.float64)
    rates = torch.tensor([6 / 12, 1 / 2, 0.0], dtype=torch.float64) + LEAST
    weights = kl_weights(kl, [12, 2, 4])
    torch.testing.assert_close(weights, rates / rates.mean())
    assert weights.mean().item() == pytest.approx(1)
    torch.testing.assert_close(kl_weights(torch.zeros(3), [12, 2, 4]), torch.ones(3))
    torch.testing.assert_close(
        kl_weights(torch.tensor([-2.0, 1.0]), [1, 1]), kl_weights(torch.tensor([0.0, 1.0]), [1, 1])
    )


def test_the_objective_in_closed_form() -> None:
    a, b = double(6, 4), 2 * double(6, 2)
    kl = torch.stack([a.square().sum(1) / 2, b.square().sum(1) / 2])
    rates = kl.mean(1) / torch.tensor([4, 2]) + LEAST
    gamma = 2 * rates / rates.sum()
    terms = layers(a, b)
    expected = terms.log_likelihood[0] - 0.3 * (gamma[0] * kl[0] + gamma[1] * kl[1])
    torch.testing.assert_close(balanced(terms, 0.3), expected)
    torch.testing.assert_close(balanced(terms, 0.3, warming=False), elbo(terms, 0.3))


def test_the_weights_carry_no_gradient() -> None:
    """The gradient is that of constant weights: without it the weighted sum would have others."""
    a, b = double(6, 4).requires_grad_(), double(6, 2).requires_grad_()
    found = torch.autograd.grad(balanced(layers(a, b)).sum(), [a, b])
    kl = torch.stack([a.square().sum(1).mean() / 2, b.square().sum(1).mean() / 2])
    assert not kl_weights(kl, [4, 2]).requires_grad
    for gradient, mean, weight in zip(found, (a, b), kl_weights(kl, [4, 2]), strict=True):
        torch.testing.assert_close(gradient, -weight * mean)


@pytest.mark.parametrize("recipe", [VAE(latent_dim=4, hidden=(8,)), HVAE(layers=(4,), hidden=(8,))], ids=str)
def test_one_layer_has_the_weight_one(recipe: VAE | HVAE) -> None:
    terms = recipe.build(GREY).double()().terms(examples(GREY, 6))
    assert torch.equal(balanced(terms, 0.4), elbo(terms, 0.4))


@pytest.mark.parametrize("beta", [0.3, 1.0])
@pytest.mark.parametrize("frees", [False, True])
def test_it_acts_in_warm_up_only_and_what_is_reported_never_has_it(beta: float, frees: bool) -> None:
    """The rows of an objective: the bound is unbalanced, without free bits, at a weight of 1."""
    px, x = LADDER.build(BINARY).double()(), examples(BINARY, 6)
    smallest, largest, *_ = sorted(cost.mean().item() for cost in layer_costs(px.terms(x, 30)))
    free = (smallest + largest) / 2 if frees else 0.0
    found = list[Tensor]()
    for objective in (Elbo(free_bits=free, free_bits_group=0, balance=True), Elbo(free_bits=free, free_bits_group=0)):
        torch.manual_seed(0)
        found.append(rows(objective, px, x, torch.tensor(beta, dtype=torch.float64), 10))
    (mine, bound, likelihood, kl), (others, *plain) = found
    assert torch.allclose(mine, others) == (beta == 1)
    torch.testing.assert_close([bound, likelihood, kl], list(plain))
    torch.testing.assert_close(bound, likelihood - kl)


def test_with_free_bits_the_weights_are_those_of_the_true_kl() -> None:
    terms = layers(torch.full((5, 4), 0.1).double(), torch.full((5, 2), 2.0).double())
    kl, nats = torch.tensor([4 * 0.1**2 / 2, 2 * 2.0**2 / 2]).double(), 0.5
    gamma = kl_weights(kl, [4, 2])
    expected = reconstruction(terms) - 0.3 * (gamma[0] * nats + gamma[1] * kl[1])
    torch.testing.assert_close(balanced(terms, 0.3, free=(nats, 0)), expected)


def test_a_chain_is_refused_before_training_and_by_hand() -> None:
    with pytest.raises(UsageError, match="never negative"):
        HVAE(layers=(5, 3), objective=Elbo(balance=True))
    with pytest.raises(ObjectiveError, match="z1 has no KL of its own"):
        balanced(CHAIN.build(GREY).double()().terms(examples(GREY, 6)))
    assert HVAE(layers=(5,), objective=Elbo(balance=True)).objective.weighs_layers


def test_why_a_chain_is_refused_copies_of_a_latent_would_be_rewarded_without_end() -> None:
    """q(z2 | z1) and p(z1 | z2) copy z1 with a deviation s: a smaller weight on the upper layer pays for smaller s."""
    mean, noise = double(2000, 1), double(2000, 1)
    z1 = mean + double(2000, 1)

    def objective(s: float, upper: float) -> float:
        z2, wide = z1 + s * noise, torch.full_like(z1, s)
        q1, p1 = independent(Normal(mean, torch.ones_like(mean)), 1), independent(Normal(z2, wide), 1)
        q2, p2 = (
            independent(Normal(z1, wide), 1),
            independent(Normal(torch.zeros(1).double(), torch.ones(1).double()), 1),
        )
        lower = Latent(z1.unsqueeze(0), q1, p1, "z1", paired=False)
        above = Latent(z2.unsqueeze(0), q2, p2, "z2", paired=True)
        return -((2 - upper) * lower.kl().mean() + upper * above.kl().mean()).item()

    assert objective(1e-6, upper=1.0) == pytest.approx(objective(1e-3, upper=1.0), abs=0.01)
    assert objective(1e-6, upper=0.5) > objective(1e-3, upper=0.5) + 5


@pytest.mark.parametrize(("count", "warmup", "says"), [(1, 10, "one latent"), (3, 0, "warm-up"), (3, 10, "")])
def test_balancing_without_effect_is_said(count: int, warmup: int, says: str) -> None:
    told = list(idle_balance(Elbo(balance=True), count, warmup))
    assert [says in line for line in told] == [True] * bool(says)
    assert not list(idle_balance(Iwae(), count, warmup))


# -- free bits of a dimension, a group of dimensions or a layer -----------------------------------------------------


@pytest.mark.parametrize("recipe", [CHAIN, LADDER], ids=["chain", "groups"])
@pytest.mark.parametrize("group", [1, 2, 3, 0])
@pytest.mark.parametrize("k", [1, 3])
def test_free_bits_of_every_kind_of_hierarchy(recipe: HVAE | Ladder, group: int, k: int) -> None:
    """By the batch mean of a dimension, of adjacent ones in a layer, or of a layer; a group never spans two layers."""
    terms, nats = recipe.build(BINARY).double()().terms(examples(BINARY, 6), k), 0.3
    cost, below = 0.0, 0
    for entry in terms.entries:
        kl = entry.kl().mean(0)
        assert kl.dim() == 1
        parts = [part.sum().item() for part in kl.split(group or len(kl))]
        below += sum(part < nats for part in parts)
        cost += sum(max(nats, part) for part in parts)
    assert free_bits(terms, nats, 0.5, group=group).mean().item() == pytest.approx(
        reconstruction(terms).mean().item() - 0.5 * cost
    )
    assert below or group == 0, "nothing was free"
    assert bool(free_bits(terms, nats, group=group).mean() <= elbo(terms).mean())


@pytest.mark.parametrize("recipe", [CHAIN, LADDER], ids=["chain", "groups"])
def test_a_free_layer_has_no_gradient_and_the_others_all_of_theirs(recipe: HVAE | Ladder) -> None:
    model: nn.Module = recipe.build(BINARY).double()
    terms = model().terms(examples(BINARY, 6))
    kl = [cost.mean().item() for cost in layer_costs(terms)]
    nats = sum(sorted(kl)[:2]) / 2  # between two layers
    entries = [latent.posterior.base_dist.loc for latent in terms.latents]
    for cost, own, mean in zip(layer_costs(terms, nats, group=0), kl, entries, strict=True):
        if own < nats:
            assert not cost.requires_grad or not _gradient(cost, mean).any()
            assert torch.equal(cost, torch.full_like(cost, nats))
        else:
            assert _gradient(cost, mean).any()


def _gradient(cost: Tensor, parameter: Tensor) -> Tensor:
    found = torch.autograd.grad(cost.sum(), parameter, retain_graph=True, allow_unused=True)[0]
    return torch.zeros(1) if found is None else found


def test_a_log_ratio_below_zero_costs_the_free_bits_too() -> None:
    """Below the top of a chain: a copy above makes it negative. It is then free, not rewarded."""
    z = double(1, 6, 3)
    q = independent(Normal(torch.zeros(6, 3).double(), torch.ones(6, 3).double()), 1)
    p = independent(Normal(z, torch.full_like(z, 0.01)), 1)
    terms = Terms(torch.zeros(1, 6).double(), (Latent(z, q, p, "z1", paired=False),))
    assert bool((terms.kl() < -5).all())
    for group in (1, 0):
        count = 3 if group else 1
        torch.testing.assert_close(free_bits(terms, 0.2, group=group), torch.full((6,), -0.2 * count).double())

"""Objectives that change what the KL costs: their definitions, and the aggregate's parts against the truth."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from instances import GREY, double, examples
from tightbound.distributions import independent
from tightbound.errors import ObjectiveError
from tightbound.models import Latent, Terms
from tightbound.objectives import (
    Mmd,
    beta_tcvae,
    capacity,
    elbo,
    free_bits,
    info_vae,
    mmd,
    reconstruction,
    total_correlation,
)
from tightbound.recipes import VAE, Autoencoder


def terms_from(mean: Tensor, std: Tensor, z: Tensor) -> Terms:
    q = independent(Normal(mean, std), 1)
    p = independent(Normal(torch.zeros_like(mean[0]), torch.ones_like(mean[0])), 1)
    return Terms(torch.zeros(len(z), len(mean), dtype=z.dtype), (Latent(z, q, p),))


def vae_terms(k: int = 3) -> Terms:
    return VAE(latent_dim=4, hidden=(8,)).build(GREY).double()().terms(examples(GREY, 6), k)


def test_free_bits_average_to_the_larger_of_the_two() -> None:
    terms = vae_terms()
    kl = terms.latents[0].kl()
    for nats in (0.0, kl.mean(0).median().item(), 10.0):
        expected = terms.log_likelihood.mean() - 0.5 * kl.mean(0).clamp(min=nats).sum()
        torch.testing.assert_close(free_bits(terms, nats, 0.5).mean(), expected)
        whole = terms.log_likelihood.mean() - kl.sum(1).mean().clamp(min=nats)
        torch.testing.assert_close(free_bits(terms, nats, group=0).mean(), whole)
    torch.testing.assert_close(free_bits(terms, 0.0), elbo(terms))


def test_a_free_dimension_has_no_gradient_of_its_kl() -> None:
    mean = torch.tensor([[0.1, 2.0]], dtype=torch.float64).repeat(5, 1).requires_grad_()
    terms = terms_from(mean, torch.ones(5, 2).double(), torch.zeros(1, 5, 2).double())
    free_bits(terms, 0.5).sum().backward()
    assert mean.grad is not None
    assert not mean.grad[:, 0].any()
    assert bool((mean.grad[:, 1] == -2.0).all())


def test_a_capacity_pulls_the_kl_to_it_from_both_sides() -> None:
    terms = vae_terms()
    kl = terms.kl()
    for nats in (0.0, kl.mean().item(), 100.0):
        torch.testing.assert_close(capacity(terms, nats, 7.0), reconstruction(terms) - 7.0 * (kl - nats).abs())


def correlated(n: int, d: int, rho: float) -> tuple[Tensor, Tensor, float]:
    """Posterior means and deviations whose aggregate is about N(0, C) with unit variances, and the C's own TC."""
    covariance = torch.full((d, d), rho, dtype=torch.float64).fill_diagonal_(1.0)
    std = 0.3
    mean = MultivariateNormal(torch.zeros(d).double(), covariance - std**2 * torch.eye(d).double()).sample((n,))
    return mean, torch.full((n, d), std, dtype=torch.float64), -0.5 * torch.logdet(covariance).item()


def parts_of_the_whole(mean: Tensor, std: Tensor, z: Tensor) -> Tensor:
    """The three parts with the whole aggregate in sight, averaged; every component has weight 1 / N."""
    n, own = len(mean), Normal(mean, std).log_prob(z).sum(1)
    pairs = Normal(mean, std).log_prob(z.unsqueeze(1))
    joint = pairs.sum(2).logsumexp(1) - math.log(n)
    factors = (pairs.logsumexp(1) - math.log(n)).sum(1)
    prior = Normal(0.0, 1.0).log_prob(z).sum(1)
    return torch.stack([own - joint, joint - factors, factors - prior]).mean(1)


def test_the_weights_add_up_and_the_estimate_of_the_aggregate_is_unbiased() -> None:
    """Over batches that hold the example, the mean of the estimated q(z) is q(z)."""
    mean, std, _ = correlated(20, 2, 0.5)
    z = mean[0] + 0.1
    densities = Normal(mean, std).log_prob(z).sum(1).exp()
    estimates = []
    for _ in range(4000):
        others = 1 + torch.randperm(19)[:4]
        batch = torch.cat([torch.tensor([0]), others])
        terms = terms_from(mean[batch], std[batch], z.expand(1, 5, 2))
        information, *_ = total_correlation(terms, examples=20)
        estimates.append((terms.log_posterior[0, 0] - information[0]).exp())
    found = torch.stack(estimates)
    assert abs(found.mean() - densities.mean()) < 4 * found.std() / 4000**0.5
    same = terms_from(mean[:1].expand(5, 2), std[:5], double(1, 5, 2))
    information, *_ = total_correlation(same, examples=20)
    torch.testing.assert_close(information, torch.zeros(5).double(), rtol=0, atol=1e-12)


def test_the_parts_add_up_to_the_kl() -> None:
    mean, std, _ = correlated(30, 3, 0.5)
    terms = terms_from(mean, std, mean + std * double(4, 30, 3))
    parts = torch.stack(total_correlation(terms, examples=100))
    torch.testing.assert_close(parts.sum(0), terms.kl(analytic=False))
    torch.testing.assert_close(beta_tcvae(terms, 100), elbo(terms, analytic=False))
    torch.testing.assert_close(beta_tcvae(terms, 100, 6.0), elbo(terms, analytic=False) - 5 * parts[1])


def test_the_total_correlation_of_2000_examples_in_10_dimensions() -> None:
    """Within 10 % of the truth from batches of 64: the example on which others' weights fail."""
    torch.manual_seed(1)
    mean, std, _ = correlated(2000, 10, 0.67)
    z = mean + std * torch.randn_like(mean)
    truth = parts_of_the_whole(mean, std, z)
    batches = [batch for _ in range(10) for batch in torch.randperm(2000).split(64)[:-1]]
    terms = [terms_from(mean[batch], std[batch], z[batch].unsqueeze(0)) for batch in batches]
    found = [total_correlation(each, 2000)[1].mean() for each in terms]
    assert torch.stack(found).mean().item() == pytest.approx(truth[1].item(), rel=0.1)


def test_a_batch_of_one_example_has_no_aggregate() -> None:
    terms = terms_from(double(1, 3), torch.ones(1, 3).double(), double(2, 1, 3))
    assert beta_tcvae(terms, 10, 4.0).isfinite().all()
    assert info_vae(terms, 0.5).isfinite().all()


def test_the_discrepancy_is_unbiased_and_tells_apart() -> None:
    same = torch.stack([mmd(double(40, 3), double(40, 3)) for _ in range(300)])
    assert abs(same.mean()) < 4 * same.std() / 300**0.5
    assert mmd(double(300, 3), 1 + double(300, 3)) > 0.05


def test_info_vae_at_its_ends() -> None:
    terms = vae_terms()
    torch.testing.assert_close(info_vae(terms, alpha=0.0, weight=1.0), elbo(terms))
    code = VAE(latent_dim=4, hidden=(8,), posterior="dirac", objective=Mmd(beta=0.0)).build(GREY).double()
    assert info_vae(code().terms(examples(GREY, 6)), alpha=1.0).shape == (6,)


def test_what_is_not_defined_is_refused() -> None:
    full = VAE(latent_dim=4, hidden=(8,), posterior="cholesky").build(GREY).double()
    with pytest.raises(ObjectiveError, match="independent Gaussian"):
        beta_tcvae(full().terms(examples(GREY, 6)), 100)
    plain = Autoencoder(latent_dim=4, hidden=(8,)).build(GREY).double()().terms(examples(GREY, 6))
    for objective in (lambda t: free_bits(t, 1.0), lambda t: capacity(t, 1.0), info_vae):
        with pytest.raises(ObjectiveError):
            objective(plain)


@pytest.mark.parametrize(("group", "sizes"), [(1, [1, 1, 1, 1, 1]), (2, [2, 2, 1]), (5, [5]), (0, [5])])
def test_free_bits_of_groups_of_dimensions(group: int, sizes: list[int]) -> None:
    terms = VAE(latent_dim=5, hidden=(8,)).build(GREY).double()().terms(examples(GREY, 6))
    kl, nats = terms.latents[0].kl().mean(0), 0.2
    cost = sum(max(nats, part.sum().item()) for part in kl.split(sizes))
    expected = reconstruction(terms).mean().item() - cost
    assert free_bits(terms, nats, group=group).mean().item() == pytest.approx(expected)

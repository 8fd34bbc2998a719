"""Objectives are functions of terms: one number per example, in nats, bounds in the order that theory gives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.nn import functional as F

from instances import double, examples, linear_gaussian, within_error
from tightbound.data import DataSpec
from tightbound.errors import ObjectiveError
from tightbound.models import LatentVariableModel, Terms
from tightbound.networks import LinearWithConstant
from tightbound.objectives import elbo, iwae, reconstruction
from tightbound.posteriors import DiagonalGaussian
from tightbound.priors import StandardNormal
from tightbound.recipes import VAE, Autoencoder

SPEC = DataSpec("x", (4,), levels=None)
GREY = DataSpec("grey", (1, 28, 28), levels=256)


def inexact_model() -> tuple[LatentVariableModel, MultivariateNormal]:
    """A linear Gaussian model whose diagonal posterior is not the exact one, and the law of x."""
    likelihood = linear_gaussian(SPEC, "shared", latent_dim=2)
    posterior = DiagonalGaussian(LinearWithConstant(SPEC.shape, 2), SPEC.shape)
    model = LatentVariableModel(StandardNormal(2), likelihood, posterior).double()
    linear = next(m for m in likelihood.modules() if isinstance(m, nn.Linear))
    covariance = linear.weight @ linear.weight.T + (2 * likelihood.log_scale).exp() * torch.eye(4).double()
    return model, MultivariateNormal(linear.bias, covariance, validate_args=False)


def terms_of(x: Tensor, k: int = 1) -> Terms:
    return inexact_model()[0]().terms(x, k)


def test_one_number_per_example() -> None:
    terms = terms_of(double(7, 4), k=3)
    for objective in (reconstruction, elbo, iwae):
        assert objective(terms).shape == (7,)


def test_one_importance_sample_is_the_elbo() -> None:
    terms = terms_of(double(7, 4), k=1)
    torch.testing.assert_close(iwae(terms), elbo(terms, analytic=False), rtol=0, atol=1e-12)


def test_iwae_is_the_logarithm_of_the_mean_weight() -> None:
    terms = terms_of(double(7, 4), k=5)
    torch.testing.assert_close(iwae(terms), terms.log_weights.exp().mean(0).log())


def test_bounds_tighten_with_k_and_stay_below() -> None:
    model, px = inexact_model()
    x = double(1, 4).expand(20_000, 4)  # as many estimates for one example
    exact = px.log_prob(x[0]).item()
    bounds = [iwae(model().terms(x, k)).detach() for k in (1, 2, 8, 64)]
    means = [bound.mean().item() for bound in bounds]
    errors = [bound.std().item() / len(bound) ** 0.5 for bound in bounds]
    assert means[0] < exact - 0.2, "the posterior is exact: nothing is tested"
    for i in range(3):
        assert means[i + 1] > means[i] - 4 * math.hypot(errors[i], errors[i + 1])
    for mean, error in zip(means, errors, strict=True):
        assert mean <= exact + 4 * error
    assert means[-1] > means[0]
    assert abs(means[-1] - exact) < 0.2 * abs(means[0] - exact)


def test_weights_are_unbiased() -> None:
    model, px = inexact_model()
    x = double(3, 4)
    weights = model().terms(x, 200_000).log_weights.detach().exp()
    assert within_error(weights, px.log_prob(x).exp().detach())


def test_the_elbo_misses_the_likelihood_by_the_kl_to_the_exact_posterior() -> None:
    model, px = inexact_model()
    x = double(3, 4)
    linear = next(m for m in model.likelihood.modules() if isinstance(m, nn.Linear))
    likelihood_precision = (-2 * model.likelihood.log_scale).exp()  # pyright: ignore
    precision = torch.eye(2).double() + likelihood_precision * linear.weight.T @ linear.weight
    mean = likelihood_precision * (x - linear.bias) @ linear.weight @ torch.linalg.inv(precision)
    exact = MultivariateNormal(mean, precision_matrix=precision, validate_args=False)
    q = model.posterior(x)
    diagonal = MultivariateNormal(q.mean, torch.diag_embed(q.variance), validate_args=False)
    gap = torch.distributions.kl_divergence(diagonal, exact)
    terms = model().terms(x, 100_000)
    per_sample = terms.log_likelihood - terms.kl(analytic=True)
    assert within_error(per_sample.detach(), (px.log_prob(x) - gap).detach())


def test_analytic_and_sampled_kl_agree_in_the_mean() -> None:
    terms = terms_of(double(3, 4), k=100_000)
    assert terms.latents[0].analytic
    sampled = (terms.log_posterior - terms.log_prior).detach()
    assert within_error(sampled, terms.kl(analytic=True).detach())
    torch.testing.assert_close(terms.kl(analytic=False), sampled.mean(0))
    torch.testing.assert_close(terms.kl(None), terms.kl(True), rtol=0, atol=0)


def test_analytic_kl_does_not_depend_on_the_samples() -> None:
    model, x = inexact_model()[0], double(3, 4)
    assert torch.equal(model().terms(x, 2).kl(), model().terms(x, 5).kl())


@pytest.mark.parametrize("analytic", [True, False, None])
def test_beta_weights_the_kl_alone(analytic: bool | None) -> None:
    terms = terms_of(double(7, 4), k=3)
    torch.testing.assert_close(elbo(terms, 0.0, analytic=analytic), reconstruction(terms))
    for beta in (0.5, 1.0, 4.0, torch.tensor(2.0).double()):
        expected = reconstruction(terms) - beta * terms.kl(analytic)
        torch.testing.assert_close(elbo(terms, beta, analytic=analytic), expected)


def test_more_samples_are_the_mean_over_samples() -> None:
    terms = terms_of(double(7, 4), k=3)
    torch.testing.assert_close(reconstruction(terms), terms.log_likelihood.sum(0) / 3)


def test_the_sign() -> None:
    """Of discrete data the bounds are negative: log-probabilities."""
    model = VAE(latent_dim=2, hidden=(8,)).build(DataSpec("grey", (1, 4, 4), levels=17)).double()
    terms = model().terms(examples(DataSpec("grey", (1, 4, 4), levels=17), 6), k=3)
    for objective in (reconstruction, elbo, iwae):
        assert (objective(terms) < 0).all()
    assert (terms.kl() >= 0).all()
    assert (elbo(terms) < reconstruction(terms)).all()


def test_the_loss_of_pytorchs_example() -> None:
    """Binary cross-entropy summed over the batch, plus the KL of (mu, log variance), as in pytorch/examples."""
    model = VAE(latent_dim=20, hidden=(400,), likelihood="bernoulli").build(GREY).double()
    x = examples(GREY, 16)
    torch.manual_seed(3)
    ours = -elbo(model().terms(x)).sum()
    features = model.posterior.network(x)  # pyright: ignore
    mu, log_std = features.chunk(2, dim=1)
    logvar = 2 * log_std
    torch.manual_seed(3)
    z = mu + torch.exp(0.5 * logvar) * torch.randn(1, *mu.shape, dtype=torch.float64)[0]
    recon_x = torch.sigmoid(model.likelihood.network(z))  # pyright: ignore
    BCE = F.binary_cross_entropy(recon_x, x.view(-1, 784), reduction="sum")
    KLD = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    torch.testing.assert_close(ours, BCE + KLD, rtol=0, atol=1e-8 * 16)
    assert abs((ours - BCE - KLD) / ours) < 1e-10


def test_an_autoencoder_has_a_reconstruction_and_nothing_else() -> None:
    model = Autoencoder(latent_dim=2, hidden=(8,)).build(SPEC).double()
    terms = model().terms(double(5, 4))
    assert reconstruction(terms).shape == (5,)
    with pytest.raises(ObjectiveError, match="reconstruction"):
        elbo(terms)
    with pytest.raises(ObjectiveError, match="reconstruction"):
        iwae(terms)

"""Every prior gives latents of its shape, for a condition or none."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from instances import CONDITION, GREY, LATENT, PRIORS, condition, double, within_error
from tightbound import checkpoint
from tightbound.distributions import MixtureOfGaussians, Pushed, has_density
from tightbound.errors import ObjectiveError
from tightbound.models import Marginal
from tightbound.networks import MLP
from tightbound.posteriors import CholeskyGaussian, DiagonalGaussian, DiracPosterior
from tightbound.priors import StandardNormal, VampPrior
from tightbound.recipes import VAE


@pytest.fixture(params=PRIORS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("condition_dim", [0, CONDITION], ids=["no-condition", "condition"])
def test_shapes(name: str, condition_dim: int) -> None:
    p = PRIORS[name](condition_dim)(condition(5, condition_dim))
    batch = (5,) if condition_dim else ()
    assert p.batch_shape == batch
    for sample_shape in ((), (3,), (3, 4)):
        assert p.sample(sample_shape).shape == (*sample_shape, *batch, LATENT)
    z = double(3, 5, LATENT)
    assert (p.lower_bound(z) if isinstance(p, Marginal) else p.log_prob(z)).shape == (3, 5)


def test_says_whether_its_density_is_exact(name: str) -> None:
    p = PRIORS[name](0)()
    assert has_density(p) != isinstance(p, Marginal)


def test_precision(name: str) -> None:
    assert PRIORS[name](0)().sample().dtype == torch.float64
    assert PRIORS[name](0).float()().sample().dtype == torch.float32


def test_the_standard_normal_is_standard() -> None:
    p = StandardNormal(LATENT).double()()
    z = double(7, LATENT)
    expected = -0.5 * z.square().sum(-1) - LATENT / 2 * math.log(2 * math.pi)
    torch.testing.assert_close(p.log_prob(z), expected)
    z = p.sample((20_000,))
    assert within_error(z, 0.0)
    assert within_error(z.square(), 1.0)


def test_the_standard_normal_has_nothing_to_learn_or_to_save() -> None:
    assert list(StandardNormal(3).parameters()) == []
    assert StandardNormal(3).state_dict() == {}


@pytest.mark.parametrize("prior", [p for p in PRIORS if p != "latent-variable model"])
def test_densities_integrate_to_one_and_samples_have_their_moments(prior: str) -> None:
    p = PRIORS[prior](0)()
    wide = MultivariateNormal(torch.zeros(LATENT).double(), 6 * torch.eye(LATENT).double(), validate_args=False)
    z = wide.sample((50_000,))
    assert within_error((p.log_prob(z) - wide.log_prob(z)).exp(), 1.0)
    drawn = p.sample((50_000,))
    if isinstance(p, Pushed):  # of 64 draws
        assert ((drawn.mean(0) - p.mean).abs() < 5 * drawn.std(0) / 8).all()
        return
    assert within_error(drawn, p.mean)
    assert within_error((drawn - p.mean).square(), p.variance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_mixture_by_products_is_torchs_mixture(dtype: torch.dtype) -> None:
    logits, mean, log_std = torch.randn(20), 10 * (2 * torch.rand(20, 5) - 1), math.log(0.05) * torch.rand(20, 5)
    logits, mean, log_std = logits.double(), mean.double(), log_std.double()
    factors = Independent(Normal(mean, log_std.exp()), 1)
    theirs = MixtureSameFamily(Categorical(logits=logits), factors)
    z = torch.cat([theirs.sample((200,)), 10 * double(50, 5)])
    ours = MixtureOfGaussians(logits.to(dtype), mean.to(dtype), log_std.to(dtype)).log_prob(z.to(dtype)).double()
    if dtype == torch.float64:
        torch.testing.assert_close(ours, theirs.log_prob(z), rtol=1e-9, atol=1e-8)
    else:  # the products cancel: to a few hundredths of a nat where a naive sum loses a ten-thousandth
        assert (ours - theirs.log_prob(z))[:200].abs().max() < 0.1


def test_a_measured_mixture_is_exact_for_narrow_components_too() -> None:
    mean, log_std = torch.randn(20, 5), torch.full((20, 5), math.log(3e-3))
    z = mean[:10] + 3e-3 * torch.randn(10, 5)
    theirs = MixtureSameFamily(Categorical(torch.ones(20).double()), Independent(Normal(mean.double(), 3e-3), 1))
    with torch.no_grad():
        ours = MixtureOfGaussians(torch.zeros(20), mean, log_std).log_prob(z)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), theirs.log_prob(z.double()), rtol=0, atol=1e-4)


@pytest.mark.parametrize("full", [False, True])
def test_a_vamp_prior_is_one_mixture_over_whole_vectors_of_posteriors_encoded_once(full: bool) -> None:
    encoded = 0

    class Counted(MLP):
        def forward(self, x: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
            nonlocal encoded
            encoded += 1
            return super().forward(x, c)

    if full:
        posterior = CholeskyGaussian(Counted(GREY.shape, LATENT + 6, (7,)), GREY.shape, LATENT)
    else:
        posterior = DiagonalGaussian(Counted(GREY.shape, 2 * LATENT, (7,)), GREY.shape)
    prior = VampPrior(posterior, torch.rand(4, *GREY.shape)).double()
    p, z = prior(), double(3, 5, LATENT)
    found = p.log_prob(z)
    p.log_prob(z)
    p.sample((10,))
    assert encoded == 1
    members = [posterior(u) for u in prior.pseudo_inputs.unsqueeze(1)]
    expected = torch.stack([q.log_prob(z.reshape(15, 1, LATENT)).reshape(3, 5) for q in members]).logsumexp(0)
    torch.testing.assert_close(found, expected - math.log(4))


def test_pseudo_inputs_start_from_data_and_stay_in_its_range() -> None:
    posterior = DiagonalGaussian(MLP(GREY.shape, 2 * LATENT), GREY.shape)
    prior = VampPrior(posterior, torch.zeros(6, *GREY.shape))
    x = torch.rand(4, *GREY.shape).clamp(0.02, 0.98)
    prior.initialise(x)
    torch.testing.assert_close(prior.pseudo_inputs, torch.cat([x, x[:2]]))
    with torch.no_grad():
        prior.unconstrained.add_(100)
    assert prior.pseudo_inputs.max() <= 1
    free = VampPrior(posterior, torch.zeros(2, *GREY.shape), bounded=False)
    free.initialise(5 * x)
    torch.testing.assert_close(free.pseudo_inputs, 5 * x[:2])


def test_a_vamp_prior_shares_the_posterior_in_a_file(tmp_path: Path) -> None:
    model = VAE(latent_dim=LATENT, hidden=(7,), prior="vamp", components=3).build(GREY)
    assert isinstance(model.prior, VampPrior)
    assert model.prior.posterior is model.posterior
    names = checkpoint.tensors_of(model)
    assert not any(name.startswith("prior.posterior") for name in names)
    checkpoint.write(tmp_path / "m.safetensors", names)
    again = VAE(latent_dim=LATENT, hidden=(7,), prior="vamp", components=3).build(GREY)
    checkpoint.load_into(again, checkpoint.read(tmp_path / "m.safetensors"))
    z = torch.randn(5, LATENT)
    assert model.prior is not None
    assert again.prior is not None
    assert torch.equal(model.prior().log_prob(z), again.prior().log_prob(z))


def test_a_mixture_of_point_masses_is_refused() -> None:
    posterior = DiracPosterior(MLP(GREY.shape, LATENT), GREY.shape)
    with pytest.raises(ObjectiveError, match="density"):
        VampPrior(posterior, torch.rand(2, *GREY.shape))()

"""The ELBO taken apart: identities, quadrature, and gaps with closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal, Normal

from instances import linear_gaussian
from tightbound.conditions import Given
from tightbound.data import Data
from tightbound.distributions import Bits, FullGaussian, OneHot, independent
from tightbound.distributions.codes import CodePoint, UniformCodes
from tightbound.errors import CheckpointError, ObjectiveError, UsageError
from tightbound.evaluation import decompose, gaps
from tightbound.evaluation.collapse.decomposition import Decomposition
from tightbound.evaluation.latents.positions import positions_of
from tightbound.models import LatentVariableModel
from tightbound.networks import LinearWithConstant
from tightbound.options.priors import PixelCNNPrior
from tightbound.posteriors import CholeskyGaussian, DiagonalGaussian, ExactLinearGaussian
from tightbound.priors import GaussianMixture, StandardNormal
from tightbound.recipes import VAE, VQVAE, Autoencoder, Stage, TwoStage

DIM = 2


def floats(n: int = 200) -> Data:
    values = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    return Data.from_arrays(values, name="floats", validation=0.1)


FLOATS = floats()


class Codes(nn.Module):
    """A posterior whose mean is a multiple of the first entries of x."""

    def __init__(self, dims: int, factor: float, std: float, full: bool = False) -> None:
        super().__init__()
        self.dims, self.factor, self.std, self.full = dims, factor, std, full
        self.none = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, c: Given | None = None) -> Distribution:
        mean = self.factor * x[:, : self.dims]
        if self.full:
            return FullGaussian(mean, scale_tril=self.std * torch.eye(self.dims).to(mean), validate_args=False)
        return independent(Normal(mean, torch.full_like(mean, self.std), validate_args=False), 1)


def coded(dims: int = DIM, **options: float | bool) -> LatentVariableModel:
    likelihood = linear_gaussian(FLOATS.spec, "shared", latent_dim=dims)
    return LatentVariableModel(StandardNormal(dims), likelihood, Codes(dims, **options)).double()  # pyright: ignore


def test_information_and_mismatch_of_one_dimension_by_quadrature() -> None:
    model, n = coded(1, factor=1.3, std=0.4), 150
    part = FLOATS.train.subset(n)
    mean = 1.3 * part.batch(torch.arange(n)).x.double()[:, :1]
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    density = Normal(mean, 0.4).log_prob(grid).exp().mean(0)
    aggregate = torch.trapezoid(density * (density.log() - Normal(0.0, 1.0).log_prob(grid)), grid)
    information = -torch.trapezoid(density * density.log(), grid) - Normal(0.0, 0.4).entropy()
    parts = [decompose(model, part, seed=seed) for seed in range(30)]
    for name, truth in [("aggregate_kl", aggregate), ("mutual_information", information)]:  # of these examples alone
        values = torch.tensor([getattr(p, name).value for p in parts])
        assert abs(values.mean() - truth) < 4 * values.std() / 30**0.5
    assert parts[0].dimension_wise_kl is not None
    assert parts[0].aggregate_kl is not None
    assert parts[0].dimension_wise_kl[0] == pytest.approx(parts[0].aggregate_kl.value, abs=1e-9)
    assert parts[0].aggregate_kl_at_least is not None
    assert 0 <= parts[0].aggregate_kl_at_least.value < parts[0].aggregate_kl.value


def check_identities(parts: Decomposition) -> None:
    assert parts.kl is not None
    assert parts.aggregate_kl is not None
    whole = parts.mutual_information.value + parts.aggregate_kl.value
    assert parts.kl.value == pytest.approx(whole, abs=1e-9)
    if parts.total_correlation is not None and parts.dimension_wise_kl is not None:
        rest = parts.total_correlation.value + sum(parts.dimension_wise_kl)
        assert parts.aggregate_kl.value == pytest.approx(rest, abs=1e-9)
    assert parts.aggregate_kl_at_least is not None
    other = parts.mutual_information_at_most.value + parts.aggregate_kl_at_least.value
    assert parts.kl.value == pytest.approx(other, abs=1e-9)
    assert 0 <= parts.aggregate_kl_at_least.value <= parts.aggregate_kl.value + 1e-9


@pytest.mark.parametrize("full", [False, True])
def test_the_parts_add_up(full: bool) -> None:
    check_identities(decompose(coded(factor=1.0, std=0.5, full=full), FLOATS.train))


def test_full_and_diagonal_posteriors_that_are_the_same_say_the_same() -> None:
    diagonal, full = (decompose(coded(factor=1.0, std=0.5, full=f), FLOATS.train) for f in (False, True))
    assert diagonal.mutual_information.value == pytest.approx(full.mutual_information.value, abs=0.1)
    assert diagonal.total_correlation is not None
    assert full.total_correlation is None


def test_a_posterior_that_ignores_the_data_tells_nothing() -> None:
    parts = decompose(coded(factor=0.0, std=1.0), FLOATS.train)
    assert parts.mutual_information.value == pytest.approx(0, abs=1e-9)
    assert parts.aggregate_kl is not None
    assert parts.aggregate_kl.value == pytest.approx(0, abs=1e-9)
    assert parts.aggregate_kl_at_least is not None
    assert parts.aggregate_kl_at_least.value == pytest.approx(0, abs=1e-9)
    assert parts.mutual_information_at_most.value == pytest.approx(0, abs=1e-9)


def test_codes_far_apart_tell_as_much_as_the_examples_can_show_and_maybe_more() -> None:
    parts = decompose(coded(factor=1e4, std=0.01), FLOATS.train)
    assert parts.mutual_information.value == pytest.approx(math.log(len(FLOATS.train)), abs=1e-3)
    exact = DIM * 0.5 * math.log1p(1e12)
    assert parts.mutual_information_at_most.value == pytest.approx(exact, abs=0.5)


def test_at_most_so_many_examples_evenly_spread() -> None:
    assert decompose(coded(factor=1.0, std=0.5), FLOATS.train, limit=30).n == 30


@pytest.mark.parametrize("posterior", ["gaussian", "cholesky", "iaf", "spline"])
@pytest.mark.parametrize("prior", ["normal", "mixture", "vamp", "coupling"])
def test_any_posterior_with_any_prior(prior: str, posterior: str) -> None:
    options = {"prior": prior, "posterior": posterior, "components": 3}
    model = VAE(latent_dim=2, hidden=(5,), **options).build(FLOATS.spec).double()  # pyright: ignore
    check_identities(decompose(model, FLOATS.test))


def test_points_have_no_elbo() -> None:
    with pytest.raises(ObjectiveError):
        decompose(Autoencoder(latent_dim=2, hidden=(4,)).build(FLOATS.spec), FLOATS.test)


# -- the gap --------------------------------------------------------------------------------------------------------


def correlated() -> tuple[LatentVariableModel, MultivariateNormal, Tensor]:
    """A linear model whose exact posterior is correlated, the law of x, and the posterior's precision."""
    likelihood = linear_gaussian(FLOATS.spec, "shared", latent_dim=DIM)
    linear = next(m for m in likelihood.modules() if isinstance(m, nn.Linear))
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0.8], [0.9, 1.0], [0.5, 0.6], [1.0, 1.1]]))
        likelihood.log_scale.fill_(-0.5)
    noise = (2 * likelihood.log_scale.double()).exp().detach()
    weight = linear.weight.double().detach()
    px = MultivariateNormal(linear.bias.double().detach(), weight @ weight.T + noise * torch.eye(4).double())
    precision = torch.eye(DIM).double() + weight.T @ weight / noise
    model = LatentVariableModel(StandardNormal(DIM), likelihood, ExactLinearGaussian(likelihood)).double()
    return model, px, precision


def test_the_exact_posterior_has_no_gap() -> None:
    model, _, _ = correlated()
    found = gaps(model, FLOATS.test, steps=0, k=20)
    assert found.total.value == pytest.approx(0, abs=1e-9)


def test_the_best_diagonal_posterior_lacks_what_it_must() -> None:
    model, _, precision = correlated()
    model.posterior = DiagonalGaussian(LinearWithConstant((4,), DIM), (4,)).double()
    found = gaps(model, FLOATS.test, k=2000)
    lacking = 0.5 * (torch.diagonal(precision).log().sum() - torch.logdet(precision))
    assert lacking > 0.5
    assert found.approximation is not None
    assert found.amortisation is not None
    assert found.approximation.value == pytest.approx(lacking.item(), abs=0.03)
    assert found.amortisation.value > 0.1
    both = found.approximation.value + found.amortisation.value
    assert found.total.value == pytest.approx(both, abs=1e-9)


def test_a_full_covariance_closes_the_gap_of_the_family() -> None:
    model, _, _ = correlated()
    model.posterior = CholeskyGaussian(nn.Linear(4, 5), (4,), DIM).double()
    found = gaps(model, FLOATS.test)
    assert found.approximation is not None
    assert abs(found.approximation.value) < 0.02


def test_flows_are_left_in_one_piece() -> None:
    model = VAE(latent_dim=2, hidden=(5,), posterior="iaf").build(FLOATS.spec)
    found = gaps(model, FLOATS.test, limit=5, k=20, steps=3)
    assert found.approximation is None
    assert found.total.value > 0
    assert any("the gap is not split" in note for note in found.notes)


def test_the_model_is_left_as_it_was() -> None:
    model = VAE(latent_dim=2, hidden=(5,)).build(FLOATS.spec)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gaps(model, FLOATS.test, limit=5, k=10, steps=3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert model.training


def test_learned_priors_have_a_gap_too() -> None:
    prior = GaussianMixture(2, 3)
    model = VAE(latent_dim=2, hidden=(5,)).build(FLOATS.spec)
    found = gaps(LatentVariableModel(prior, model.likelihood, model.posterior), FLOATS.test, limit=5, k=50, steps=20)
    assert found.amortisation is not None


def test_what_cannot_be_measured_is_refused() -> None:
    model, _, _ = correlated()
    with pytest.raises(UsageError, match="out of range"):
        gaps(model, FLOATS.test, k=0)


def test_the_gap_of_a_hierarchy_is_not_split() -> None:
    model, _, _ = correlated()
    top = linear_gaussian(FLOATS.spec, "shared", latent_dim=4)
    nested = LatentVariableModel(model, top, Codes(4, 1.0, 1.0)).double()
    found = gaps(nested, FLOATS.test, limit=5, k=5)
    assert found.total.value > 0
    assert (found.approximation, found.amortisation) == (None, None)
    assert "the gap is not split" in found.notes[-1]


class Uniformly(torch.nn.Module):
    def forward(self, c: Given | None = None) -> torch.distributions.Distribution:
        one = torch.ones(2, dtype=torch.float64)
        return independent(torch.distributions.Uniform(-one, one, validate_args=False), 1)


@pytest.mark.parametrize("measured", [decompose, gaps])
def test_weights_and_samples_out_of_range_are_refused(measured: Any) -> None:
    model = VAE(latent_dim=2, hidden=(5,)).build(FLOATS.spec).double()
    outside = LatentVariableModel(Uniformly(), model.likelihood, model.posterior)
    with pytest.raises(ObjectiveError, match="support"):
        measured(outside, FLOATS.test)
    with torch.no_grad():
        next(model.posterior.parameters())[0] = torch.nan
    with pytest.raises(CheckpointError, match="not finite"):
        measured(model, FLOATS.test)


# -- codes, position by position --------------------------------------------------------------------------------------


class Two(nn.Module):
    """A code space of two levels: the codes themselves are the latent."""

    grids, levels = ((1,), (2,)), (3, 4)

    def embed(self, codes: tuple[Tensor, ...]) -> Tensor:
        return torch.cat([level.flatten(1).double() for level in codes], dim=1)


def points(codes: Tensor) -> CodePoint:
    z = codes.double()
    return CodePoint(z, (codes[:, :1], codes[:, 1:]), torch.zeros(len(z)), torch.zeros(len(z)))


def test_certain_codes_tell_their_entropy_and_lie_apart_from_the_uniform_by_the_rest() -> None:
    codes = torch.tensor([[0, 1, 3], [0, 1, 2], [1, 1, 1], [2, 1, 0]])
    space: Any = Two()
    space.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    q = points(codes)
    found = positions_of(q, UniformCodes(space), q.mean)
    assert found is not None
    entropies = torch.tensor([1.5 * math.log(2), 0.0, math.log(4)], dtype=torch.float64)
    torch.testing.assert_close(found.information(), entropies)
    torch.testing.assert_close(found.kl(), torch.tensor([3.0, 4.0, 4.0]).double().log() - entropies)


@pytest.mark.parametrize("n", [5, 50])
def test_what_others_tell_of_the_mismatch_is_below_the_truth_on_average(n: int) -> None:
    torch.manual_seed(0)
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [3.0, 0.0, 0.0, -3.0]]).double()
    truth = (math.log(4) - OneHot(logits).base_dist.entropy()).sum().item()
    sure = []
    for _ in range(400):
        z = OneHot(logits).sample((n,))
        found = positions_of(OneHot((z + 1e-12).log()), OneHot(torch.zeros(2, 4).double()), z)  # each its own code
        assert found is not None
        sure.append((found.held_out(1.0).sum(1) - 2 * math.log(1 / 4)).mean().item())
    mean, error = float(np.mean(sure)), float(np.std(sure)) / math.sqrt(len(sure))
    assert truth - 1.2 * 3 * 2 / n < mean < truth + 3 * error
    assert mean > 0 if n == 50 else True


def test_shares_of_the_others_sum_to_one_and_know_nothing_of_the_example() -> None:
    codes = torch.tensor([0, 0, 1, 2])
    for i, weight in [(0, 1.0), (3, 5.0)]:
        shares = []
        for own in range(4):
            z = torch.nn.functional.one_hot(codes.clone().index_fill_(0, torch.tensor([i]), own), 4).double()[:, None]
            found = positions_of(OneHot((z + 1e-300).log()), OneHot(torch.zeros(1, 4).double()), z)
            assert found is not None
            shares.append(found.held_out(weight)[i, 0].exp().item())
        counts = torch.nn.functional.one_hot(codes, 4).sum(0) - torch.nn.functional.one_hot(codes[i], 4)
        assert shares == pytest.approx(((counts + weight / 4) / (3 + weight)).tolist())
        assert sum(shares) == pytest.approx(1.0)


def test_posteriors_that_agree_tell_nothing_and_bits_are_codes_of_two() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([2.0, -1.0, 0.0]).double().expand(6, 3)
    z = Bits(logits).sample()
    found = positions_of(Bits(logits), Bits(torch.zeros(3).double()), z)
    assert found is not None
    torch.testing.assert_close(found.information(), torch.zeros(3, dtype=torch.float64))
    assert found.codes.tolist() == [2, 2, 2]
    torch.testing.assert_close(found.log_aggregate.sum(1), Bits(logits).log_prob(z))


def test_codes_under_a_prior_of_dependent_positions_have_no_kl_of_each() -> None:
    data = Data.from_arrays(np.random.default_rng(0).integers(0, 2, (60, 8, 8, 1), dtype=np.uint8), name="bits")
    recipe = TwoStage(Stage(VQVAE(codes=4, code_dim=3, channels=(8,), blocks=1)), PixelCNNPrior(layers=1, channels=8))
    parts = decompose(recipe.build(data.spec), data.train)
    assert parts.information_per_dimension is not None
    assert (parts.dimension_wise_kl, parts.total_correlation) == (None, None)
    check_identities(parts)

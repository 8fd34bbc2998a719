"""Distributions over levels are distributions: they sum to one, and their means and samples are those of the sum."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn
from torch.distributions import Distribution, Laplace, MultivariateNormal, Normal, kl_divergence

from instances import double, is_level, within_error
from tightbound.conditions import Given
from tightbound.distributions import (
    Bernoulli,
    CategoricalLevels,
    Conditional,
    Dirac,
    DiscretizedLogistic,
    has_density,
    independent,
    kl_per_dimension,
    require_event_shape,
)
from tightbound.errors import ObjectiveError, ShapeError

NUMBERS_OF_LEVELS = [2, 3, 17, 256]


def logistic(mean: float, log_scale: float) -> Callable[[int, torch.dtype], Distribution]:
    return lambda levels, dtype: DiscretizedLogistic(
        torch.tensor(mean, dtype=dtype), torch.tensor(log_scale, dtype=dtype), levels
    )


def categorical(spread: float) -> Callable[[int, torch.dtype], Distribution]:
    def make(levels: int, dtype: torch.dtype) -> Distribution:
        return CategoricalLevels((spread * torch.linspace(-1, 1, levels, dtype=dtype) ** 3).roll(levels // 3))

    return make


ORDINARY = {
    "logistic in the middle": logistic(0.4, -1.5),
    "logistic at the edge": logistic(1.02, -2.0),
    "wide logistic": logistic(0.3, 1.0),
    "flat categorical": categorical(0.0),
    "categorical": categorical(2.0),
}
EXTREME = {
    "logistic far below": logistic(-30.0, -2.0),
    "logistic far above": logistic(30.0, -2.0),
    "logistic almost a point": logistic(0.5, -12.0),
    "logistic almost flat": logistic(0.5, 12.0),
    "point on a bin's edge": logistic(0.5 / 16, -12.0),
    "categorical almost a point": categorical(80.0),
}


def levels_of(p: Distribution) -> Tensor:
    """Every level, along a new first dimension."""
    n = p.levels  # pyright: ignore[reportAttributeAccessIssue]
    return torch.arange(n, dtype=p.mean.dtype) / (n - 1)


@pytest.mark.parametrize("levels", NUMBERS_OF_LEVELS)
@pytest.mark.parametrize("name", ORDINARY | EXTREME)
def test_levels_sum_to_one(name: str, levels: int) -> None:
    make = (ORDINARY | EXTREME)[name]
    for dtype, tolerance in [(torch.float64, 1e-12), (torch.float32, 2e-5 if name in ORDINARY else 5e-3)]:
        p = make(levels, dtype)
        log_probs = p.log_prob(levels_of(p))
        assert log_probs.dtype == dtype
        assert (log_probs <= 1e-6).all()
        assert abs(log_probs.exp().sum() - 1) < tolerance


@pytest.mark.parametrize("levels", NUMBERS_OF_LEVELS)
@pytest.mark.parametrize("name", ORDINARY | EXTREME)
def test_mean_is_the_sum_over_levels(name: str, levels: int) -> None:
    p = (ORDINARY | EXTREME)[name](levels, torch.float64)
    x = levels_of(p)
    torch.testing.assert_close(p.mean, (p.log_prob(x).exp() * x).sum(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("levels", NUMBERS_OF_LEVELS)
@pytest.mark.parametrize("name", ORDINARY)
def test_samples_are_as_frequent_as_they_are_probable(name: str, levels: int) -> None:
    p, n = ORDINARY[name](levels, torch.float64), 40_000
    samples = p.sample((n,))
    assert samples.shape == (n,)
    assert is_level(samples, levels)
    observed = (samples * (levels - 1)).round().long().bincount(minlength=levels).double()
    expected = n * p.log_prob(levels_of(p)).exp()
    likely = expected > 10
    cells = [torch.cat([v[likely], v[~likely].sum().reshape(1)]) for v in (observed, expected)]
    if cells[1][-1] < 5:  # too rare for a cell of its own
        cells = [torch.cat([v[:1] + v[-1:], v[1:-1]]) for v in cells]
    assert chisquare(cells[0].numpy(), cells[1].numpy() * (n / cells[1].sum().item())).pvalue > 1e-3


@pytest.mark.parametrize("name", ORDINARY | EXTREME)
def test_log_prob_and_its_gradient_are_finite(name: str) -> None:
    p = (ORDINARY | EXTREME)[name](17, torch.float32)
    leaves = [v.requires_grad_() for v in vars(p).values() if isinstance(v, Tensor)]
    log_probs = p.log_prob(levels_of(p).detach())
    log_probs.sum().backward()
    assert log_probs.isfinite().all()
    assert leaves
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


def test_levels_broadcast_with_samples_and_batches() -> None:
    x = torch.randint(17, (4, 1, 3)).double() / 16
    for p in (
        DiscretizedLogistic(double(5, 3), double(3), 17),
        CategoricalLevels(double(5, 3, 17)),
    ):
        assert p.batch_shape == (5, 3)
        assert p.mean.shape == (5, 3)
        assert p.sample((2, 6)).shape == (2, 6, 5, 3)
        log_prob = p.log_prob(x)
        assert log_prob.shape == (4, 5, 3)
        torch.testing.assert_close(log_prob[2], p.log_prob(x[2].expand(5, 3)))


def test_discretized_logistic_is_a_difference_of_sigmoids() -> None:
    mean, log_scale, levels = torch.rand(50).double(), double(50) - 1, 17
    p = DiscretizedLogistic(mean, log_scale, levels)
    for level in range(levels):
        above = torch.sigmoid((level / 16 + 1 / 32 - mean) / log_scale.exp()) if level < 16 else torch.ones(())
        below = torch.sigmoid((level / 16 - 1 / 32 - mean) / log_scale.exp()) if level > 0 else torch.zeros(())
        torch.testing.assert_close(p.log_prob(torch.tensor(level / 16)).exp(), above - below, atol=1e-12, rtol=1e-8)


def test_categorical_is_torchs() -> None:
    logits, level = double(50, 5), torch.randint(5, (50,))
    expected = torch.distributions.Categorical(logits=logits, validate_args=False).log_prob(level)
    torch.testing.assert_close(CategoricalLevels(logits).log_prob(level.double() / 4), expected)


def test_bernoulli_is_torchs() -> None:
    logits = torch.cat([torch.linspace(-60, 60, 121).double(), double(20)])
    reference = torch.distributions.Bernoulli(logits=logits, validate_args=False)
    for value in (torch.zeros(141).double(), torch.ones(141).double(), torch.rand(3, 141).double()):
        torch.testing.assert_close(Bernoulli(logits).log_prob(value), reference.log_prob(value), rtol=1e-12, atol=1e-13)
    assert Bernoulli(logits).sample((3,)).unique().tolist() == [0.0, 1.0]


def test_dirac_is_a_point() -> None:
    value = double(5, 2).requires_grad_()
    p = Dirac(value)
    assert (p.batch_shape, p.event_shape) == ((5,), (2,))
    assert p.rsample((3, 4)).shape == (3, 4, 5, 2)
    assert (p.rsample((3,)) == value).all()
    assert (p.mean == value).all()
    assert (p.mode == value).all()
    assert (p.variance == 0).all()
    p.rsample().sum().backward()
    assert value.grad is not None
    assert not has_density(p)
    with pytest.raises(ObjectiveError, match="no density"):
        p.log_prob(value)


def test_kl_per_dimension_sums_to_the_kl() -> None:
    q = independent(Normal(double(5, 3), double(5, 3).exp(), validate_args=False), 1)
    p = independent(Normal(torch.zeros(3).double(), torch.ones(3).double(), validate_args=False), 1)
    kl = kl_per_dimension(q, p)
    assert kl is not None
    assert kl.shape == (5, 3)
    torch.testing.assert_close(kl.sum(-1), kl_divergence(q, p))
    z = q.sample((40_000,))
    assert within_error(q.log_prob(z) - p.log_prob(z), kl.sum(-1))


def test_kl_of_distributions_that_do_not_factorise_has_one_column() -> None:
    covariance = torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double()
    q = MultivariateNormal(double(5, 2), covariance, validate_args=False)
    p = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double(), validate_args=False)
    kl = kl_per_dimension(q, p)
    assert kl is not None
    torch.testing.assert_close(kl, kl_divergence(q, p).unsqueeze(-1))


def test_kl_without_closed_form_is_none() -> None:
    q = independent(Laplace(torch.zeros(2), torch.ones(2), validate_args=False), 1)
    p = independent(Bernoulli(torch.zeros(2)), 1)
    assert kl_per_dimension(q, p) is None


def test_a_forgotten_independent_is_refused() -> None:
    base = Normal(torch.zeros(5, 2, 3), torch.ones(5, 2, 3), validate_args=False)
    for p in (base, independent(base, 1)):
        with pytest.raises(ShapeError, match="Independent"):
            require_event_shape(p, (2, 3), "likelihood")
    require_event_shape(independent(base, 2), (2, 3), "likelihood")


class _Means(Conditional):
    def distribution(self, features: Tensor) -> Distribution:
        return independent(Normal(features, torch.ones_like(features), validate_args=False), 1)


class _Joined(nn.Module):
    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        assert x.dim() == 3, "a network sees one flat batch"
        flat = x.flatten(1)
        return flat if c is None else torch.cat([flat, c], dim=1)


@pytest.mark.parametrize("leading", [(), (5,), (4, 5), (2, 4, 5), (0,)])
def test_conditionals_flatten_and_restore_what_leads(leading: tuple[int, ...]) -> None:
    p = _Means(_Joined(), (2, 3))
    x = double(*leading, 2, 3)
    torch.testing.assert_close(p(x).mean, x.flatten(-2))
    assert p(x).batch_shape == leading


def test_conditions_go_to_their_examples() -> None:
    p = _Means(_Joined(), (2, 3))
    x, c = double(4, 5, 2, 3), double(5, 2)
    mean = p(x, Given({"vector": c})).mean
    assert mean.shape == (4, 5, 8)
    torch.testing.assert_close(mean[..., :6], x.flatten(-2))
    torch.testing.assert_close(mean[..., 6:], c.expand(4, 5, 2))


@pytest.mark.parametrize("shape", [(5, 3, 2), (5, 7), (3,), ()])
def test_inputs_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="expected"):
        _Means(_Joined(), (2, 3))(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 2), (5, 4, 2)])
def test_conditions_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="condition"):
        _Means(_Joined(), (2, 3))(torch.zeros(4, 5, 2, 3), Given({"vector": torch.zeros(shape)}))


def test_reduced_precision_ends_before_the_density() -> None:
    p = _Means(_Joined(), (2, 3))
    for dtype in (torch.bfloat16, torch.float16):
        assert p(torch.zeros(5, 2, 3, dtype=dtype)).mean.dtype == torch.float32

"""Discrete latents are exact, and their relaxations have the right law, gradient and limits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, OneHotCategorical, kl_divergence

from instances import double, within_error
from tightbound.distributions import kl_per_dimension
from tightbound.distributions.one_hot import Bits, OneHot, exponential, one_hot
from tightbound.distributions.relaxed import RelaxedBernoulli, RelaxedCategorical
from tightbound.errors import ObjectiveError, UsageError
from tightbound.models.latent import Latent, Terms
from tightbound.objectives import elbo, iwae

P, K = 2, 3
DISCRETE: list[Callable[[Tensor], Any]] = [OneHot, Bits]
RELAXED: list[Callable[..., Any]] = [RelaxedCategorical, RelaxedBernoulli]


def event(kind: Any) -> tuple[int, ...]:
    return (P, K) if kind in (OneHot, RelaxedCategorical) else (P + 1,)


def every_value(kind: Any) -> Tensor:
    """All values of the latent, ``(number, *event)``."""
    if event(kind) == (P, K):
        index = torch.tensor(list(itertools.product(range(K), repeat=P)))
        return one_hot(index, torch.zeros(*index.shape, K, dtype=torch.float64))
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=P + 1)), dtype=torch.float64)


@pytest.fixture(params=DISCRETE, ids=lambda kind: kind.__name__)
def discrete(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=RELAXED, ids=lambda kind: kind.__name__)
def relaxed(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_the_probabilities_of_all_values_sum_to_one(discrete: Any) -> None:
    p = discrete(3 * double(5, *event(discrete)))
    masses = p.log_prob(every_value(discrete).unsqueeze(1)).exp()
    torch.testing.assert_close(masses.sum(0), torch.ones(5).double())
    torch.testing.assert_close(-(masses * masses.log()).sum(0), p.entropy())
    values = every_value(discrete)
    torch.testing.assert_close(torch.einsum("vb,v...->b...", masses, values), p.mean)
    torch.testing.assert_close(values[masses.argmax(0)], p.mode)


def test_samples_have_the_probabilities(discrete: Any) -> None:
    p = discrete(2 * double(4, *event(discrete)))
    z = p.sample((20_000,))
    assert z.shape == (20_000, 4, *event(discrete))
    assert z.dtype == torch.float64
    assert not p.has_rsample
    assert set(z.unique().tolist()) == {0.0, 1.0}
    if discrete is OneHot:
        assert (z.sum(-1) == 1).all()
    assert within_error(z, p.mean)
    assert within_error(p.log_prob(z), -p.entropy())


def test_one_hot_vectors_are_torchs() -> None:
    logits = double(5, P, K)
    ours, theirs = OneHot(logits), OneHotCategorical(logits=logits)
    z = theirs.sample()
    torch.testing.assert_close(ours.log_prob(z), theirs.log_prob(z).sum(-1))


def test_the_divergence_is_the_sum_over_all_values(discrete: Any) -> None:
    q, p = (discrete(2 * double(5, *event(discrete))) for _ in range(2))
    values = every_value(discrete).unsqueeze(1)
    log_q, log_p = q.log_prob(values), p.log_prob(values)
    torch.testing.assert_close(kl_divergence(q, p), (log_q.exp() * (log_q - log_p)).sum(0))
    z = q.sample((20_000,))
    assert within_error(q.log_prob(z) - p.log_prob(z), kl_divergence(q, p))


def test_the_divergence_from_a_uniform_prior_is_what_is_missing_of_the_entropy() -> None:
    q = OneHot(3 * double(5, P, K))
    torch.testing.assert_close(kl_divergence(q, OneHot(torch.zeros(P, K).double())), P * math.log(K) - q.entropy())
    q = Bits(3 * double(5, P))
    torch.testing.assert_close(kl_divergence(q, Bits(torch.zeros(P).double())), P * math.log(2) - q.entropy())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_divergence_stays_finite_where_probabilities_round_to_0_or_1(discrete: Any, dtype: torch.dtype) -> None:
    far = torch.zeros(event(discrete), dtype=dtype)
    far[..., 0] = 300.0
    q, p = discrete(far.requires_grad_()), discrete(-far.detach())
    kl = kl_divergence(q, p)
    (gradient,) = torch.autograd.grad(kl, far)
    # One class of K at odds e^300 in q and e^-300 in p, at each position; or one bit.
    expected = P * (300 + math.log(K - 1)) if discrete is OneHot else 300.0
    assert kl.item() == pytest.approx(expected, rel=1e-6)
    assert gradient.isfinite().all()


def test_the_divergence_of_relaxed_latents_is_that_of_the_discrete_ones(relaxed: Any) -> None:
    logits, shape = double(5, *event(relaxed)), event(relaxed)
    q = relaxed(logits, temperature=0.7)
    p = type(q.categorical)(double(*shape))
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(q.categorical, p))
    assert isinstance(q.categorical, OneHot if relaxed is RelaxedCategorical else Bits)
    per_dimension = kl_per_dimension(q, p)
    assert per_dimension is not None
    torch.testing.assert_close(per_dimension.flatten(1).sum(-1), kl_divergence(q, p))
    factors = kl_divergence(q.base_dist, p.base_dist)
    assert factors.shape == (5, shape[0])
    torch.testing.assert_close(factors.sum(-1), kl_divergence(q, p))


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_the_largest_entry_is_a_sample_at_any_temperature(temperature: float, hard: bool) -> None:
    logits = double(3, P, K)
    z = RelaxedCategorical(logits, temperature, hard).rsample((20_000,))
    chosen = one_hot(z.argmax(-1), z)
    assert within_error(chosen, logits.softmax(-1))
    products = chosen[:, :, 0, :, None] * chosen[:, :, 1, None, :]  # the positions are independent
    assert within_error(products, logits[:, 0].softmax(-1)[..., None] * logits[:, 1].softmax(-1)[:, None])
    bits = RelaxedBernoulli(logits[..., 0], temperature, hard).rsample((20_000,))
    assert within_error((bits > 0.5).double(), logits[..., 0].sigmoid())


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_relaxed_samples_have_the_concrete_law(temperature: float) -> None:
    """Of two classes, P(z <= t) = σ(τ logit t - η): what the density of Maddison et al. integrates to."""
    logits = double(4, 1, 2)
    odds = logits[..., 0] - logits[..., 1]
    of_classes = RelaxedCategorical(logits, temperature).rsample((20_000,))[..., 0]
    of_bits = RelaxedBernoulli(odds, temperature).rsample((20_000,))
    for t in (0.05, 0.3, 0.5, 0.9):
        expected = torch.sigmoid(temperature * math.log(t / (1 - t)) - odds)
        assert within_error((of_classes <= t).double(), expected)
        assert within_error((of_bits <= t).double(), expected)


def test_limits_of_the_temperature(relaxed: Any) -> None:
    logits = double(200, *event(relaxed))
    cold = relaxed(logits, 1e-4).rsample()
    near = torch.minimum(cold, 1 - cold)
    assert (near < 1e-3).double().mean() > 0.99
    hot = relaxed(logits, 1e4).rsample()
    middle = 1 / K if relaxed is RelaxedCategorical else 0.5
    assert (hot - middle).abs().max() < 1e-2


def test_straight_through_is_discrete_forwards_and_relaxed_backwards(relaxed: Any) -> None:
    logits, weights = double(5, *event(relaxed)).requires_grad_(), double(7, 5, *event(relaxed))
    z, gradients = {}, {}
    for hard in (False, True):
        torch.manual_seed(1)
        z[hard] = relaxed(logits, 0.6, hard).rsample((7,))
        (gradients[hard],) = torch.autograd.grad((weights * z[hard]).sum(), logits)
    assert set(z[True].unique().tolist()) == {0.0, 1.0}, "exactly, without rounding"
    assert gradients[False].abs().min() > 0
    torch.testing.assert_close(gradients[True], gradients[False], rtol=0, atol=0)
    if relaxed is RelaxedCategorical:
        assert torch.equal(z[True].argmax(-1), z[False].argmax(-1))
        torch.testing.assert_close(z[False].sum(-1), torch.ones(7, 5, P).double())
    else:
        assert torch.equal(z[True], (z[False] > 0.5).double())


def test_the_gradient_is_that_of_the_sample(relaxed: Any) -> None:
    temperature = torch.tensor(0.6).double().requires_grad_()

    def sample(logits: Tensor, temperature: Tensor) -> Tensor:
        torch.manual_seed(1)
        return relaxed(logits, temperature).rsample((2,))

    assert torch.autograd.gradcheck(sample, (double(2, *event(relaxed)).requires_grad_(), temperature))


@pytest.mark.parametrize("hard", [False, True])
def test_noise_at_the_edge_of_its_range_leaves_samples_finite(
    relaxed: Any, hard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tensor, "exponential_", Tensor.zero_)
    assert (exponential((3,), torch.zeros(1)) > 0).all()
    logits = torch.zeros(event(relaxed), requires_grad=True)
    z = relaxed(logits, 0.1, hard).rsample()
    (gradient,) = torch.autograd.grad(z.sum(), logits)
    assert z.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("kind", [*DISCRETE, *RELAXED], ids=lambda kind: kind.__name__)
def test_reduced_precision_ends_here(kind: Any) -> None:
    more = (1.0,) if kind in RELAXED else ()
    with torch.autocast("cpu", torch.bfloat16):
        p = kind(torch.zeros(5, *event(kind), dtype=torch.bfloat16), *more)
        assert p.sample().dtype == torch.float32
        exact = p.categorical if kind in RELAXED else p
        assert kl_divergence(p, exact).dtype == torch.float32


@pytest.mark.parametrize("kind", [*DISCRETE, *RELAXED], ids=lambda kind: kind.__name__)
def test_shapes(kind: Any) -> None:
    more = (0.5, True) if kind in RELAXED else ()
    p = kind(double(*event(kind)), *more)
    assert p.batch_shape == ()
    wide: Distribution = p.expand((4, 5))
    assert type(wide) is kind
    assert wide.batch_shape == (4, 5)
    assert wide.event_shape == event(kind)
    assert wide.sample((3,)).shape == (3, 4, 5, *event(kind))
    assert wide.has_rsample == (kind in RELAXED)
    if kind in RELAXED:
        assert set(wide.sample().unique().tolist()) == {0.0, 1.0}, "still hard"


def test_bits_that_are_as_likely_as_not_have_a_mode() -> None:
    assert Bits(torch.tensor([0.0, 1.0, -1.0])).mode.tolist() == [0.0, 1.0, 0.0]


def test_a_relaxed_latent_has_an_elbo_by_its_closed_form_and_no_importance_weights(relaxed: Any) -> None:
    logits = double(5, *event(relaxed))
    q = relaxed(logits, 0.5)
    p = type(q.categorical)(torch.zeros(event(relaxed)).double())
    terms = Terms(torch.zeros(3, 5), (Latent(q.rsample((3,)), q, p),))
    torch.testing.assert_close(elbo(terms), -kl_divergence(q.categorical, p))
    for refused in (lambda: elbo(terms, analytic=False), lambda: iwae(terms), lambda: q.log_prob(q.sample())):
        with pytest.raises(ObjectiveError, match=r"model\.eval\(\)"):
            refused()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_is_positive(relaxed: Any, temperature: float) -> None:
    with pytest.raises(UsageError, match="positive"):
        relaxed(torch.zeros(event(relaxed)), temperature)


def test_the_divergence_is_kept_for_each_position() -> None:
    q, p = OneHot(torch.randn(5, 2, 3).double()), OneHot(torch.randn(2, 3).double())
    for posterior in (q, RelaxedCategorical(q.logits, 0.5)):
        kl = kl_per_dimension(posterior, p)
        assert kl is not None
        assert kl.shape == (5, 2)
        torch.testing.assert_close(kl.sum(-1), kl_divergence(q, p))

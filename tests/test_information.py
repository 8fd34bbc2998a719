"""The identities of information, over random tables with and without zeros, and over distributions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, MixtureSameFamily, Normal

from tightbound import information as info
from tightbound.errors import ShapeError, UsageError
from tightbound.information import MonteCarlo, cross_entropy, entropy, kl, mutual_information, surprise


def table(*shape: int, zeros: bool = False) -> Tensor:
    values = torch.rand(*shape, dtype=torch.float64)
    if zeros:
        values[..., 0] = 0.0
    return values / values.sum(-1, keepdim=True)


def joint(*shape: int) -> Tensor:
    return table(*shape[:-2], shape[-2] * shape[-1]).unflatten(-1, shape[-2:])


CASES = [(table(4, 6), table(4, 6)), (table(4, 6, zeros=True), table(4, 6)), (table(2), table(2))]


@pytest.mark.parametrize(("p", "q"), CASES)
@pytest.mark.parametrize("unit", ["nats", "bits"])
def test_cross_entropy_is_entropy_and_what_the_wrong_belief_adds(p: Tensor, q: Tensor, unit: Any) -> None:
    torch.testing.assert_close(cross_entropy(p, q, unit), entropy(p, unit) + kl(p, q, unit))
    assert (cross_entropy(p, q, unit) >= entropy(p, unit)).all()
    assert (kl(p, q, unit) > 0).all()
    torch.testing.assert_close(kl(p, p, unit), torch.zeros_like(kl(p, q)))


def test_bits_are_nats_by_ln_two() -> None:
    p, q = table(5), table(5)
    for measured in (cross_entropy, kl):
        torch.testing.assert_close(measured(p, q, "bits"), measured(p, q) / math.log(2))


def test_surprise_adds_where_probabilities_multiply() -> None:
    p, q = torch.rand(2, 10, dtype=torch.float64)
    torch.testing.assert_close(surprise(p * q), surprise(p) + surprise(q))
    assert (surprise(p.sort().values).diff() <= 0).all()
    assert surprise(torch.tensor([0.0, 1.0])).tolist() == [math.inf, 0.0]


def test_the_entropy_is_the_mean_surprise() -> None:
    p = table(7)
    torch.testing.assert_close(entropy(p), (p * surprise(p)).sum())


@pytest.mark.parametrize("n", [2, 5, 64])
def test_nothing_is_more_uncertain_than_a_uniform_choice(n: int) -> None:
    uniform = torch.full((n,), 1 / n, dtype=torch.float64)
    assert entropy(uniform, "bits").item() == pytest.approx(math.log2(n))
    assert (entropy(table(100, n)) < entropy(uniform)).all()
    certain = torch.eye(n, dtype=torch.float64)
    assert (entropy(certain) == 0).all()


def test_the_optimal_code_of_a_dyadic_table() -> None:
    p = torch.tensor([1 / 2, 1 / 4, 1 / 8, 1 / 8])
    lengths = torch.tensor([1, 2, 3, 3])
    assert entropy(p, "bits").item() == pytest.approx((p * lengths).sum().item())
    wrong = torch.full((4,), 1 / 4)
    assert cross_entropy(p, wrong, "bits").item() == pytest.approx(2.0)
    assert kl(p, wrong, "bits").item() == pytest.approx(0.25)


def test_what_is_ruled_out_is_infinitely_surprising() -> None:
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    assert kl(p, q) == math.inf
    assert cross_entropy(p, q) == math.inf
    assert kl(q, p).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("shape", [(3, 4), (5, 2, 6)])
def test_identities_of_mutual_information(shape: tuple[int, ...]) -> None:
    p = joint(*shape)
    x, y = p.sum(-1), p.sum(-2)
    information = mutual_information(p)
    torch.testing.assert_close(information, entropy(x) + entropy(y) - info.joint_entropy(p))
    torch.testing.assert_close(information, entropy(y) - info.conditional_entropy(p))
    torch.testing.assert_close(information, mutual_information(p.mT))
    torch.testing.assert_close(info.joint_entropy(p), entropy(x) + info.conditional_entropy(p))
    assert (information >= 0).all()
    assert (information <= torch.minimum(entropy(x), entropy(y))).all()


def test_independent_things_tell_nothing_and_their_surprises_add() -> None:
    x, y = table(3), table(4)
    p = x.unsqueeze(1) * y
    assert mutual_information(p).item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(info.joint_entropy(p), entropy(x) + entropy(y))


def test_closed_forms_of_distributions() -> None:
    p, q = Normal(torch.tensor(0.5), torch.tensor(2.0)), Normal(torch.tensor(-1.0), torch.tensor(1.0))
    x = p.sample((400_000,))
    for found, mean in [(entropy(p), -p.log_prob(x)), (cross_entropy(p, q), -q.log_prob(x))]:
        assert isinstance(found, Tensor)
        assert abs(found - mean.mean()) < 4 * mean.std() / len(x) ** 0.5
    assert torch.isclose(torch.as_tensor(cross_entropy(p, q)), torch.as_tensor(entropy(p)) + torch.as_tensor(kl(p, q)))


def test_tables_and_distributions_agree() -> None:
    p, q = table(6), table(6)
    for measured in (kl, cross_entropy):
        torch.testing.assert_close(measured(p, q), measured(Categorical(p), Categorical(q)))
    torch.testing.assert_close(entropy(p, "bits"), entropy(Categorical(p), "bits"))


def test_without_a_closed_form_samples_say_so_with_their_error() -> None:
    def mixture(shift: float) -> Distribution:
        parts = Normal(torch.tensor([-shift, shift]), torch.ones(2))
        return MixtureSameFamily(Categorical(torch.ones(2)), parts)

    p, q = mixture(1.0), mixture(2.0)
    found = [entropy(p), cross_entropy(p, q), kl(p, q)]
    grid = torch.linspace(-12, 12, 100_001)
    density = p.log_prob(grid).exp()
    truths = [-p.log_prob(grid), -q.log_prob(grid), p.log_prob(grid) - q.log_prob(grid)]
    for estimate, values in zip(found, truths, strict=True):
        assert isinstance(estimate, MonteCarlo)
        assert estimate.samples == 10_000
        assert abs(estimate.value - torch.trapezoid(density * values, grid)) < 4 * estimate.standard_error


def test_bad_input_is_refused() -> None:
    with pytest.raises(UsageError, match="must sum to one"):
        entropy(torch.tensor([0.5, 0.6]))
    with pytest.raises(UsageError, match="must sum to one"):
        kl(torch.tensor([1.5, -0.5]), torch.tensor([0.5, 0.5]))
    with pytest.raises(ShapeError, match="different events"):
        kl(table(3), table(4))
    with pytest.raises(ShapeError, match="two dimensions"):
        mutual_information(table(3))
    with pytest.raises(UsageError, match="between 0 and 1"):
        surprise(torch.tensor([1.2]))
    with pytest.raises(UsageError, match="Unknown unit"):
        entropy(table(3), "hartleys")  # pyright: ignore
    with pytest.raises(UsageError, match="two tables or two distributions"):
        kl(table(2), Bernoulli(torch.tensor(0.5)))  # pyright: ignore


def test_a_distributions_surprise_is_what_it_says_of_a_value() -> None:
    p = Normal(torch.zeros(()).double(), torch.ones(()).double())
    expected = 0.5 * math.log(2 * math.pi) + 0.5
    assert surprise(p, of=torch.ones(()).double()).item() == pytest.approx(expected)
    assert surprise(p, "bits", of=torch.ones(()).double()).item() == pytest.approx(expected / math.log(2))
    with pytest.raises(UsageError, match="needs a value"):
        surprise(p)  # pyright: ignore[reportArgumentType, reportCallIssue]

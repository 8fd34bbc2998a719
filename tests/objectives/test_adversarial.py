"""The losses of two players in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tightbound.objectives.adversarial import GAMES, hinge, lecam, non_saturating, r1


def grid(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(len(values), 1, 1, 1)


def test_the_hinge_is_zero_beyond_its_margin_and_one_for_a_coin() -> None:
    assert torch.equal(hinge(grid(1.0, 5.0), grid(-1.0, -2.0)), grid(0, 0).flatten())
    assert torch.equal(hinge(grid(0.0), grid(0.0)), grid(1.0).flatten())
    assert torch.equal(hinge(grid(-2.0), grid(3.0)), grid(3.5).flatten())


def test_cross_entropies_are_those_of_the_probabilities() -> None:
    real, fake = grid(0.3, -1.0), grid(2.0, 0.1)
    p, q = real.sigmoid().flatten(), fake.sigmoid().flatten()
    torch.testing.assert_close(non_saturating(real, fake), -(p.log() + (1 - q).log()) / 2)
    torch.testing.assert_close(GAMES["non-saturating"].generator(fake), -q.log())
    assert non_saturating(grid(0.0), grid(0.0)).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("name", GAMES)
def test_patches_are_averaged_and_examples_are_not(name: str) -> None:
    game = GAMES[name]
    real, fake = torch.randn(2, 3, 1, 4, 5, dtype=torch.float64).unbind(0)
    alone = game.discriminator(real.reshape(-1, 1), fake.reshape(-1, 1))
    torch.testing.assert_close(game.discriminator(real, fake), alone.view(3, -1).mean(1))
    assert game.generator(fake).shape == (3,)


@pytest.mark.parametrize("name", GAMES)
def test_the_best_discriminator_of_two_densities_is_known(name: str) -> None:
    """The sign of p - q for the hinge; ln p / q for the cross-entropy."""
    p, q = torch.tensor([0.7, 0.2, 0.1]).double(), torch.tensor([0.1, 0.3, 0.6]).double()
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([logits], 0.1)
    for _ in range(4000):
        each = logits.view(3, 1)
        losses = [
            weight * GAMES[name].discriminator(*pair).sum()
            for weights, of_real in ((p, True), (q, False))
            for i, weight in enumerate(weights)
            for pair in [_only(each[i : i + 1], of_real)]
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
    expected = (p - q).sign() if name == "hinge" else (p / q).log()
    torch.testing.assert_close(logits.detach(), expected, rtol=0.05, atol=0.02)


def _only(logit: torch.Tensor, of_real: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """A pair of logits of which only one counts: the other is beyond any margin."""
    sure = torch.full_like(logit, 40.0).detach()
    return (logit, -sure) if of_real else (sure, logit)


def test_lecam_pulls_logits_to_the_average_of_the_other_kind() -> None:
    real, fake = grid(2.0, -3.0), grid(-2.0, 1.0)
    found = lecam(real, fake, torch.tensor(0.5), torch.tensor(-0.5))
    assert found.tolist() == [2.5**2 + 2.5**2, 0.0]


def test_r1_is_half_the_squared_slope() -> None:
    """Of a linear discriminator: its weights; of a quadratic one: the data."""
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    linear = nn.Linear(12, 1).double()
    (slope,) = torch.autograd.grad(linear(x.flatten(1)).sum(), x, create_graph=True)
    torch.testing.assert_close(r1(slope), linear.weight.square().sum().expand(4) / 2)
    (slope,) = torch.autograd.grad(x.square().sum() / 2, x, create_graph=True)
    r1(slope).sum().backward()
    torch.testing.assert_close(x.grad, x.detach())

"""Every prior gives latents of its shape, for a condition or none."""

from __future__ import annotations

import math

import pytest
import torch

from instances import CONDITION, LATENT, PRIORS, condition, double, within_error
from tightbound.distributions import has_density
from tightbound.models import Marginal
from tightbound.priors import StandardNormal


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

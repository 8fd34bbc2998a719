"""What a diffusion model computes in training: weighted errors, and the bound that is reported and selects."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..objectives.bounds import elbo, reconstruction
from ..objectives.rows import rows
from ..options.direct import DiffusionBound
from .model import DRAWS, Diffused, Diffusion
from .weights import weight

__all__ = ["training_rows"]


@rows.register
def training_rows(o: DiffusionBound, px: Diffused, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    """The rows of :data:`~tightbound.objectives.rows.ROWS`, ``(4, n)`` nats.

    In training the bound comes from the same noise as the objective; in validation it has times of its own.

    Args:
        o: The weight of each noise level.
        px: The distribution of a diffusion model.
        x: The batch.
        beta: Not used.
        examples: Not used.
    """
    if not px.model.training:
        terms = px.terms(x, DRAWS)
        bound = elbo(terms)
        return torch.stack([bound, bound, reconstruction(terms), terms.kl()])
    model, u = px.model, px.model.units(x)
    t, density = model.times.draw(len(u), u.device, u.dtype)
    chain = model.trained_bound
    gamma, rate = chain.levels(t)
    noise = torch.randn_like(u)
    error, factor = chain.error(u, gamma, noise, px.c), weight(o.weight, gamma, rate, model.moments.spread)
    spent, nats = (each / 2 * error - chain.control(gamma, each, noise) for each in (rate, factor))
    model.times.learn(t, nats.detach())
    objective = -_judged(model, gamma, nats) / density + model.schedule.variance_gradient(t, spent)
    with torch.no_grad():
        kl = model.bound.prior(u) + spent / density
        likelihood = chain.reconstruction(u, torch.randn_like(u)) - model.log_volume
    return torch.stack([objective, likelihood - kl, likelihood, kl])


def _judged(model: Diffusion, gamma: Tensor, nats: Tensor) -> Tensor:
    """The weighted error of each example; or its negative log-likelihood, if its variance is learned."""
    if model.uncertainty is None:
        return nats
    log_variance = model.uncertainty(gamma)
    return nats * (-log_variance).exp() + math.prod(model.shape) / 2 * log_variance

"""What a prior by diffusion learns from all latents before training: their mean and deviation, and its least noise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..data import Split
from ..diffusion.latent_prior import DiffusionPrior
from ..options.priors import DiffusionPrior as DiffusionOptions
from ..options.priors import SecondPrior
from ..posteriors import Encoded
from ..runtime.randomness import fixed_noise

__all__ = ["resolved", "whiten"]

CHUNK = 4096
SPACINGS = 7.0
"""By how much the first noise is smaller than the least deviation of a posterior."""
LEAST_GAMMA = -12.0
"""Of latents without a known deviation."""


def resolved(prior: SecondPrior, train: Split, kept: Encoded) -> SecondPrior:
    r"""The options with their automatic first gamma set, :math:`2 \ln(\sigma_q / 7 s)`.

    :math:`\sigma_q` is the least mean deviation of a posterior's dimension, s the deviation of all latents in it.

    Args:
        prior: The options of a prior.
        train: The encoded training examples.
        kept: How they are stored.
    """
    if not isinstance(prior, DiffusionOptions) or prior.first_gamma != "auto":
        return prior
    own = [kept.of(part).deviations for part in _parts(train)]
    known = [each.double().mean(0) for each in own if each is not None]
    if not known:
        return dataclasses.replace(prior, first_gamma=LEAST_GAMMA)
    _, std = _moments(train, kept)
    ratio = (torch.stack(known).mean(0) / std.clamp(min=1e-6)).amin().clamp(1e-4, 1.0).item()
    return dataclasses.replace(prior, first_gamma=round(2 * math.log(ratio / SPACINGS), 2))


def whiten(prior: torch.nn.Module, train: Split, kept: Encoded) -> None:
    """Sets the mean and deviation of a prior by diffusion; others need none.

    Args:
        prior: The prior.
        train: The encoded training examples.
        kept: How they are stored.
    """
    if isinstance(prior, DiffusionPrior):
        prior.whiten(*_moments(train, kept))


def _parts(train: Split) -> Iterator[Tensor]:
    """The first view of every example, in parts."""
    for indices in torch.arange(len(train)).split(CHUNK):
        yield train.batch(indices, "cpu").x[:, 0]


def _moments(train: Split, kept: Encoded) -> tuple[Tensor, Tensor]:
    """The mean and standard deviation of the latents of the first views, from one pass in parts."""
    total, squares, n = 0.0, 0.0, 0
    with fixed_noise():
        for part in _parts(train):
            z = kept.of(part).draw().double()
            total, squares, n = total + z.sum(0), squares + z.square().sum(0), n + len(z)
    mean = torch.as_tensor(total) / n
    return mean.float(), (torch.as_tensor(squares) / n - mean.square()).clamp(min=0).sqrt().float()

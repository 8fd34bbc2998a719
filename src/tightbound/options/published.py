r"""Objectives with weights as published for latent diffusion, as values.

Published losses sum or average the error of images in [-1, 1]; this project sums nats. The nats of a unit of error are
those of the likelihood at its current scale: 1 / b of a Laplace, 1 / (2 sigma^2) of a Gaussian, so that the two agree
at every step, whatever the scale has become.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..spec import register
from .objectives import Objective

__all__ = ["WIDTH", "PublishedQuantized", "WeakKL"]

WIDTH = 2.0
"""Units of the published error for one unit of images in [0, 1]."""


@register("weak-kl")
@dataclass(frozen=True)
class WeakKL(Objective):
    r"""The error, plus a small weight of the KL: :math:`-\sum_i |x_i - \mu_i| - w \, \mathrm{KL}(q \,\|\, p)`.

    As an ELBO its KL weight is w / b, with the likelihood's scale b of images in [-1, 1].

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022).

    Example:
        >>> WeakKL().warming
        "the KL's weight"
    """

    weight: float = 1e-6
    """Weight of the KL, summed over a latent, against the summed error of images in [-1, 1]."""

    @property
    def warming(self) -> str:
        return "the KL's weight" if self.weight else ""


@register("published-quantized")
@dataclass(frozen=True)
class PublishedQuantized(Objective):
    """Reconstruction, codebook and commitment losses, weighted as between means.

    References:
        Taming Transformers for High-Resolution Image Synthesis (Esser, Rombach and Ommer, 2021).

    Example:
        >>> PublishedQuantized().commitment
        0.25
    """

    codebook: float = 1.0
    """Weight of the codes' mean squared distance from the encoder's output."""
    commitment: float = 0.25
    """Weight of the encoder's mean squared distance from its codes, against the mean error of images in [-1, 1]."""

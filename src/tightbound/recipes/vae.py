"""The variational autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from .continuous import ContinuousRecipe
from .versions import register_version_3

__all__ = ["VAE", "PriorName"]

PriorName = Literal["normal", "diagonal", "mixture", "vamp", "coupling", "spline"]


@register_version_3("vae")
@dataclass(frozen=True)
class VAE(ContinuousRecipe):
    r"""Variational autoencoder: any prior, any posterior, any likelihood.

    .. math:: \log p(x) \ge \mathbb{E}_{q(z \mid x)} \log p(x \mid z) - \mathrm{KL}(q(z \mid x) \,\|\, p(z))

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014).
        Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov, 2016).

    Raises:
        UsageError: If an option is out of range, or the options cannot model the data.

    Example:
        >>> from tightbound.data import DataSpec
        >>> model = VAE(latent_dim=2, hidden=(32,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> sum(p.numel() for p in model.parameters())
        4484
    """

    first_options: ClassVar[tuple[str, ...]] = ("latent_dim", "network")

    prior: PriorName = "normal"
    """p(z): normal, diagonal (learned), mixture of gaussians, vamp (posteriors of pseudo-inputs), coupling or spline
    (flows)."""

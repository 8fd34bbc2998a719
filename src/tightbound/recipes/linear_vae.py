"""The linear VAE: probabilistic PCA with a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..options.objectives import Elbo
from ..options.parts import Scale, require_sizes
from ..options.priors import LatentSpace
from ..options.remedies import Remedy
from ..spec import register
from .base import Recipe

__all__ = ["LinearVAE"]


@register("linear-vae")
@dataclass(frozen=True)
class LinearVAE(Scale, Recipe):
    r"""Linear VAE: a linear Gaussian decoder, whose optimum is probabilistic PCA.

    .. math:: p(x \mid z) = \mathcal{N}(W z + b, \sigma^2 I), \qquad p(x) = \mathcal{N}(b, W W^\top + \sigma^2 I)

    With the exact posterior the ELBO is :math:`\log p(x)` itself; with a diagonal one they are equal at the optimum,
    where the columns of :math:`W` are orthogonal.

    References:
        Probabilistic Principal Component Analysis (Tipping and Bishop, 1999).
        Don't Blame the ELBO! A Linear VAE Perspective on Posterior Collapse (Lucas, Tucker, Grosse and Norouzi, 2019).

    Raises:
        UsageError: If an option is out of range.

    Example:
        >>> from tightbound.data import DataSpec
        >>> model = LinearVAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> sorted(name for name, _ in model.named_parameters())[0]
        'likelihood.log_scale'
    """

    latent_space: ClassVar[LatentSpace] = "vector"
    first_options: ClassVar[tuple[str, ...]] = ("latent_dim", "posterior")
    remedies: ClassVar[tuple[Remedy, ...]] = (
        Remedy("exact posterior", "use the exact posterior", lambda o: {"posterior": "exact"}),
    )

    latent_dim: int = 10
    """Size of the latent vector z."""
    posterior: Literal["exact", "gaussian"] = "exact"
    """q(z given x): the exact one, a function of W and the variance, or a diagonal Gaussian with a linear mean."""
    scale: Literal["shared", "per-dimension"] = "shared"
    """One learned variance for all entries (probabilistic PCA), or one for each (factor analysis)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(latent_dim=self.latent_dim)

    @property
    def training_objective(self) -> Elbo:
        """With the exact posterior the sampled KL gives a bound without variance; the analytic KL does not."""
        return Elbo(divergence="monte-carlo" if self.posterior == "exact" else "auto")

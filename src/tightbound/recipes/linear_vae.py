"""The linear VAE: probabilistic PCA with a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..options.data_spec import DataSpec
from ..spec import register
from .base import Recipe, check_sizes

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.latent import LatentVariableModel, Terms

__all__ = ["LinearVAE"]


@register("linear-vae")
@dataclass(frozen=True)
class LinearVAE(Recipe):
    r"""Linear VAE: a linear Gaussian decoder, whose optimum is probabilistic PCA.

    .. math:: p(x \mid z) = \mathcal{N}(W z + b, \sigma^2 I), \qquad p(x) = \mathcal{N}(b, W W^\top + \sigma^2 I)

    With the exact posterior the ELBO is :math:`\log p(x)` itself; with a diagonal one it reaches it at the optimum,
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

    first_options: ClassVar[tuple[str, ...]] = ("latent_dim", "posterior")

    latent_dim: int = 10
    """Size of the latent vector z."""
    posterior: Literal["exact", "gaussian"] = "exact"
    """q(z given x): the exact one, a function of W and the variance, or a diagonal Gaussian with a linear mean."""
    scale: Literal["shared", "per-dimension"] = "shared"
    """One learned variance for all entries (probabilistic PCA), or one for each (factor analysis)."""
    variance: float = 0.5
    """Initial variance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(latent_dim=self.latent_dim)

    def assemble(self, data: DataSpec) -> LatentVariableModel:
        from ..likelihoods import Gaussian
        from ..models.latent import LatentVariableModel
        from ..networks import MLP, LinearWithConstant
        from ..posteriors import DiagonalGaussian, ExactLinearGaussian
        from ..priors import StandardNormal

        decoder = MLP(self.latent_dim, data.dimensions, hidden=())
        likelihood = Gaussian(decoder, (self.latent_dim,), data.shape, self.scale, self.variance)
        if self.posterior == "exact":
            posterior = ExactLinearGaussian(likelihood)
        else:
            posterior = DiagonalGaussian(LinearWithConstant(data.shape, self.latent_dim), data.shape)
        return LatentVariableModel(StandardNormal(self.latent_dim), likelihood, posterior)

    def training_objective(self, terms: Terms, beta: float | Tensor, examples: int) -> Tensor:
        from ..objectives import elbo

        return elbo(terms, beta, analytic=self._analytic)

    def bound(self, terms: Terms) -> Tensor:
        from ..objectives import elbo

        return elbo(terms, analytic=self._analytic)

    @property
    def _analytic(self) -> bool | None:
        """With the exact posterior the Monte Carlo estimate has no variance, the analytic one has."""
        return False if self.posterior == "exact" else None

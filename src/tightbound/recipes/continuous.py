"""What variational autoencoders with continuous latents have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ..errors import UsageError
from ..options.choices import CHOICE
from ..options.objectives import Elbo, LatentObjective
from ..options.parts import DecoderName, Networks, Scale, require_sizes
from ..options.priors import LatentSpace
from .base import Recipe

__all__ = ["ContinuousRecipe", "PosteriorName"]

PosteriorName = Literal["gaussian", "cholesky", "iaf", "spline", "dirac"]


@dataclass(frozen=True)
class ContinuousRecipe(Scale, Networks, Recipe):
    """Abstract: a vector of continuous latents, with any posterior, likelihood and objective."""

    latent_space: ClassVar[LatentSpace] = "vector"

    latent_dim: int = 16
    """Size of the latent vector z."""
    likelihood: DecoderName = "auto"
    """p(x given z); auto: bernoulli for binary data, discretized-logistic for levels, else gaussian (scale shared);
    full-gaussian: small vectors with entries correlated given z; discretized-logistic-mixture: images whose channels
    depend on each other given z; autoregressive: each pixel also depends on those before it (masked convolutions)."""
    posterior: PosteriorName = "gaussian"
    """q(z given x): gaussian (diagonal), cholesky (full covariance), iaf or spline (flows); dirac (for mmd)."""
    prior: str = "normal"
    """p(z)."""
    components: int = 100
    """Components of a mixture, or pseudo-inputs of a vamp prior."""
    transforms: int = 2
    """Number of transformations of each flow."""
    objective: LatentObjective = field(default=Elbo(), metadata=CHOICE)
    """The objective to maximise."""
    pixel_layers: int = 3
    """Layers of likelihood autoregressive, each of which sees two pixels further; fewer layers leave more to z."""
    pixel_channels: int = 32
    """Channels of these layers."""
    likelihood_components: int = 5
    """Components of each pixel, for discretized-logistic-mixture."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.objective, LatentObjective):  # such as its name
            raise UsageError(
                "The objective must be an object, not a name.",
                got=repr(self.objective),
                expected="one of tightbound.objectives, such as Elbo(beta=4.0) or Iwae(samples=5)",
            )
        names = ("latent_dim", "hidden", "channels", "components", "transforms", "pixel_layers", "pixel_channels")
        require_sizes(**{name: getattr(self, name) for name in names})
        self._check_that_the_prior_learns()
        if self.posterior == "dirac" and self.objective.needs_density:
            remedy = "Use --objective mmd --beta 0, or recipe autoencoder."
            raise UsageError("The posterior 'dirac' is a point mass and has no KL.", remedy=remedy)

    def _check_that_the_prior_learns(self) -> None:
        if self.objective.draws_prior and self.prior in ("mixture", "vamp"):
            raise UsageError(
                f"This objective trains the prior through its samples, but those of {self.prior!r} have no gradient.",
                remedy="Use --objective elbo, or a prior of normal, diagonal, coupling, spline or conditional.",
            )
        if self.prior == "normal":
            return
        if self.posterior == "dirac":
            remedy = "Use --prior normal, or another posterior."
            raise UsageError("A prior cannot be trained with a point-mass posterior.", remedy=remedy)
        if not self.objective.teaches_prior:
            remedy = "Use --prior normal, or a beta above 0."
            raise UsageError("With a KL weight of 0 the prior is not trained.", remedy=remedy)

    @property
    def training_objective(self) -> LatentObjective:
        return self.objective

r"""The terms of every objective: the likelihood of x, and an entry for each latent.

Convention: ``z`` has shape ``(k, *batch, *latent)`` for k samples of :math:`q(z \mid x, c)`; every log-density is in
nats, summed over its event, one number per sample and example; a divergence is a mean over the k samples.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..distributions import has_density, kl_per_dimension, log_prob_per_dimension, lower_bound
from ..errors import ObjectiveError, UsageError

V = TypeVar("V")

__all__ = ["Entry", "Estimated", "Latent", "Terms", "layer_names", "stacked"]


@dataclass(frozen=True)
class Latent:
    r"""One latent, with its posterior and prior.

    The closed form of the KL is valid only if both depend on the same variables. Below the top of a hierarchy they do
    not: in :math:`p(z_1 \mid z_2)`, :math:`z_2` was sampled given this :math:`z_1`, so only the mean of :math:`\log q -
    \log p` over the samples estimates

    .. math:: \mathbb{E}_{q(z_1 \mid x)\, q(z_2 \mid z_1)} \log q(z_1 \mid x) - \log p(z_1 \mid z_2)

    Args:
        z: Samples of the posterior, of shape ``(k, *batch, *latent)``.
        posterior: :math:`q(z | x, c)`, with batch shape ``batch``, or ``(k, *batch)`` if it depends on samples.
        prior: :math:`p(z | c)`, or None if the model has none.
        name: Name of the layer in a hierarchy.
        paired: Whether posterior and prior depend on the same variables.

    Example:
        >>> from tightbound.distributions import independent
        >>> from torch.distributions import Normal
        >>> q = independent(Normal(torch.ones(5, 2), torch.ones(5, 2)), 1)
        >>> p = independent(Normal(torch.zeros(2), torch.ones(2)), 1)
        >>> Latent(q.sample((3,)), q, p).kl()[0]
        tensor([0.5000, 0.5000])
    """

    z: Tensor
    posterior: Distribution
    prior: Distribution | None
    name: str = "z"
    paired: bool = True
    _memo: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def log_prior(self) -> Tensor:
        """Log p(z), or a bound on it if the prior has no density; ``(k, *batch)``."""
        prior = self._prior()
        return self._remembered("log_prior", lambda: lower_bound(prior, self.z))

    @property
    def log_posterior(self) -> Tensor:
        """Log q(z | x, c), ``(k, *batch)``."""
        return self._remembered("log_posterior", lambda: self.posterior.log_prob(self.z))

    @property
    def bounded(self) -> bool:
        """Whether it has a KL: there is a prior, and the posterior has a density."""
        return self.prior is not None and has_density(self.posterior)

    @property
    def exact(self) -> bool:
        """Whether both densities are exact, as importance weights need."""
        return self.prior is not None and has_density(self.posterior) and has_density(self.prior)

    @property
    def analytic(self) -> bool:
        """Whether the closed form of the KL is used by default."""
        return self.paired and self.prior is not None and self._closed_kl is not None

    def kl(self, analytic: bool | None = None) -> Tensor:
        """KL(q ‖ p) in nats, per dimension ``(*batch, *latent)`` if it factorises, else ``(*batch, 1)``.

        Args:
            analytic: True for the closed form, False for the mean of log q − log p over the samples, None for the
                closed form if there is one; in a hierarchy only the top has one.

        Raises:
            ObjectiveError: If a closed form is requested and there is none, or the posterior has no density.
        """
        if not has_density(self.posterior):
            self.posterior.log_prob(self.z)  # raises with the reason
        if not self.paired:
            return self._log_ratio(analytic)
        closed = None if analytic is False else self._closed_kl
        if closed is None and analytic:
            raise ObjectiveError(
                "No closed form of this KL divergence is registered.",
                got=f"KL({type(self.posterior).__name__} ‖ {type(self.prior).__name__})",
                remedy="Leave `analytic` out, or register one with torch.distributions.kl.register_kl.",
            )
        if closed is None:
            return (self.log_posterior - self.log_prior).mean(0).unsqueeze(-1)
        return closed.mean(0) if self._of_each_sample else closed

    def _log_ratio(self, analytic: bool | None) -> Tensor:
        if analytic:
            raise ObjectiveError(
                f"The KL of {self.name} has no closed form: its prior is given a sample that came from it.",
                got="analytic=True, below the top of a hierarchy",
                remedy="Leave `analytic` out: the closed form is then used at the top, and samples below it.",
            )
        q, p = (log_prob_per_dimension(each, self.z) for each in (self.posterior, self._prior()))
        if q is None or p is None or q.shape != p.shape:
            return (self.log_posterior - self.log_prior).mean(0).unsqueeze(-1)
        return (q - p).mean(0)

    @property
    def _of_each_sample(self) -> bool:
        """Whether the closed form has a sample dimension: the latent depends on samples of another."""
        leading = self.z.dim() - len(self.posterior.event_shape)
        return max(len(d.batch_shape) for d in (self.posterior, self._prior())) == leading

    @property
    def _closed_kl(self) -> Tensor | None:
        return self._remembered("kl", lambda: kl_per_dimension(self.posterior, self._prior()))

    def _remembered(self, name: str, compute: Callable[[], V]) -> V:
        """A value shared by objectives and metrics: computed once, with its gradient."""
        if name in self._memo:  # functools.cached_property takes a lock, which breaks torch.compile
            return self._memo[name]
        value = compute()
        if torch.is_grad_enabled():  # a value without gradients must not be reused by an objective
            self._memo[name] = value
        return value

    def _prior(self) -> Distribution:
        if self.prior is None:
            raise ObjectiveError(
                "The model has no prior, so it has no ELBO and cannot be sampled.",
                remedy="Use objectives.reconstruction, or a recipe with a prior ('vae').",
            )
        return self.prior


@dataclass(frozen=True)
class Estimated:
    """A divergence known only through an unbiased estimate, such as that of a diffusion model's levels.

    Args:
        name: Name of the latent.
        nats: Estimates, ``(*batch, ...)``: averaged over samples, summed over the rest.

    Example:
        >>> Estimated("diffusion", torch.ones(5, 3)).kl().shape, Estimated("diffusion", torch.ones(5, 3)).exact
        (torch.Size([5, 3]), False)
    """

    name: str
    nats: Tensor

    bounded = True
    exact = False
    analytic = False

    def kl(self, analytic: bool | None = None) -> Tensor:
        """The estimates, ``(*batch, ...)`` nats.

        Raises:
            ObjectiveError: If a closed form is requested.
        """
        if analytic:
            raise ObjectiveError(f"The divergence {self.name} is only an estimate.", remedy="Leave `analytic` out.")
        return self.nats


Entry = Latent | Estimated
"""An entry of the terms: a latent with samples and densities, or only an estimate of its divergence."""


@dataclass(frozen=True)
class Terms:
    """The terms of every objective: the likelihood of x, and an entry for each latent.

    Args:
        log_likelihood: log p(x | z, c), ``(k, *batch)``, nats.
        entries: One for each latent, from the one next to the data up, with unique names.
        exact_likelihood: Whether ``log_likelihood`` is exact, not a bound.
        packed: All latents in one vector, if the likelihood takes them so.

    Raises:
        UsageError: If two entries have the same name.

    Example:
        >>> from tightbound.distributions import independent
        >>> from torch.distributions import Normal
        >>> q = independent(Normal(torch.ones(5, 2), torch.ones(5, 2)), 1)
        >>> p = independent(Normal(torch.zeros(2), torch.ones(2)), 1)
        >>> Terms(torch.zeros(3, 5), (Latent(q.sample((3,)), q, p),)).kl()
        tensor([1., 1., 1., 1., 1.])
    """

    log_likelihood: Tensor
    entries: tuple[Entry, ...]
    exact_likelihood: bool = True
    packed: Latent | None = None

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        if len(set(names)) < len(names):
            raise UsageError(
                "Two latents of a model have the same name, so one would hide the other in reports.",
                got=", ".join(names),
                remedy="Name them: LatentVariableModel(..., name='top').",
            )

    @property
    def estimated(self) -> tuple[str, ...]:
        """Names of the latents whose divergence is only estimated."""
        return tuple(entry.name for entry in self.entries if not isinstance(entry, Latent))

    @property
    def latents(self) -> tuple[Latent, ...]:
        """The latents with their samples and distributions.

        Raises:
            ObjectiveError: If an entry is only estimated.
        """
        found = tuple(entry for entry in self.entries if isinstance(entry, Latent))
        if self.estimated:
            raise ObjectiveError(
                "This needs samples and densities of every latent, but some are only estimated.",
                got=", ".join(self.estimated),
                expected="a model whose entries are all Latent",
                remedy="Use objectives.elbo.",
            )
        return found

    @property
    def latent(self) -> Latent:
        """The only latent.

        Raises:
            ObjectiveError: If there are several.
        """
        if len(self.entries) != 1:
            raise ObjectiveError(
                "This needs a model with one latent.",
                got=f"a hierarchy of {', '.join(entry.name for entry in self.entries)}",
                remedy="Use objectives.elbo or objectives.iwae; tightbound.evaluate reports the KL of each layer.",
            )
        return self.latents[0]

    @property
    def joint(self) -> Latent | None:
        """All latents as one variable with a prior of its own; None for a chain, or if an entry is only estimated."""
        if self.packed is not None or self.estimated:
            return self.packed
        return self.latents[0] if len(self.entries) == 1 else None

    @property
    def log_prior(self) -> Tensor:
        """Log p(z | c) of all latents, ``(k, *batch)``, nats."""
        return _sum([latent.log_prior for latent in self.latents])

    @property
    def log_posterior(self) -> Tensor:
        """Log q(z | x, c) of all latents, ``(k, *batch)``, nats."""
        return _sum([latent.log_posterior for latent in self.latents])

    @property
    def log_weights(self) -> Tensor:
        """Log p(x, z | c) − log q(z | x, c), ``(k, *batch)``, nats."""
        return self.log_likelihood + self.log_prior - self.log_posterior

    def kl(self, analytic: bool | None = None) -> Tensor:
        """KL(q ‖ p) summed over all latents and their dimensions, ``(*batch)``, nats."""
        leading = self.log_likelihood.dim() - 1
        return _sum([entry.kl(analytic).flatten(leading).sum(-1) for entry in self.entries])

    @property
    def bounded(self) -> bool:
        """Whether there is an ELBO: every latent has a prior and a posterior with a density."""
        return all(entry.bounded for entry in self.entries)

    @property
    def exact(self) -> bool:
        """Whether all densities are exact, as importance weights need."""
        return self.exact_likelihood and all(entry.exact for entry in self.entries)

    @property
    def inexact(self) -> str:
        """The likelihood and the latents without an exact density, as text."""
        likelihood = () if self.exact_likelihood else ("the likelihood, which is only a bound",)
        return ", ".join((*likelihood, *(entry.name for entry in self.entries if not entry.exact)))


def layer_names(names: Sequence[str]) -> list[str]:
    """Names of the latents of a hierarchy from the data up, with unnamed ones numbered.

    Example:
        >>> layer_names(["z", "z", "style"])
        ['z1', 'z2', 'style']
    """
    return [f"z{i}" if re.fullmatch(r"z\d*", name) else name for i, name in enumerate(names, start=1)]


def stacked(layer: Latent, above: Terms) -> tuple[Entry, ...]:
    """The entries of a latent and of those above it, with unnamed ones numbered from the data up.

    Args:
        layer: The latent next to the data, whose prior is a likelihood given the latents above.
        above: The terms of that latent's samples under the model that is its prior.
    """
    entries = (layer, *above.entries)
    names = layer_names([entry.name for entry in entries])
    return tuple(dataclasses.replace(entry, name=name) for entry, name in zip(entries, names, strict=True))


def _sum(tensors: list[Tensor]) -> Tensor:
    return functools.reduce(operator.add, tensors)

r"""What every objective is made of: the likelihood of x, and an entry for each latent.

Convention: ``z`` has shape ``(k, *batch, *latent)`` for k samples of :math:`q(z \mid x, c)`; every log-density is in
nats, summed over its event, one number per sample and example; a divergence is a mean over the k samples.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..distributions import has_density, kl_per_dimension, log_prob_per_dimension, lower_bound
from ..errors import ObjectiveError, UsageError

V = TypeVar("V")

__all__ = ["Entry", "Estimated", "Latent", "Terms", "stacked"]


@dataclass(frozen=True)
class Latent:
    r"""One latent and the two distributions that meet at it.

    A closed form of the KL is right only where both are given the same variables. Below the top of a hierarchy they
    are not: :math:`q(z_1 \mid x)` meets :math:`p(z_1 \mid z_2)` at a :math:`z_2` that was drawn from this very
    :math:`z_1`, and only the mean of :math:`\log q - \log p` over the samples estimates

    .. math:: \mathbb{E}_{q(z_1 \mid x)\, q(z_2 \mid z_1)} \log q(z_1 \mid x) - \log p(z_1 \mid z_2)

    Args:
        z: Samples of the posterior, of shape ``(k, *batch, *latent)``.
        posterior: :math:`q(z | x, c)`, with batch shape ``batch``, or ``(k, *batch)`` where it is given samples.
        prior: :math:`p(z | c)`, or None where a model has none.
        name: Tells the layers of a hierarchy apart.
        paired: Whether posterior and prior are given the same variables.

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
        """Log p(z), or a bound on it where the prior has no density; ``(k, *batch)``."""
        prior = self._prior()
        return self._remembered("log_prior", lambda: lower_bound(prior, self.z))

    @property
    def log_posterior(self) -> Tensor:
        """Log q(z | x, c), ``(k, *batch)``."""
        return self._remembered("log_posterior", lambda: self.posterior.log_prob(self.z))

    @property
    def bounded(self) -> bool:
        """Whether it has a divergence: there is a prior, and a density of the posterior."""
        return self.prior is not None and has_density(self.posterior)

    @property
    def exact(self) -> bool:
        """Whether both densities are exact, as an importance weight needs."""
        return self.prior is not None and has_density(self.posterior) and has_density(self.prior)

    @property
    def analytic(self) -> bool:
        """Whether the closed form of the KL is used where no choice is made."""
        return self.paired and self.prior is not None and self._closed_kl is not None

    def kl(self, analytic: bool | None = None) -> Tensor:
        """KL(q ‖ p) in nats, per dimension ``(*batch, *latent)`` where it can be told apart, else ``(*batch, 1)``.

        Args:
            analytic: True asks for the closed form, False for the mean of log q − log p over the samples, None for
                the closed form where there is one; in a hierarchy that is its top alone.

        Raises:
            ObjectiveError: If a closed form is asked for and there is none, or the posterior has no density.
        """
        if not has_density(self.posterior):
            self.posterior.log_prob(self.z)  # says why
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
        """Whether the closed form has a dimension for the samples: that of a latent given those of another."""
        leading = self.z.dim() - len(self.posterior.event_shape)
        return max(len(d.batch_shape) for d in (self.posterior, self._prior())) == leading

    @property
    def _closed_kl(self) -> Tensor | None:
        return self._remembered("kl", lambda: kl_per_dimension(self.posterior, self._prior()))

    def _remembered(self, name: str, compute: Callable[[], V]) -> V:
        """A value that objectives and readings share: computed once, with its gradient."""
        if name in self._memo:  # functools.cached_property takes a lock, at which torch.compile stops
            return self._memo[name]
        value = compute()
        if torch.is_grad_enabled():  # without gradients it must not serve an objective later
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
    """A divergence that is known only as an unbiased number, such as that of a diffusion model's levels.

    Args:
        name: Of what.
        nats: Estimates, ``(*batch, ...)``: the mean over samples is taken, the rest is summed.

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
            ObjectiveError: If a closed form is asked for.
        """
        if analytic:
            raise ObjectiveError(f"The divergence {self.name} is an estimate.", remedy="Leave `analytic` out.")
        return self.nats


Entry = Latent | Estimated
"""What one latent costs: known with its samples and densities, or as a number alone."""


@dataclass(frozen=True)
class Terms:
    """What every objective is made of: the likelihood of x, and an entry for each latent.

    Args:
        log_likelihood: log p(x | z, c), ``(k, *batch)``, nats.
        entries: One for each latent, from the one next to the data up, with unique names.
        exact_likelihood: Whether ``log_likelihood`` is one, rather than a bound on it.

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

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        if len(set(names)) < len(names):
            raise UsageError(
                "Two latents of a model have the same name, so what is reported of one would hide the other.",
                got=", ".join(names),
                remedy="Name them: LatentVariableModel(..., name='top').",
            )

    @property
    def latents(self) -> tuple[Latent, ...]:
        """The latents with their samples and distributions.

        Raises:
            ObjectiveError: If an entry has none.
        """
        found = tuple(entry for entry in self.entries if isinstance(entry, Latent))
        if len(found) < len(self.entries):
            raise ObjectiveError(
                "This needs the samples and densities of every latent, and some are only estimated.",
                got=", ".join(entry.name for entry in self.entries if not isinstance(entry, Latent)),
                expected="a model whose entries are all Latent",
                remedy="Use objectives.elbo.",
            )
        return found

    @property
    def latent(self) -> Latent:
        """The one latent.

        Raises:
            ObjectiveError: If there are several.
        """
        if len(self.entries) != 1:
            raise ObjectiveError(
                "This is of models with one latent.",
                got=f"a hierarchy of {', '.join(entry.name for entry in self.entries)}",
                remedy="Use objectives.elbo or objectives.iwae; tightbound.evaluate tells the KL of each layer.",
            )
        return self.latents[0]

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
        """Whether there is an ELBO: a prior everywhere, and a density of every posterior."""
        return all(entry.bounded for entry in self.entries)

    @property
    def exact(self) -> bool:
        """Whether every density in it is exact, as an importance weight needs."""
        return self.exact_likelihood and all(entry.exact for entry in self.entries)


def stacked(layer: Latent, above: Terms) -> tuple[Entry, ...]:
    """The entries of a latent and of those above it, numbered from the data up where they were given no names.

    Args:
        layer: The latent next to the data, whose prior is a likelihood given the latents above.
        above: The terms of that latent's samples under the model that is its prior.
    """
    names = [
        f"z{i}" if re.fullmatch(r"z\d*", entry.name) else entry.name
        for i, entry in enumerate((layer, *above.entries), start=1)
    ]
    entries = (layer, *above.entries)
    return tuple(dataclasses.replace(entry, name=name) for entry, name in zip(entries, names, strict=True))


def _sum(tensors: list[Tensor]) -> Tensor:
    return functools.reduce(operator.add, tensors)

r"""Latent-variable models: conditional distributions built from three others.

.. math:: p(x \mid c) = \int p(z \mid c) \, p(x \mid z, c) \, dz

Convention: ``x`` has shape ``(*batch, *event)`` and ``z`` has shape ``(k, *batch, *latent)`` for k samples of
:math:`q(z \mid x, c)`; every log-density is in nats, summed over its event, one number per sample and example.
"""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.types import _size

from ..distributions import check_event, has_density, kl_per_dimension
from ..errors import ObjectiveError, UsageError
from ..runtime.modes import evaluating

if TYPE_CHECKING:
    from ..options.data_spec import DataSpec
    from ..recipes.base import Recipe

__all__ = ["Latent", "LatentVariableModel", "Marginal", "Terms", "evaluating", "replaced"]


@dataclass(frozen=True)
class Latent:
    """One latent and the two distributions that meet at it.

    Args:
        z: Samples of the posterior, of shape ``(k, *batch, *latent)``.
        posterior: :math:`q(z | x, c)`, with batch shape ``batch``.
        prior: :math:`p(z | c)`, or None where a model has none.
        name: Tells the layers of a hierarchy apart.

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
    _memo: dict[str, Tensor | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def log_prior(self) -> Tensor:
        """Log p(z), or a bound on it where the prior has no density; ``(k, *batch)``."""
        prior = self._prior()
        return self._remembered("log_prior", lambda: getattr(prior, "lower_bound", prior.log_prob)(self.z))

    @property
    def log_posterior(self) -> Tensor:
        """Log q(z | x, c), ``(k, *batch)``."""
        return self._remembered("log_posterior", lambda: self.posterior.log_prob(self.z))

    def kl(self, analytic: bool | None = None) -> Tensor:
        """KL(q ‖ p) in nats, per dimension ``(*batch, *latent)`` where it can be told apart, else ``(*batch, 1)``.

        Args:
            analytic: True asks for the closed form, False for the mean of log q − log p over the samples, None for
                the closed form where there is one.

        Raises:
            ObjectiveError: If a closed form is asked for and there is none, or the posterior has no density.
        """
        if not has_density(self.posterior):
            self.posterior.log_prob(self.z)  # says why
        closed = None if analytic is False else self._closed_kl
        if closed is None and analytic:
            raise ObjectiveError(
                "No closed form of this KL divergence is registered.",
                got=f"KL({type(self.posterior).__name__} ‖ {type(self.prior).__name__})",
                remedy="Leave `analytic` out, or register one with torch.distributions.kl.register_kl.",
            )
        return (self.log_posterior - self.log_prior).mean(0).unsqueeze(-1) if closed is None else closed

    @property
    def analytic(self) -> bool:
        """Whether the closed form of the KL is used where no choice is made."""
        return self.prior is not None and self._closed_kl is not None

    @property
    def _closed_kl(self) -> Tensor | None:
        return self._remembered("kl", lambda: kl_per_dimension(self.posterior, self._prior()))

    def _remembered(self, name: str, compute: Callable[[], Any]) -> Any:
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
class Terms:
    """What every objective is made of: the likelihood of x and, for each latent, its sample, posterior and prior.

    Args:
        log_likelihood: log p(x | z, c), ``(k, *batch)``, nats.
        latents: The latents, from the one next to the data up.

    Example:
        >>> from tightbound.distributions import independent
        >>> from torch.distributions import Normal
        >>> q = independent(Normal(torch.ones(5, 2), torch.ones(5, 2)), 1)
        >>> p = independent(Normal(torch.zeros(2), torch.ones(2)), 1)
        >>> Terms(torch.zeros(3, 5), (Latent(q.sample((3,)), q, p),)).kl()
        tensor([1., 1., 1., 1., 1.])
    """

    log_likelihood: Tensor
    latents: tuple[Latent, ...]

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
        per_dimension = [latent.kl(analytic) for latent in self.latents]
        leading = self.log_likelihood.dim() - 1
        return _sum([kl.flatten(leading).sum(-1) for kl in per_dimension])

    @property
    def bounded(self) -> bool:
        """Whether there is an ELBO: a prior everywhere, and a density of every posterior."""
        return all(has_density(latent.posterior) and latent.prior is not None for latent in self.latents)

    @property
    def exact(self) -> bool:
        """Whether every density in it is exact, as an importance weight needs."""
        return self.bounded and all(has_density(latent.prior) for latent in self.latents if latent.prior)


def _sum(tensors: list[Tensor]) -> Tensor:
    return functools.reduce(operator.add, tensors)


class LatentVariableModel(nn.Module):
    r"""A model :math:`p(x \mid c)` with a latent variable, from any prior, likelihood and posterior.

    Calling it gives the :class:`Marginal`, a light value that samples and gives the terms of every objective. A
    latent-variable model is a conditional distribution, so it can itself be the prior of another.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014).

    Args:
        prior: ``c -> p(z | c)``; None for an autoencoder, which then cannot be sampled.
        likelihood: ``z, c -> p(x | z, c)``.
        posterior: ``x, c -> q(z | x, c)``.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> model = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> model().sample((5,)).shape
        torch.Size([5, 1, 8, 8])
        >>> model().terms(torch.zeros(5, 1, 8, 8), k=3).log_weights.shape
        torch.Size([3, 5])
    """

    recipe: Recipe | None = None
    data_spec: DataSpec | None = None
    prior_only: bool = False
    """Whether a condition reaches the prior alone: that of a second stage, behind parts that know of none."""
    new: bool = False
    """Whether a recipe has just built it: its training then starts it, unless it is given weights before."""
    loaded_weights: str = ""
    """Digest of the weights that a run gave it: what is measured is of these, whatever the run has since."""

    def __init__(self, prior: nn.Module | None, likelihood: nn.Module, posterior: nn.Module) -> None:
        super().__init__()
        self.condition: nn.Module | None = None
        self.prior, self.likelihood, self.posterior = prior, likelihood, posterior

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """Takes over weights, which training then leaves as they are."""
        self.new = False
        return super().load_state_dict(*args, **options)

    def forward(self, c: Tensor | None = None) -> Marginal:
        """The distribution of x given c."""
        return Marginal(self, c)

    def conditions(self, batch: Any) -> Tensor | None:
        """The conditions of a batch of data, ``(n, size)``, where the model is given any."""
        if self.condition is None:
            return None
        c = self.condition(batch)
        return c.to(next(self.parameters()).dtype) if c.is_floating_point() else c

    def given(self, batch: Any) -> Marginal:
        """The distribution of x given the conditions of a batch of data."""
        return self(self.conditions(batch))


def replaced(model: LatentVariableModel, **parts: nn.Module) -> LatentVariableModel:
    """The same model, sharing its parameters and all that is known of it, with other parts under their names.

    Args:
        model: The model, which stays as it is.
        **parts: ``prior``, ``likelihood`` or ``posterior``.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> model = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> other = replaced(model, posterior=nn.Identity())
        >>> other.likelihood is model.likelihood, other.recipe == model.recipe, other.posterior is model.posterior
        (True, True, False)
    """
    other = copy.copy(model)
    other._modules = {**model._modules, **parts}  # pyright: ignore[reportPrivateUsage]
    return other


class Marginal(Distribution):
    r"""The distribution :math:`p(x \mid c)` of a latent-variable model: it can be sampled and bounded, not evaluated.

    Args:
        model: The prior, likelihood and posterior.
        c: Condition, of shape ``(*batch, condition_dim)``, or None.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> bool((px.lower_bound(torch.zeros(5, 1, 8, 8)) < 0).all())
        True
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    support = constraints.real  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    exact_density = False

    def __init__(self, model: LatentVariableModel, c: Tensor | None = None) -> None:
        self.model, self.c = model, c
        self._prior: Distribution | None = None
        event_shape = torch.Size(getattr(model.likelihood, "shape", ()))
        super().__init__(torch.Size() if c is None else c.shape[:-1], event_shape, validate_args=False)

    def posterior(self, x: Tensor) -> Distribution:
        """The posterior of x: what :meth:`terms` makes first, and can be given to make it once for many samples."""
        return self.model.posterior(x, self._beyond_prior)

    def representative(self, x: Tensor) -> Tensor:
        """The one latent that examples ``(n, *shape)`` are encoded to: q's mean, or the most probable codes.

        The mean of a distribution over codes is none of them: a decoder would read from it what no code tells.
        """
        space: Any = self.model.posterior
        if not hasattr(space, "codes_of"):
            return self.posterior(x).mean
        return space.embed(space.codes(x, self._beyond_prior))

    def likelihood(self, z: Tensor) -> Distribution:
        """The distribution of x given z."""
        return self.model.likelihood(z, self._beyond_prior)

    @property
    def _beyond_prior(self) -> Tensor | None:
        return None if self.model.prior_only else self.c

    def prior(self) -> Distribution:
        """The distribution of z.

        Raises:
            ObjectiveError: If the model has none.
        """
        if self.model.prior is None:
            raise ObjectiveError(
                "The model has no prior, so it cannot be sampled.",
                remedy="An autoencoder reconstructs and interpolates; for samples train recipe 'vae'.",
            )
        prior = self.model.prior(self.c) if self._prior is None or torch.is_grad_enabled() else self._prior
        self._prior = None if torch.is_grad_enabled() else prior  # a graph is walked back once
        return prior

    def terms(self, x: Tensor, k: int = 1, posterior: Distribution | None = None, *, pathwise: bool = True) -> Terms:
        """The terms of x, with k samples of the posterior.

        Args:
            x: Data, of shape ``(*batch, *event)``.
            k: How many samples.
            posterior: What :meth:`posterior` gave for this x, if that is known already.
            pathwise: Whether gradients reach the posterior through its samples, where those can be reparameterised;
                the score-function estimator wants samples without.

        Raises:
            ShapeError: If x does not fit the model, or a part gives distributions of the wrong shape.
            UsageError: If k is less than 1.
        """
        if k < 1:
            raise UsageError("At least one sample is needed.", got=f"k = {k}", expected="k >= 1")
        posterior = self.posterior(x) if posterior is None else posterior
        z = posterior.rsample((k,)) if pathwise and posterior.has_rsample else posterior.sample((k,))
        likelihood = self.likelihood(z)
        check_event(likelihood, x.shape[len(posterior.batch_shape) :], "likelihood")
        prior = self.prior() if self.model.prior is not None else None
        if prior is not None and has_density(prior):
            check_event(prior, posterior.event_shape, "prior")
        log_likelihood = likelihood.log_prob(x).expand(k, *posterior.batch_shape)
        return Terms(log_likelihood, (Latent(z, posterior, prior),))

    def generated(self, x: Tensor, k: int = 1, prior: Distribution | None = None, *, pathwise: bool = True) -> Terms:
        """The terms of x with samples of the prior in the posterior's place: what the model predicts with.

        Args:
            x: Data, of shape ``(*batch, *event)``.
            k: How many samples.
            prior: What :meth:`prior` gave, if that is known already.
            pathwise: Whether gradients reach the prior through its samples, where those can be reparameterised.

        Raises:
            ObjectiveError: If the model has no prior.
        """
        prior = self.prior() if prior is None else prior
        batch = x.shape[: x.dim() - len(self.event_shape)]
        drawn = _expanded(prior, batch)
        shape = (k, *batch[: len(batch) - len(drawn.batch_shape)])
        z = drawn.rsample(shape) if pathwise and drawn.has_rsample else drawn.sample(shape)
        return Terms(self.likelihood(z).log_prob(x).expand(k, *batch), (Latent(z, drawn, prior),))

    def lower_bound(self, x: Tensor) -> Tensor:
        """A one-sample estimate of the ELBO of x, ``(*batch)``, nats."""
        return self.terms(x).log_weights.squeeze(0)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Draws z from the prior and x from the likelihood, ``(*sample_shape, *batch, *event)``."""
        with torch.no_grad():
            return self.likelihood(self.sample_latent(sample_shape)).sample()

    def sample_latent(self, sample_shape: _size = ()) -> Tensor:
        """Draws z from the prior, ``(*sample_shape, *batch, *latent)``."""
        return self.prior().sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        raise ObjectiveError(
            "The density of a latent-variable model is an integral without a closed form.",
            remedy="Use `lower_bound(x)`, or `tightbound.evaluate` for an importance-weighted estimate with its error.",
        )


def _expanded(prior: Distribution, batch: torch.Size) -> Distribution:
    """The same prior for each of a batch of examples, or as it is where it cannot be repeated."""
    if prior.batch_shape == batch:
        return prior
    try:
        return prior.expand(batch)
    except NotImplementedError:
        return prior

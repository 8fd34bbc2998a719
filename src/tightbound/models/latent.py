r"""Latent-variable models: conditional distributions built from prior, likelihood and posterior.

.. math:: p(x \mid c) = \int p(z \mid c) \, p(x \mid z, c) \, dz

Convention: ``x`` has shape ``(*batch, *event)`` and ``z`` has shape ``(k, *batch, *latent)`` for k samples of
:math:`q(z \mid x, c)`; every log-density is in nats, summed over its event, one number per sample and example.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.types import _size

from ..conditions import Given
from ..distributions import (
    Bounded,
    Sampling,
    Steered,
    drawn,
    gaussian_factors,
    has_density,
    lower_bound,
    require_event_shape,
)
from ..distributions.packed import Packed, Visit, layer_slices
from ..errors import ObjectiveError, UsageError
from ..likelihoods import Measure, declared
from ..options.data_spec import DataSpec
from ..posteriors import Layers, Posterior, Reals, Space
from .layers import common, part, require_from_the_top
from .model import Model
from .terms import Entry, Latent, Terms, layer_names, stacked

__all__ = ["LatentVariableModel", "Marginal", "replaced", "with_latents"]


class LatentVariableModel(Model):
    r"""A model :math:`p(x \mid c)` with a latent variable, from any prior, likelihood and posterior.

    Calling it returns the :class:`Marginal`, a lightweight value that samples and gives the terms of every objective. A
    latent-variable model is a conditional distribution, so it can itself be the prior of another: its own terms of z
    are then among those of x.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014).

    Args:
        prior: ``c -> p(z | c)``; None for an autoencoder, which then cannot be sampled.
        likelihood: ``z, c -> p(x | z, c)``.
        posterior: ``x, c -> q(z | x, c)``.
        name: Name of the latent; unnamed latents of a hierarchy are numbered from the data up: z1, z2, ...

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> model = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> model().sample((5,)).shape
        torch.Size([5, 1, 8, 8])
        >>> model().terms(torch.zeros(5, 1, 8, 8), k=3).log_weights.shape
        torch.Size([3, 5])
    """

    def __init__(self, prior: nn.Module | None, likelihood: nn.Module, posterior: nn.Module, name: str = "z") -> None:
        super().__init__()
        self.prior, self.likelihood, self.posterior, self.name = prior, likelihood, posterior, name

    def forward(self, c: Given | None = None) -> Marginal:
        """The distribution of x given c.

        Raises:
            UsageError: If it still has to load weights of another run, or these are not its conditions.
        """
        self.require_weights()
        self.require_conditions(c)
        return Marginal(self, c)

    @property
    def space(self) -> Space:
        """The space of its latents."""
        own = self.posterior.space if isinstance(self.posterior, Posterior) else Reals(self.posterior)
        if not isinstance(self.prior, LatentVariableModel):
            return own
        above = self.prior.space
        return Layers([own, *above.layers], layer_names([self.name, *above.names]))

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Encoder, decoder and, if there is one, prior."""
        prior = {} if self.prior is None else {"prior": self.prior}
        return {"encoder": self.posterior, "decoder": self.likelihood, **prior}

    @property
    def can_sample(self) -> bool:
        """Whether it can be sampled: whether it has a prior."""
        return self.prior is not None

    @property
    def decodes_conditions(self) -> bool:
        """Whether its likelihood depends on the condition too."""
        return self.condition is not None and not declared(self.likelihood).unconditional

    @property
    def numbers_per_entry(self) -> int:
        """Number of parameters that its likelihood holds per entry."""
        return declared(self.likelihood).parameters_per_entry

    @property
    def reconstructs(self) -> bool:
        """Whether the mean of p(x | z) takes one pass."""
        return declared(self.likelihood).mean_in_one_pass

    def measure(self, data: DataSpec) -> Measure:
        """What the log-likelihood means for that data: as its likelihood states, if it is one of this package."""
        return declared(self.likelihood).measure(data)


def replaced(model: LatentVariableModel, **parts: nn.Module) -> LatentVariableModel:
    """A copy of a model that shares its parameters, with some parts replaced.

    Args:
        model: The model; it is not changed.
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
    other._modules = {**model._modules, **parts}
    return other


def with_latents(model: Model) -> LatentVariableModel:
    """The model, which must have latents.

    Raises:
        UsageError: If it has none.
    """
    if not isinstance(model, LatentVariableModel):
        raise UsageError(
            "This model has no latent: it can only be sampled and evaluated.",
            got=model.origin,
            remedy="Try tightbound sample, evaluate or report; or train a recipe with a latent, such as vae.",
        )
    return model


def require_unconditional(model: LatentVariableModel) -> None:
    """Refuses a first stage whose latents depend on a condition.

    Raises:
        UsageError: If they do.
    """
    if model.condition is not None:
        raise UsageError(
            "A prior can be fitted only to latents that do not depend on a condition.",
            got=f"a first stage conditioned on {', '.join(model.condition.parts)}",
            remedy="Train the first stage without one; the prior can have one: --condition class.",
        )


class Marginal(Bounded, Steered):
    r"""The distribution :math:`p(x \mid c)` of a latent-variable model: it can be sampled and bounded, but has no exact
    density.

    Args:
        model: The prior, likelihood and posterior.
        c: Conditions of shape ``(*batch)``, or None.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> bool((px.lower_bound(torch.zeros(5, 1, 8, 8)) < 0).all())
        True
    """

    def __init__(self, model: LatentVariableModel, c: Given | None = None) -> None:
        self.model, self.c = model, c
        self._prior: Distribution | None = None
        shape = declared(model.likelihood).shape
        super().__init__(torch.Size() if c is None else c.shape, torch.Size(shape), validate_args=False)

    def posterior(self, x: Tensor) -> Distribution:
        """The posterior of x: pass it to :meth:`terms` to compute it only once for many samples."""
        return self.model.posterior(x, self.c)

    def representative(self, x: Tensor) -> Tensor:
        """The representative latent of examples ``(n, *shape)``: the mean of q, or the most probable codes.

        The mean of a distribution over codes is not a valid latent: it would give a decoder information that no code
        has.
        """
        return self.model.space.representative(x, self.c)

    def likelihood(self, z: Tensor) -> Distribution:
        """The distribution of x given z."""
        return self.model.likelihood(z, self.c)

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
        self._prior = None if torch.is_grad_enabled() else prior  # a graph can be backpropagated only once
        return prior

    def terms(
        self, x: Tensor, k: int | None = 1, posterior: Distribution | None = None, *, pathwise: bool = True
    ) -> Terms:
        """The terms of x, with k samples of the posterior.

        A prior that is itself a latent-variable model is unrolled: its own terms of z follow, and its likelihood is the
        prior of z.

        Args:
            x: Data, of shape ``(*batch, *event)``.
            k: Number of samples; None: one, without a sample dimension, for x that are samples themselves.
            posterior: The result of :meth:`posterior` for this x, if already computed.
            pathwise: Whether gradients reach the posterior through its samples, if they can be reparameterised; the
                score-function estimator needs samples without.

        Raises:
            ShapeError: If x does not fit the model, or a part returns distributions of the wrong shape.
            UsageError: If k is less than 1.
        """
        posterior = self.posterior(x) if posterior is None else posterior
        if isinstance(posterior, Packed):
            return self._terms_in_one_pass(x, posterior, posterior.visit(_sample_shape(k), pathwise=pathwise))
        z = _drawn(posterior, _sample_shape(k), pathwise)
        likelihood = self._likelihood_of(x, z, len(posterior.batch_shape))
        entries = self._entries(z, posterior, pathwise)
        return self._terms(x, likelihood, z.shape[: z.dim() - len(posterior.event_shape)], entries)

    def _terms_in_one_pass(self, x: Tensor, posterior: Packed, visit: Visit) -> Terms:
        """The terms of a top-down hierarchy, with an entry for each layer if the prior is a product of Gaussians."""
        ready, prior = declared(self.model.likelihood), self.prior()
        likelihood = ready.given(visit.output) if ready.takes_output_of(visit.decoder) else self.likelihood(visit.z)
        require_event_shape(likelihood, x.shape[len(posterior.batch_shape) :], "likelihood")
        require_event_shape(prior, posterior.event_shape, "prior")
        shape, joint = visit.z.shape[:-1], Latent(visit.z, posterior, prior, self.model.name)
        if (base := gaussian_factors(prior)) is None:
            return self._terms(x, likelihood, shape, (joint,))
        places = layer_slices({name: q.event_shape.numel() for name, q in visit.posteriors.items()})
        entries = [
            Latent(visit.z[..., at], visit.posteriors[name], part(base, at), name) for name, at in places.items()
        ]
        return dataclasses.replace(self._terms(x, likelihood, shape, tuple(entries)), packed=joint)

    def _entries(self, z: Tensor, posterior: Distribution, pathwise: bool) -> tuple[Entry, ...]:
        """The entry of this latent, and those of the latents of its prior."""
        prior = None if self.model.prior is None else self.prior()
        if not isinstance(prior, Marginal):
            if prior is not None and has_density(prior):
                require_event_shape(prior, posterior.event_shape, "prior")
            return (Latent(z, posterior, prior, self.model.name),)
        above = prior.terms(z, k=None, pathwise=pathwise)
        given = prior.likelihood(above.latents[0].z)
        require_event_shape(given, posterior.event_shape, "prior")
        return stacked(Latent(z, posterior, given, self.model.name, paired=False), above)

    def generated(self, x: Tensor, k: int = 1, prior: Distribution | None = None, *, pathwise: bool = True) -> Terms:
        """The terms of x with k samples of the prior instead of the posterior, as in prediction.

        Args:
            x: Data, of shape ``(*batch, *event)``.
            k: Number of samples.
            prior: The result of :meth:`prior`, if already computed.
            pathwise: Whether gradients reach the prior through its samples.

        Raises:
            UsageError: If k is less than 1.
            ObjectiveError: If there is no prior.
        """
        prior = self.prior() if prior is None else prior
        event = self.event_shape  # empty if the likelihood does not declare it
        batch = x.shape[: x.dim() - len(event)] if event else self.posterior(x).batch_shape
        drawn = _expanded(prior, batch)
        z = _drawn(drawn, (*_sample_shape(k), *batch[: len(batch) - len(drawn.batch_shape)]), pathwise)
        entry = Latent(z, drawn, prior, self.model.name)
        return self._terms(x, self._likelihood_of(x, z, len(batch)), (k, *batch), (entry,))

    def _likelihood_of(self, x: Tensor, z: Tensor, batch_dims: int) -> Distribution:
        likelihood = self.likelihood(z)
        require_event_shape(likelihood, x.shape[batch_dims:], "likelihood")
        return likelihood

    def _terms(self, x: Tensor, likelihood: Distribution, shape: _size, entries: tuple[Entry, ...]) -> Terms:
        return Terms(lower_bound(likelihood, x).expand(shape), entries, exact_likelihood=has_density(likelihood))

    def lower_bound(self, x: Tensor) -> Tensor:
        """A one-sample estimate of the ELBO of x, ``(*batch)``, nats."""
        terms = self.terms(x)
        return terms.log_likelihood.mean(0) - terms.kl() if terms.estimated else terms.log_weights.squeeze(0)

    def sample(self, sample_shape: _size = (), how: Sampling = Sampling()) -> Tensor:  # noqa: B008 - frozen
        """Draws z from the prior and x from the likelihood, ``(*sample_shape, *batch, *event)``.

        Args:
            sample_shape: Number of samples for each condition.
            how: How z is drawn, in a hierarchy in every layer.
        """
        with torch.no_grad():
            return self.likelihood(self.sample_latent(sample_shape, how)).sample()

    @property
    def layered(self) -> bool:
        """Whether layers can be drawn given those above them: in a chain, or under a product of Gaussians."""
        prior = self.prior()
        return isinstance(prior, Marginal) or gaussian_factors(prior) is not None

    def sample_latent(self, sample_shape: _size = (), how: Sampling = Sampling()) -> Tensor:  # noqa: B008 - frozen
        """Draws z from the prior, ``(*sample_shape, *batch, *latent)``, as the likelihood takes it."""
        return self.model.space.joined(self.sample_layers(sample_shape, how))

    def sample_layers(
        self,
        sample_shape: _size = (),
        how: Sampling = Sampling(),  # noqa: B008 - frozen
        above: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Draws the latent of each layer from the prior, from the top down; returned from the data up.

        Args:
            sample_shape: Number of samples.
            how: How they are drawn: one temperature, or one for each layer from the data up.
            above: Layers that are given, and all above them.

        Raises:
            UsageError: If a layer is unknown, or one above a given layer is not given; or if layers are given, or have
                temperatures of their own, but depend on each other under the prior.
        """
        require_from_the_top(above or {}, self.model.space.names)
        return self._drawn_layers(sample_shape, how.of_layers(len(self.model.space.names)), above or {})

    def _drawn_layers(self, shape: _size, hows: Sequence[Sampling], above: Mapping[str, Tensor]) -> dict[str, Tensor]:
        space, prior = self.model.space, self.prior()
        if isinstance(prior, Marginal):
            return self._drawn_chain(prior, shape, hows, above)
        if len(hows) == 1:
            return {**space.split(drawn(prior, shape, hows[0])), **above}
        if gaussian_factors(prior) is None:
            return space.split(drawn(prior, shape, common(hows, above)))
        found, means = space.split(prior.sample(shape)), space.split(prior.mean)
        for name, how in zip(space.names, hows, strict=True):
            how.require_temperature_alone()
            found[name] = torch.lerp(means[name].expand_as(found[name]), found[name], how.temperature)
        return {**found, **above}

    def _drawn_chain(
        self, prior: Marginal, shape: _size, hows: Sequence[Sampling], above: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        first, *others = self.model.space.names
        inner = dict(zip(prior.model.space.names, others, strict=True))  # each model numbers its own latents
        given = {name: above[outer] for name, outer in inner.items() if outer in above}
        upper = prior._drawn_layers(shape, hows[1:], given)
        if (own := above.get(first)) is None:  # its likelihood is a distribution of latents, which `how` steers too
            own = drawn(prior.likelihood(prior.model.space.joined(upper)), (), hows[0])
        return {first: own} | {outer: upper[name] for name, outer in inner.items()}


def _sample_shape(k: int | None) -> tuple[int, ...]:
    if k is not None and k < 1:
        raise UsageError("At least one sample is needed.", got=f"k = {k}", expected="k >= 1")
    return () if k is None else (k,)


def _drawn(distribution: Distribution, shape: _size, pathwise: bool) -> Tensor:
    return distribution.rsample(shape) if pathwise and distribution.has_rsample else distribution.sample(shape)


def _expanded(prior: Distribution, batch: torch.Size) -> Distribution:
    """The prior expanded to a batch of examples, or unchanged if it cannot be expanded."""
    if prior.batch_shape == batch:
        return prior
    try:
        return prior.expand(batch)
    except NotImplementedError:
        return prior

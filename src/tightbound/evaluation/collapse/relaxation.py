r"""The relaxation gap: the training bound with relaxed latents, compared with the true bound.

Convention: q(z | x) is discrete, and its relaxation at temperature :math:`\tau` has the same noise; every value is in
nats per example, and the KL in both bounds is that of the discrete distributions.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...conditions import Given
from ...data import Split
from ...errors import ObjectiveError
from ...models.latent import Latent, LatentVariableModel, Marginal
from ...posteriors import RelaxedPosterior
from ..estimate import Estimate
from ..log_likelihood.importance import chunks
from ..passes import over

__all__ = ["SAMPLES", "RelaxationGap", "gap_of", "relaxation_gap", "relaxed_and_hard"]

SAMPLES = 16
"""Default samples per example."""


@dataclass(frozen=True)
class RelaxationGap:
    r"""The result of :func:`relaxation_gap`.

    Args:
        relaxed: The ELBO with relaxed latents: the training objective, not a bound.
        hard: The ELBO with discrete latents, a bound on log p(x).
        gap: Their difference, per example.
        temperature: :math:`\tau`.
        samples: Of each example.
        n: Examples.
        split: Name of the split.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.GumbelVAE(positions=4, classes=3).build(data.spec)
        >>> found = relaxation_gap(model, data.test, samples=2)
        >>> abs(found.relaxed.value - found.hard.value - found.gap.value) < 1e-6
        True
    """

    relaxed: Estimate
    hard: Estimate
    gap: Estimate
    temperature: float
    samples: int
    n: int
    split: str


def relaxation_gap(model: LatentVariableModel, split: Split, samples: int = SAMPLES, *, seed: int = 0) -> RelaxationGap:
    r"""How much relaxed latents overestimate the bound, at the model's temperature.

    .. math:: \mathbb{E} \log p(x \mid \tilde{z}_\tau) - \mathbb{E} \log p(x \mid z), \qquad
        z = \lim_{\tau \to 0} \tilde{z}_\tau

    A relaxed latent can hold information that no discrete one has; the gap measures its loss. Each relaxed sample is
    paired with the discrete one of the same noise, so the standard error is that of the difference. A model trained
    straight through has no gap: its training samples are discrete.

    References:
        Categorical Reparameterization with Gumbel-Softmax (Jang, Gu and Poole, 2017).

    Args:
        model: The model, on the device to compute on.
        split: The data.
        samples: Of each example.
        seed: Seed of all noise.

    Raises:
        UsageError: If the split is empty or ``samples`` less than 1.
        ObjectiveError: If the posterior is not relaxed, or a second stage made it a point mass.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.GumbelVAE(positions=4, classes=3, straight_through=True).build(data.spec)
        >>> relaxation_gap(model, data.test, samples=2).gap.value
        0.0
    """
    if _relaxed(model).at_mode:
        raise ObjectiveError(
            "A second stage uses the most probable codes, which have no relaxation.",
            got="a point-mass posterior",
            remedy="Measure the gap of the first stage's run.",
        )
    values = over(model, split, samples, partial(relaxed_and_hard, samples=samples), seed=seed)
    return gap_of(values, model, split, samples)


def _relaxed(model: LatentVariableModel) -> RelaxedPosterior:
    """The posterior that is relaxed in training."""
    if (posterior := relaxed_posterior(model)) is None:
        raise ObjectiveError(
            "Only a relaxed posterior has a relaxation gap.",
            got=type(model.posterior).__name__,
            expected="CategoricalPosterior or BernoulliPosterior",
            remedy="Measure a model of recipe 'gumbel-vae' or 'dvae'.",
        )
    return posterior


def relaxed_posterior(model: LatentVariableModel) -> RelaxedPosterior | None:
    """The same where training relaxes it; None of any other."""
    return model.posterior if isinstance(model.posterior, RelaxedPosterior) else None


def gap_of(
    values: dict[str, Tensor], model: LatentVariableModel, split: Split, samples: int = SAMPLES
) -> RelaxationGap:
    """The gap from the values of :func:`relaxed_and_hard`."""
    relaxed, hard = values["relaxed"].double() - values["kl"], values["hard"].double() - values["kl"]
    return RelaxationGap(
        relaxed=Estimate.of(relaxed),
        hard=Estimate.of(hard),
        gap=Estimate.of(relaxed - hard),
        temperature=_relaxed(model).temperature.item(),
        samples=samples,
        n=len(split),
        split=split.name,
    )


@torch.no_grad()
def relaxed_and_hard(
    model: LatentVariableModel, x: Tensor, c: Given | None, samples: int = SAMPLES
) -> dict[str, Tensor]:
    """Means over the samples of log p(x | z), relaxed and hard, and of the KL, ``(n,)``."""

    def found(marginal: Marginal, x: Tensor, at_once: int) -> dict[str, Tensor]:
        parts = [min(at_once, samples - done) for done in range(0, samples, at_once)]
        sums = [_of_some(marginal, x, part) for part in parts]
        return {name: functools.reduce(torch.add, (part[name] for part in sums)) / samples for name in sums[0]}

    return chunks(found, model, x, samples, c)


def _of_some(marginal: Marginal, x: Tensor, samples: int) -> dict[str, Tensor]:
    """Sums over some samples."""
    q = _relaxed(marginal.model)
    relaxed = q.relaxed(x, marginal.c).rsample((samples,))
    hard = q.embed(q.codes_of(relaxed))
    kl = Latent(hard, marginal.posterior(x), marginal.prior()).kl().flatten(1).sum(1)
    return {
        "relaxed": marginal.likelihood(relaxed).log_prob(x).sum(0),
        "hard": marginal.likelihood(hard).log_prob(x).sum(0),
        "kl": samples * kl,
    }

r"""The gap between log p(x) and the ELBO, split into the posterior family's part and the encoder's.

.. math:: \log p(x) - \mathrm{ELBO}(q) = \mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x))
    = \underbrace{\log p(x) - \mathrm{ELBO}(q^*)}_{\text{approximation gap}}
    + \underbrace{\mathrm{ELBO}(q^*) - \mathrm{ELBO}(q)}_{\text{amortisation gap}}

with :math:`q^*` the best member of the posterior's family for each example alone. Values are nats per example.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...checkpoint import require_finite
from ...conditions import Given
from ...data import Split
from ...errors import UsageError
from ...models.latent import LatentVariableModel, Marginal, replaced
from ...runtime.modes import evaluating
from ...runtime.progress import progress
from ...runtime.randomness import fixed_noise
from ..estimate import Estimate
from ..log_likelihood.importance import per_example
from ..log_likelihood.proposals import frozen, gaussian_family, optimised, widened
from ..passes import require_split, require_support

__all__ = ["Gaps", "gaps"]

CHUNK = 100
"""Batch size of the optimisation."""
DRAWS = 8
"""Samples per example for a gradient."""
WIDER = 1.2
"""Factor on the standard deviations of the best posteriors when used as proposals."""


@dataclass(frozen=True)
class Gaps:
    r"""The result of :func:`gaps`.

    Args:
        total: :math:`\log p(x) - \mathrm{ELBO}(q)`.
        approximation: The gap of the best member of the family; None if the family cannot be optimised.
        amortisation: The encoder's loss relative to it; None likewise.
        kl: KL of the posterior and the prior on these examples.
        fit: The negative log-likelihood, from the same samples.
        kl_change: Increase of the KL for the best members; None likewise.
        n: Examples.
        k: Samples of each for log p(x) and the bounds.
        notes: Notes on these numbers.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> found = gaps(model, data.test, limit=5, k=20, steps=0)
        >>> found.total.value > 0, found.amortisation
        (True, None)
    """

    total: Estimate
    approximation: Estimate | None
    amortisation: Estimate | None
    kl: Estimate
    kl_change: Estimate | None
    fit: Estimate
    n: int
    k: int
    notes: tuple[str, ...]


def gaps(
    model: LatentVariableModel,
    split: Split,
    *,
    limit: int = 100,
    k: int = 1000,
    steps: int = 500,
    lr: float = 0.1,
    seed: int = 0,
) -> Gaps:
    """Measures the gap between log p(x) and the ELBO, and splits it by optimising the posterior of each example.

    log p(x) is estimated by importance sampling, so it is a lower bound in expectation and the gaps are lower bounds
    too, up to noise. The proposal is the encoder's posterior, or, if that gives more over all examples, the best
    posteriors widened by :data:`WIDER` for heavier tails. Gaussian families, diagonal and full, are optimised by Adam,
    starting from the encoder's output; the gap of a hierarchy is not split.

    References:
        Inference Suboptimality in Variational Autoencoders (Cremer, Li and Duvenaud, 2018).

    Args:
        model: The model, on the device to compute on.
        split: The data.
        limit: Use at most this many evenly spaced examples.
        k: Samples of each for log p(x) and for the bounds.
        steps: Steps of the optimisation; 0 does not split the gap.
        lr: Its initial learning rate, for mean and log standard deviation; it decays to zero.
        seed: Seed of all noise.

    Raises:
        UsageError: If the split is empty, or a number is out of range.
        ObjectiveError: If prior or posterior have no exact density.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> found = gaps(model, data.test, limit=5, k=20, steps=5)
        >>> found.n
        5
    """
    require_split(split, model)
    require_finite(model)
    _check_numbers(limit, k, steps, lr)
    some = split.evenly_spaced(limit)
    with fixed_noise(seed), evaluating(model), frozen(model):
        return _summary(_of_all(model, some, k, steps, lr), model.measure(split.spec).offset, k, steps)


def _check_numbers(limit: int, k: int, steps: int, lr: float) -> None:
    if limit < 1 or k < 1 or steps < 0 or not lr > 0:
        raise UsageError(
            "A number is out of range.",
            got=f"limit = {limit}, k = {k}, steps = {steps}, lr = {lr}",
            expected="limit and k of at least 1, steps of at least 0, lr above 0",
        )


def _of_all(model: LatentVariableModel, split: Split, k: int, steps: int, lr: float) -> dict[str, Tensor]:
    """The results for every example, computed in batches."""
    parts: list[dict[str, Tensor]] = []
    x, c = model.see(split.batch(torch.arange(len(split)), model.device))
    with progress("posterior gap", len(x)) as advance:
        for here in torch.arange(len(x)).split(CHUNK):
            parts.append(_of(model(None if c is None else c[here]), x[here], k, steps, lr))
            advance(len(here))
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}


def _of(marginal: Marginal, x: Tensor, k: int, steps: int, lr: float) -> dict[str, Tensor]:
    model = marginal.model
    found = per_example(model, x, k, marginal.c)
    require_support(found)
    if "log_marginal" not in found:
        model_terms = marginal.terms(x)
        for latent in model_terms.latents:
            _ = latent.log_posterior, latent.kl()  # say why
        raise UsageError(
            "The gap needs log p(x), which needs a prior with an exact density.",
            got=", ".join(type(latent.prior).__name__ for latent in model_terms.latents),
            remedy="Measure a model with another prior.",
        )
    out = {"log_p": found["log_marginal"].double(), "elbo": found["log_weight"].double(), "kl": _kl(found)}
    family = gaussian_family(marginal.posterior(x)) if steps and len(model.space.names) == 1 else None
    if family is None:
        return out
    free, make = optimised(marginal, x, family, steps, lr, DRAWS), family[1]
    best = lambda here: make([p[here] for p in free])
    again, wide = (
        per_example(replaced(model, posterior=_InOrder(q)), x, k, marginal.c)
        for q in (best, lambda here: widened(best(here), WIDER))
    )
    return out | {
        "best_log_p": wide["log_marginal"].double(),
        "best_elbo": again["log_weight"].double(),
        "best_kl": _kl(again),
    }


def _kl(found: dict[str, Tensor]) -> Tensor:
    return torch.cat([value for name, value in found.items() if name.startswith("kl/")], dim=1).double().sum(1)


class _InOrder(torch.nn.Module):
    """The optimised posteriors of examples, in order."""

    def __init__(self, best: Callable[[slice], Distribution]) -> None:
        super().__init__()
        self.best, self.seen = best, 0

    def forward(self, x: Tensor, c: Given | None = None) -> Distribution:
        here = slice(self.seen, self.seen + len(x))
        self.seen += len(x)
        return self.best(here)


def _summary(values: dict[str, Tensor], offset: float, k: int, steps: int) -> Gaps:
    log_p, best = values["log_p"], values.get("best_elbo")
    if best is not None:
        gain = Estimate.of(values["best_log_p"] - log_p)
        if gain.value > 2 * (gain.standard_error or 0.0):  # for all or none: the larger of two is biased
            log_p = values["best_log_p"]
    total = log_p - values["elbo"]
    notes = ["log p(x) is itself a lower bound, by importance sampling: the gaps are at least these"]
    if best is None and steps:
        notes.append("posteriors of this kind are not optimised per example: the gap is not split")
    return Gaps(
        total=Estimate.of(total),
        approximation=None if best is None else Estimate.of(log_p - best),
        amortisation=None if best is None else Estimate.of(best - values["elbo"]),
        kl=Estimate.of(values["kl"]),
        kl_change=Estimate.of(values["best_kl"] - values["kl"]) if "best_kl" in values else None,
        fit=Estimate.of(log_p, -1.0, offset),
        n=len(log_p),
        k=k,
        notes=tuple(notes),
    )

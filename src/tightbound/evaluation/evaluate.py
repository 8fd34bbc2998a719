r"""How good a model is, in numbers that say what they are.

Convention: values are nats per example, or bits per dimension, :math:`\text{nats} / (D \ln 2)`; the ELBO is a lower
bound on :math:`\log p(x)` and ``nll`` an estimate of :math:`-\log p(x)`, both of the data itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data import Split
from ..errors import ObjectiveError, UsageError
from ..likelihoods import Measure, measure_of
from ..models.latent import LatentVariableModel, Terms, evaluating
from ..progress import progress
from ..randomness import fixed_noise
from .estimate import Estimate
from .likelihood import per_example

__all__ = ["Evaluation", "evaluate"]

ACTIVE = 1e-2
"""A latent dimension is active if the posterior's mean varies more than this over the data."""


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found; a value is None where the model does not define it, and ``notes`` says why.

    Args:
        elbo: Evidence lower bound, nats: ``reconstruction`` minus ``kl``.
        reconstruction: Expected log-likelihood under the posterior, nats.
        kl: KL of posterior and prior, nats.
        nll: Importance-weighted estimate of the negative log-likelihood, nats.
        bits_per_dim: The same in bits per dimension, where the data is discrete and the model gives its probability.
        k: Importance samples.
        n: Examples.
        split: Which split they are.
        effective_sample_size: Mean over the examples, between 1 and k.
        active_units: Latent dimensions whose posterior mean varies by more than 0.01 (variance) over the examples.
        kl_per_dimension: Mean KL of each latent dimension, nats.
        kl_is_analytic: Whether the KL is a closed form or a Monte Carlo estimate.
        measure: ``"mass"``, ``"bound"``, ``"density"`` or ``"none"``: what the likelihood is for this data.
        notes: What a reader must know of these numbers.
    """

    elbo: Estimate | None
    reconstruction: Estimate
    kl: Estimate | None
    nll: Estimate | None
    bits_per_dim: Estimate | None
    k: int
    n: int
    split: str
    effective_sample_size: float | None
    active_units: int
    kl_per_dimension: tuple[float, ...] | None
    kl_is_analytic: bool | None
    measure: str
    notes: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """As ``tightbound evaluate --json`` prints it."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value.json() if isinstance(value, Estimate) else value for name, value in values.items()}


def evaluate(model: LatentVariableModel, split: Split, k: int = 1000, *, seed: int = 0) -> Evaluation:
    """Evaluates a model on a split, with the same noise for the same seed.

    Args:
        model: The model, on the device to compute on.
        split: The data.
        k: Importance samples for each example; a deterministic posterior takes one.
        seed: Seed of all noise: binarisation, dequantisation, posterior samples.

    Returns:
        Every number with its standard error over the examples.

    Raises:
        UsageError: If the split is empty or k less than 1.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> evaluate(model, data.test.subset(10), k=5).n
        10
    """
    if not isinstance(split, Split):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError("A model is evaluated on a split.", got=type(split).__name__, remedy="Try data.test.")
    if len(split) == 0:
        raise UsageError(f"The {split.name} split is empty.", remedy="Evaluate another: --split test.")
    with torch.no_grad(), fixed_noise(seed), evaluating(model):
        terms = _terms_of_the_first(model, split)
        analytic = all(latent.analytic for latent in terms.latents) if terms.bounded else None
        k = k if terms.bounded else min(k, 1)  # samples of a deterministic code are all the same
        batches = list(_batches(model, split, k, seed))
    values = {name: torch.cat([b[name] for b in batches]) for name in batches[0]}
    if lost := [name for name, value in values.items() if not value.isfinite().all()]:
        raise ObjectiveError(
            "The model gives values that are not numbers.",
            got=f"{', '.join(lost)} of {int((~values[lost[0]].isfinite()).sum())} entries",
            expected="finite numbers",
            remedy="Its weights, or this data, are out of range: train again with a lower --lr, or look at the data.",
        )
    return _summary(values, measure_of(model.likelihood, split.spec), split, k, analytic)


def _batches(model: LatentVariableModel, split: Split, k: int, seed: int) -> Iterator[dict[str, Tensor]]:
    parameter = next(model.parameters())
    with progress("evaluating", len(split)) as advance:
        for part, indices in enumerate(torch.arange(len(split)).split(500)):
            with fixed_noise(seed, part):  # the data is drawn alike, whatever k and the model
                batch = split.batch(indices, parameter.device).x.to(parameter.dtype)
            for x in batch.split(max(1, 100_000 // max(1, k))):
                yield {name: value.cpu() for name, value in per_example(model, x, k).items()}
                advance(len(x))


def _terms_of_the_first(model: LatentVariableModel, split: Split) -> Terms:
    parameter = next(model.parameters())
    return model().terms(split.batch(torch.arange(1), parameter.device).x.to(parameter.dtype))


def _summary(values: dict[str, Tensor], measure: Measure, split: Split, k: int, analytic: bool | None) -> Evaluation:
    offset = measure.offset
    kls = [value for name, value in values.items() if name.startswith("kl/")]
    kl = torch.cat(kls, dim=1) if kls else None
    reconstruction, marginal = values["reconstruction"], values.get("log_marginal")
    bits = 1 / (split.spec.dimensions * math.log(2))
    ess = values["effective_samples"].double().mean().item() if marginal is not None else None
    comparable = marginal is not None and measure.comparable
    return Evaluation(
        elbo=None if kl is None else Estimate.of(reconstruction - kl.sum(1), offset=-offset),
        reconstruction=Estimate.of(reconstruction, offset=-offset),
        kl=None if kl is None else Estimate.of(kl.sum(1)),
        nll=None if marginal is None else Estimate.of(marginal, -1.0, offset),
        bits_per_dim=Estimate.of(marginal, -bits, offset * bits) if comparable else None,  # pyright: ignore
        k=k,
        n=len(split),
        split=split.name,
        effective_sample_size=ess,
        active_units=int((values["posterior_mean"].double().var(0) > ACTIVE).sum()) if len(split) > 1 else 0,
        kl_per_dimension=None if kl is None else tuple(kl.double().mean(0).tolist()),
        kl_is_analytic=analytic,
        measure=measure.kind if kl is not None else "none",
        notes=tuple(_notes(measure, kl is not None, ess, k)),
    )


def _notes(measure: Measure, bounded: bool, ess: float | None, k: int) -> Iterator[str]:
    if bounded:
        yield measure.note
    else:
        yield "the model has no prior or a deterministic posterior: no ELBO, no likelihood"
    if ess is not None and k >= 10 and ess < 2:
        few = f"about {ess:.1f} of {k} importance samples count"
        yield f"{few}: the nll is an upper bound that more samples would lower"

r"""Diffusion models: the three terms of the bound, and the likelihood of the flow.

Convention: as in :mod:`tightbound.evaluation.evaluate`. The flow is another model than the chain: its likelihood is

.. math:: -\log p(x) \le \mathbb{E}_{x_{\sigma_0}} [-\log p(x \mid x_{\sigma_0}) - \log p_{\text{flow}}(x_{\sigma_0})]
    - \tfrac{D}{2} \ln (2 \pi e \sigma_0^2)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..conditions import Given
from ..data import Split
from ..diffusion import Diffusion
from ..diffusion.guides import given
from ..diffusion.ode import MOST_EXACT, log_likelihood
from ..errors import UsageError
from .estimate import Estimate, likelihood_fields
from .levels import PRIOR
from .passes import ROWS, Precision, over
from .results import Evaluation

__all__ = ["evaluate_diffusion"]

DRAWS = 16
"""Noise levels for each example by default."""
FLOW_STEPS = 32
"""Steps of Runge and Kutta for the flow, of four evaluations each."""
ENTRIES, FLOW_ENTRIES = 2**23, 2**19
"""Noised entries that a network is given at once: for the bound, and for the flow, which keeps what a slope needs."""


def evaluate_diffusion(
    model: Diffusion,
    split: Split,
    k: int | None = None,
    *,
    method: str = "auto",
    precision: Precision = "float32",
    seed: int = 0,
) -> tuple[Evaluation, dict[str, Tensor]]:
    """Evaluates a diffusion model: the summary, and the values of every example.

    Args:
        model: The model, on the device to compute on.
        split: The data.
        k: Noise levels for each example, stratified over the examples of a chunk; of the flow, probes of its trace,
            which is exact for vectors of up to 256 entries.
        method: ``"auto"`` for the bound, ``"ode"`` for the likelihood of the flow beside it.
        precision: Precision of the network.
        seed: Seed of all noise.

    Raises:
        UsageError: If the method samples latents.
    """
    if method not in ("auto", "ode"):
        raise UsageError(
            "A diffusion model has no latents to sample: it has a bound, and the likelihood of its flow.",
            got=f"method {method}",
            expected="auto or ode",
            remedy="Leave --method out, or use --method ode.",
        )
    draws = DRAWS if k is None else k
    room = max(draws, _room(model, draws, ENTRIES))
    values = over(model, split, room, lambda m, x, c: _terms(m, x, c, draws), seed=seed, precision=precision)
    if method == "ode":
        room = max(1 if k is None else k, _room(model, 1, FLOW_ENTRIES))
        values |= over(model, split, room, lambda m, x, c: _flow(m, x, c, k), seed=seed, precision=precision)
    return _told(model, split, values, draws), _each(split, values)


def _terms(model: Diffusion, x: Tensor, c: Given | None, k: int) -> dict[str, Tensor]:
    terms = model(c).terms(x, k)
    parts = {entry.name: entry.kl().sum(-1) for entry in terms.entries}
    return {"reconstruction": terms.log_likelihood.mean(0), **parts}


def _room(model: Diffusion, k: int, entries: int) -> int:
    """The number of samples that makes chunks of k draws of each example no larger than some entries."""
    return math.ceil(ROWS * k * math.prod(model.shape) / entries)


def _flow(model: Diffusion, x: Tensor, c: Given | None, k: int | None) -> dict[str, Tensor]:
    bound, u = model.bound, model.units(x)
    start = math.exp(bound.schedule.start / 2)
    noise = torch.randn_like(u)
    likelihood = bound.decoded(u + start * noise).log_prob(u).flatten(1).sum(1)
    entropy = math.prod(model.shape) / 2 * math.log(2 * math.pi * math.e * start**2)
    end = bound.path.end(torch.tensor(bound.schedule.end, dtype=torch.float64)).item()
    exact = len(model.shape) == 1 and math.prod(model.shape) <= MOST_EXACT
    found = log_likelihood(
        given(model.denoiser, c),
        u + start * noise,
        sigmas=(start, math.exp(bound.schedule.end / 2)),
        end=end,
        steps=FLOW_STEPS,
        probes=None if exact else k or 1,
        seed=int(torch.randint(2**62, ())),  # other probes in every chunk, so that examples stay independent
    )
    return {"flow": likelihood + found.log_prob + entropy - model.log_volume}


def _told(model: Diffusion, split: Split, values: dict[str, Tensor], k: int) -> Evaluation:
    measure, flow = model.measure(split.spec), values.get("flow")
    kl = values["prior"] + values["diffusion"]
    bound = values["reconstruction"] - kl
    reported = bound if flow is None else flow
    found: dict[str, Any] = {
        "elbo": Estimate.of(bound, offset=-measure.offset),
        "reconstruction": Estimate.of(values["reconstruction"], offset=-measure.offset),
        "prior_term": Estimate.of(values["prior"]),
        "diffusion_term": Estimate.of(values["diffusion"]),
        "notes": (f"{measure.note}; {'a lower bound, so the nll is at most this' if flow is None else FLOW}",),
    }
    if flow is not None:
        found["notes"] += (TWO_MODELS,)
    prior = values["prior"].double().mean().item()
    if prior > PRIOR * split.spec.dimensions:
        found["notes"] += (f"the schedule does not reach noise: its end still tells {prior:.2f} nats; {DIAGNOSE}",)
    found |= likelihood_fields(reported, measure, split.spec)
    found |= {"measure": measure.kind, "split": split.name, "method": "bound" if flow is None else "ode", "k": k}
    return Evaluation(**found, n=len(split), active_units=0, dimensions=0)


DIAGNOSE = "tightbound diagnose has a remedy"
FLOW = "of the flow (the probability-flow ODE) with the noise of the first level, a bound for this other model"
TWO_MODELS = (
    "the bound is of the chain that removes noise step by step, the ODE's likelihood of the flow with the same "
    "network: two models, equal only where the network is exact"
)


def _each(split: Split, values: dict[str, Tensor]) -> dict[str, Tensor]:
    bound = values["reconstruction"] - values["prior"] - values["diffusion"]
    return {"codes": torch.zeros(len(split), 0), "elbo": bound}

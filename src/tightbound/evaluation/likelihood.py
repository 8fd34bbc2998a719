r"""Importance-weighted likelihoods, in memory that does not grow with the number of samples.

Convention: :math:`w_j = p(x, z_j) / q(z_j \mid x)` for :math:`z_j \sim q(z \mid x)`; every log is in nats.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import UsageError
from ..memory import keep_freed_memory
from ..models.latent import LatentVariableModel, Marginal, Terms

__all__ = ["per_example"]

ENTRIES = 1 << 21
"""How many numbers the decoder gives at once for all samples together: about what a processor's cache holds."""


@torch.no_grad()
def per_example(model: LatentVariableModel, x: Tensor, k: int, c: Tensor | None = None) -> dict[str, Tensor]:
    r"""What k samples of the posterior tell of each example: points times samples at once, the samples in a stream.

    .. math:: \log p(x) \approx \log \frac{1}{k} \sum_j w_j, \qquad \text{ESS} = \frac{(\sum_j w_j)^2}{\sum_j w_j^2}

    References:
        Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov, 2016).

    Args:
        model: The model.
        x: Examples, ``(n, *shape)``.
        k: Samples for each; their number costs time, not memory.
        c: Conditions, ``(n, condition_dim)``.

    Returns:
        ``reconstruction``, the mean of log p(x | z), ``(n,)`` nats. Where the model has a prior and its posterior a
        density: ``kl/NAME`` for each latent, ``(n, dimensions)`` nats (one column if it does not factorise). Where
        both densities are exact: ``log_marginal``, ``(n,)`` nats, and ``effective_samples``, between 1 and k. Always
        ``posterior_mean``, ``(n, latent entries)``.

    Raises:
        UsageError: If k is less than 1.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> model = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> per_example(model, torch.zeros(5, 1, 8, 8), k=100)["log_marginal"].shape
        torch.Size([5])
    """
    if k < 1:
        raise UsageError("At least one sample is needed.", got=f"k = {k}", expected="k >= 1", remedy="Try -k 1000.")
    keep_freed_memory()
    rows = max(1, ENTRIES // (x[0].numel() * getattr(model.likelihood, "parameters_per_entry", 1)))
    points = max(1, rows // k)
    parts: list[dict[str, Tensor]] = []
    for i in range(0, len(x), points):
        marginal = model(None if c is None else c[i : i + points])
        parts.append(_stream(marginal, x[i : i + points], k, at_once=min(k, rows)))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _stream(marginal: Marginal, x: Tensor, k: int, at_once: int) -> dict[str, Tensor]:
    """K samples for a few examples, encoded once and decoded so many at once; sums are all that is kept of a chunk."""
    posterior, sums = marginal.posterior(x), dict[str, Tensor]()
    for done in range(0, k, at_once):
        found = _sums(marginal.terms(x, k=min(at_once, k - done), posterior=posterior))
        sums = {name: _added(name, sums[name], new) if sums else new for name, new in found.items()}
    log_sum, log_squares = sums.pop("log_sum", None), sums.pop("log_sum_squares", None)
    out = {name: total / k for name, total in sums.items()}
    if log_sum is not None and log_squares is not None:
        out["log_marginal"] = (log_sum - math.log(k)).to(x.dtype)
        out["effective_samples"] = (2 * log_sum - log_squares).exp().to(x.dtype)
    return out | {"posterior_mean": posterior.mean.flatten(1)}


def _added(name: str, old: Tensor, new: Tensor) -> Tensor:
    return torch.logaddexp(old, new) if name.startswith("log_sum") else old + new


def _sums(terms: Terms) -> dict[str, Tensor]:
    """Sums over the samples of one chunk, and log-sums of weights, in float64: they differ by little from large."""
    out, size = {"reconstruction": terms.log_likelihood.sum(0)}, len(terms.log_likelihood)
    if terms.bounded:
        for latent in terms.latents:
            out[f"kl/{latent.name}"] = size * latent.kl().flatten(1)
    if terms.exact:
        weights = terms.log_weights.double()
        out["log_sum"], out["log_sum_squares"] = weights.logsumexp(0), (2 * weights).logsumexp(0)
    return out

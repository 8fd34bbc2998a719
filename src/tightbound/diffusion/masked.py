r"""Masked (absorbing) diffusion over codes: the chain that hides them, its bound, and revealing them again.

Convention: x is P codes, of which at time t each is hidden with probability t, independently; a :class:`CodeDenoiser`
gives :math:`p(x_i \mid x_v)`, the probabilities of every code given the visible ones. The last x is hidden completely,
so the prior's term is 0, and in continuous time

.. math:: -\ln p(x) \le \int_0^1 \frac{1}{t} \, \mathbb{E} \sum_{i \text{ hidden}} -\ln p(x_i \mid x_v) \, dt
    = \mathbb{E}_{m \sim U\{1..P\}} \frac{P}{m} \, \mathbb{E}_{m \text{ hidden}} \sum_{i \text{ hidden}}
    -\ln p(x_i \mid x_v)

Given their number m, all sets of hidden codes are equally probable: drawing m instead of t leaves the mean as it is and
takes the chance of m given t out of the estimate. Any other schedule of t is the same bound, by substitution. With
exact conditionals the right side is the entropy in the mean: it is the mean over all orders of a factorisation of p(x).

In a chain of T steps, :math:`t_k = k / T`, the step from :math:`t_k` reveals a hidden code with probability
:math:`(t_k - t_{k-1}) / t_k = 1 / k`, and

.. math:: -\ln p(x) \le \sum_{k=1}^{T} \frac{1}{k} \, \mathbb{E}_{t_k} \sum_{i \text{ hidden}} -\ln p(x_i \mid x_v)
    = \mathbb{E}_{m \sim \pi_T} \frac{P}{m} \, \mathbb{E}_{m \text{ hidden}} \sum_{i \text{ hidden}}
    -\ln p(x_i \mid x_v),
    \qquad \pi_T(m) = \frac{1}{T} \sum_{k=1}^{T} \mathrm{Bin}(m - 1;\, P - 1,\, k / T)

So only the distribution of the number of hidden codes depends on T. The step costs the dependence between codes that
are revealed at once.

References:
    Structured Denoising Diffusion Models in Discrete State-Spaces (Austin, Johnson, Ho, Tarlow and van den Berg, 2021).
    Autoregressive Diffusion Models (Hoogeboom et al., 2022).
    Simple and Effective Masked Diffusion Language Models (Sahoo et al., 2024).
    Simplified and Generalized Masked Diffusion for Discrete Data (Shi et al., 2024).
    Your Absorbing Discrete Diffusion Secretly Models the Conditional Distributions of Clean Data (Ou et al., 2025).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..conditions import Given
from ..distributions import Sampling
from ..errors import UsageError
from ..runtime.modes import at_least_float32
from ..runtime.progress import progress

__all__ = [
    "CodeDenoiser",
    "bound_terms",
    "hidden_counts",
    "log_probs_of",
    "numbers_hidden",
    "random_sets",
    "reveal",
    "spans",
]

Logits = tuple[Tensor, ...]
"""Logits of every code of each level, ``(n, positions, K)``."""


class CodeDenoiser(nn.Module):
    """Abstract: the probabilities of every code given the visible ones; hidden codes have no effect."""

    @abstractmethod
    def forward(self, codes: Tensor, hidden: Tensor, c: Given | None = None) -> Logits:
        """Logits of each level, ``(n, positions, K)``.

        Args:
            codes: Codes of all levels, int64 ``(n, P)``.
            hidden: Which of them are hidden, bool ``(n, P)``.
            c: Conditions of shape ``(n,)``, or None.
        """


def hidden_counts(positions: int, steps: int | None = None) -> Tensor:
    r"""The probabilities :math:`\pi(m)` of m = 1, ..., P hidden codes, ``(P)`` float64.

    Args:
        positions: P.
        steps: T; None for continuous time, where all are equal.

    Raises:
        UsageError: If there are no steps.

    Example:
        >>> hidden_counts(4).tolist()
        [0.25, 0.25, 0.25, 0.25]
        >>> hidden_counts(4, steps=1).round(decimals=9).tolist()  # one step reveals all codes at once
        [0.0, 0.0, 0.0, 1.0]
    """
    if steps is None:
        return torch.full((positions,), 1 / positions, dtype=torch.float64)
    if steps < 1:
        raise UsageError("A chain needs at least one step.", got=steps, remedy="Leave steps out: continuous time.")
    t = torch.arange(1, steps + 1, dtype=torch.float64).unsqueeze(1) / steps
    others = torch.arange(positions, dtype=torch.float64)
    ways = math.lgamma(positions) - torch.lgamma(others + 1) - torch.lgamma(positions - others)
    binomial = ways + torch.xlogy(others, t) + torch.special.xlog1py(positions - 1 - others, -t)
    return binomial.exp().mean(0)


def numbers_hidden(times: Tensor, probabilities: Tensor) -> Tensor:
    r"""The number m of hidden codes at each time: the inverse of the distribution function of :math:`\pi`.

    Args:
        times: Uniform in [0, 1), of any shape.
        probabilities: :math:`\pi`, ``(P)``.

    Example:
        >>> numbers_hidden(torch.tensor([0.0, 0.3, 0.99]), hidden_counts(4))
        tensor([1, 2, 4])
    """
    up_to = probabilities.cumsum(0).to(times.device, times.dtype)
    m = torch.searchsorted(up_to, times, right=True)
    return m.clamp(max=len(up_to) - 1) + 1


def random_sets(numbers: Tensor, positions: int) -> Tensor:
    """A random set of hidden codes of each given size, bool ``(n, P)``.

    Args:
        numbers: Sizes, ``(n)``.
        positions: P.

    Example:
        >>> random_sets(torch.tensor([0, 2, 3]), 3).sum(1)
        tensor([0, 2, 3])
    """
    return _ranks(len(numbers), positions, numbers.device) < numbers.unsqueeze(1)


def _ranks(n: int, positions: int, device: torch.device) -> Tensor:
    """A random order of the positions for each of n rows: the place of every position in it, ``(n, P)``."""
    return torch.rand(n, positions, device=device).argsort(1).argsort(1)


def bound_terms(log_probs: Tensor, hidden: Tensor) -> Tensor:
    r"""What each position adds to an estimate of the bound: :math:`\frac{P}{m} \ln p(x_i \mid x_v)` if hidden, or 0.

    Args:
        log_probs: Log-probabilities of the true codes, ``(n, P)`` nats.
        hidden: Which are hidden, bool ``(n, P)``, at least one of each example.

    Example:
        >>> bound_terms(torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, False]]))
        tensor([[-2., 0.]])
    """
    weight = hidden.shape[1] / hidden.sum(1, keepdim=True, dtype=log_probs.dtype)
    return torch.where(hidden, log_probs, 0) * weight


def log_probs_of(logits: Logits, codes: Tensor) -> Tensor:
    """Log-probabilities of codes ``(n, P)`` under the logits of each level, ``(n, P)`` nats."""
    levels = zip(logits, codes.split([each.shape[1] for each in logits], dim=1), strict=True)
    chosen = [at_least_float32(l).log_softmax(-1).gather(-1, k.unsqueeze(-1)).squeeze(-1) for l, k in levels]
    return torch.cat(chosen, dim=1)


# -- sampling ---------------------------------------------------------------------------------------------------------


def spans(positions: int, steps: int) -> list[tuple[int, int]]:
    r"""The places in a random order that each step reveals, at least one: few at first, where each tells most of the
    others.

    After k of T steps :math:`P (1 - \cos(\pi k / 2 T))` are visible, rounded.

    References:
        MaskGIT: Masked Generative Image Transformer (Chang, Zhang, Jiang, Liu and Freeman, 2022).

    Args:
        positions: P.
        steps: Number of steps T; more than P are P.

    Example:
        >>> spans(10, 4), len(spans(10, 99))
        ([(0, 1), (1, 3), (3, 6), (6, 10)], 10)
    """
    steps, ends = min(steps, positions), [0]
    for k in range(1, steps + 1):
        visible = round(positions * (1 - math.cos(math.pi / 2 * k / steps)))
        ends.append(min(max(visible, ends[-1] + 1), positions - (steps - k)))
    return list(pairwise(ends))


@torch.no_grad()
def reveal(
    denoise: Callable[[Tensor, Tensor], Logits],
    n: int,
    positions: int,
    plan: Sequence[tuple[int, int]],
    how: Sampling = Sampling(),  # noqa: B008 - frozen
    null: Callable[[Tensor, Tensor], Logits] | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    r"""Samples codes by revealing them in random order, those of a step independently given all visible ones.

    With exact conditionals and one code at a time the samples have the distribution p(x); steps of several codes ignore
    the dependence between these. Probabilities are float64: with rounded ones rare codes would be drawn too seldom,
    as at a lower temperature.

    References:
        MaskGIT: Masked Generative Image Transformer (Chang, Zhang, Jiang, Liu and Freeman, 2022).
        Masked Diffusion Models are Secretly Time-Agnostic Masked Models and Exploit Inaccurate Categorical Sampling
        (Zheng et al., 2025).

    Args:
        denoise: From codes and hidden ones, ``(n, P)`` each, to the logits of each level.
        n: Number of samples.
        positions: P.
        plan: From :func:`spans`.
        how: How a code is drawn from its logits.
        null: As ``denoise``, without the condition; used if guidance is not 1.
        device: Where to draw.

    Returns:
        Codes, int64 ``(n, P)``.

    Example:
        >>> even = lambda codes, hidden: (torch.zeros(*codes.shape, 2),)
        >>> reveal(even, 3, 5, spans(5, 2)).shape
        torch.Size([3, 5])
    """
    codes = torch.zeros(n, positions, dtype=torch.int64, device=device)
    rank = _ranks(n, positions, codes.device)
    with progress("drawing codes", len(plan)) as advance:
        for begin, end in plan:
            hidden, now = rank >= begin, (rank >= begin) & (rank < end)
            without = null(codes, hidden) if null is not None and how.guidance != 1 else None
            codes = _drawn(codes, now, denoise(codes, hidden), without, how)
            advance()
    return codes


def _drawn(codes: Tensor, now: Tensor, logits: Logits, null: Logits | None, how: Sampling) -> Tensor:
    """The codes, with those to be revealed now drawn from their logits."""
    sizes, drawn = [each.shape[1] for each in logits], list[Tensor]()
    for level, (old, at) in enumerate(zip(codes.split(sizes, 1), now.split(sizes, 1), strict=True)):
        without = None if null is None else _precise(null[level][at])
        chosen = how.choose(_precise(logits[level][at]), without)
        drawn.append(old.masked_scatter(at, chosen.to(old.device)))
    return torch.cat(drawn, dim=1)


def _precise(logits: Tensor) -> Tensor:
    """Logits in float64, on the CPU if their device has none."""
    return (logits.cpu() if logits.device.type == "mps" else logits).double()

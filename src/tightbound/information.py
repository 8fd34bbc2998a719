r"""Information: surprise, entropy, cross-entropy, KL divergence and mutual information, of tables and distributions.

Convention: a table is a tensor of probabilities whose last dimension (of a joint table: the last two) is summed over; a
result has the remaining shape. Everything is in nats, or in bits with ``unit="bits"``; :math:`0 \log 0 = 0`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from .errors import ShapeError, UsageError

__all__ = [
    "MonteCarlo",
    "conditional_entropy",
    "cross_entropy",
    "entropy",
    "joint_entropy",
    "kl",
    "mutual_information",
    "surprise",
]

Unit = Literal["nats", "bits"]


@dataclass(frozen=True)
class MonteCarlo:
    """A value estimated from samples.

    Args:
        value: The mean over the samples, ``(*batch)``.
        standard_error: Its standard error, ``(*batch)``.
        samples: Their number.
    """

    value: Tensor
    standard_error: Tensor
    samples: int


@overload
def surprise(probability: Tensor, unit: Unit = "nats") -> Tensor: ...
@overload
def surprise(probability: Distribution, unit: Unit = "nats", *, of: Tensor) -> Tensor: ...
def surprise(probability: Tensor | Distribution, unit: Unit = "nats", *, of: Tensor | None = None) -> Tensor:
    r"""How surprising an event of that probability is, :math:`-\log p`: it adds where probabilities multiply.

    References:
        A Mathematical Theory of Communication (Shannon, 1948).

    Args:
        probability: Any shape; from 0, infinitely surprising, to 1, not at all. Or a distribution.
        unit: ``"nats"`` or ``"bits"``.
        of: The value whose surprise is computed, for a distribution.

    Raises:
        UsageError: If a value is not a probability, or the unit is unknown.

    Example:
        >>> surprise(torch.tensor([1.0, 0.5, 0.25]), "bits")
        tensor([0., 1., 2.])
    """
    if isinstance(probability, Distribution):
        if of is None:
            raise UsageError("The surprise of a distribution needs a value.", remedy="Pass it: surprise(p, of=x).")
        return -probability.log_prob(of) / _nats(unit)
    if not ((probability >= 0) & (probability <= 1)).all():
        least, most = probability.min().item(), probability.max().item()
        raise UsageError("A probability must lie between 0 and 1.", got=f"values from {least:g} to {most:g}")
    return -probability.log() / _nats(unit) + 0.0


@overload
def entropy(p: Tensor, unit: Unit = "nats") -> Tensor: ...
@overload
def entropy(p: Distribution, unit: Unit = "nats", *, samples: int = 10_000) -> Tensor | MonteCarlo: ...
def entropy(p: Tensor | Distribution, unit: Unit = "nats", *, samples: int = 10_000) -> Tensor | MonteCarlo:
    r"""Average surprise, :math:`H(p) = -\mathbb{E}_p \log p(x)`; of a density, its differential entropy.

    References:
        A Mathematical Theory of Communication (Shannon, 1948).

    Args:
        p: A table ``(*batch, n)``, or a distribution.
        unit: ``"nats"`` or ``"bits"``.
        samples: Number of samples where a distribution has no closed form.

    Returns:
        ``(*batch)``; a :class:`MonteCarlo` where a distribution has no closed form.

    Raises:
        UsageError: If a table does not sum to one, or the unit is unknown.

    Example:
        >>> round(entropy(torch.full((8,), 1 / 8), "bits").item(), 4)
        3.0
    """
    if isinstance(p, Tensor):
        return cross_entropy(p, p, unit)
    try:
        return p.entropy() / _nats(unit)
    except NotImplementedError:
        return _mean(-p.log_prob(p.sample((samples,))), unit)


@overload
def cross_entropy(p: Tensor, q: Tensor, unit: Unit = "nats") -> Tensor: ...
@overload
def cross_entropy(
    p: Distribution, q: Distribution, unit: Unit = "nats", *, samples: int = 10_000
) -> Tensor | MonteCarlo: ...
def cross_entropy(
    p: Tensor | Distribution, q: Tensor | Distribution, unit: Unit = "nats", *, samples: int = 10_000
) -> Tensor | MonteCarlo:
    r"""Average surprise under p of the model q, :math:`H(p, q) = -\mathbb{E}_p \log q(x)`.

    It is the entropy of p plus the KL divergence, :math:`H(p) + \mathrm{KL}(p \,\|\, q)`.

    References:
        Elements of Information Theory (Cover and Thomas, 2006).

    Args:
        p: The true distribution: a table ``(*batch, n)``, or a distribution.
        q: The model, of the same kind.
        unit: ``"nats"`` or ``"bits"``.
        samples: Number of samples of p if there is no closed form.

    Returns:
        ``(*batch)``, infinite where q is 0 and p is not; a :class:`MonteCarlo` where distributions have no closed form.

    Raises:
        UsageError: If a table does not sum to one, the kinds differ, or the unit is unknown.
        ShapeError: If the tables are of different sizes.

    Example:
        >>> p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
        >>> torch.isclose(cross_entropy(p, q), entropy(p) + kl(p, q))
        tensor(True)
    """
    if isinstance(p, Tensor) and isinstance(q, Tensor):
        _check_tables(p, q)
        return -torch.xlogy(p, q).sum(-1) / _nats(unit) + 0.0
    p, q = _distributions(p, q)
    try:
        return (p.entropy() + kl_divergence(p, q)) / _nats(unit)
    except NotImplementedError:
        return _mean(-q.log_prob(p.sample((samples,))), unit)


@overload
def kl(p: Tensor, q: Tensor, unit: Unit = "nats") -> Tensor: ...
@overload
def kl(p: Distribution, q: Distribution, unit: Unit = "nats", *, samples: int = 10_000) -> Tensor | MonteCarlo: ...
def kl(
    p: Tensor | Distribution, q: Tensor | Distribution, unit: Unit = "nats", *, samples: int = 10_000
) -> Tensor | MonteCarlo:
    r"""Extra surprise of using q in place of p, :math:`\mathrm{KL}(p \,\|\, q) = \mathbb{E}_p \log p(x) - \log q(x) \ge
    0`.

    References:
        On Information and Sufficiency (Kullback and Leibler, 1951).

    Args:
        p: The true distribution: a table ``(*batch, n)``, or a distribution.
        q: The model, of the same kind.
        unit: ``"nats"`` or ``"bits"``.
        samples: Number of samples of p if there is no closed form.

    Returns:
        As :func:`cross_entropy`; zero only where p and q are the same.

    Raises:
        UsageError: If a table does not sum to one, the kinds differ, or the unit is unknown.
        ShapeError: If the tables are of different sizes.

    Example:
        >>> kl(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]), "bits")
        tensor(1.)
        >>> kl(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
        tensor(inf)
    """
    if isinstance(p, Tensor) and isinstance(q, Tensor):
        _check_tables(p, q)
        terms = torch.where(p > 0, p * (p / q).log(), 0.0)
        return terms.sum(-1).clamp(min=0.0) / _nats(unit)
    p, q = _distributions(p, q)
    try:
        return kl_divergence(p, q) / _nats(unit)
    except NotImplementedError:
        x = p.sample((samples,))
        return _mean(p.log_prob(x) - q.log_prob(x), unit)


def joint_entropy(joint: Tensor, unit: Unit = "nats") -> Tensor:
    r"""Average surprise of the pair, :math:`H(x, y) = H(x) + H(y \mid x)`.

    References:
        Elements of Information Theory (Cover and Thomas, 2006).

    Args:
        joint: Table of :math:`p(x, y)`, ``(*batch, n, m)``.
        unit: ``"nats"`` or ``"bits"``.

    Raises:
        UsageError: If the table does not sum to one, or the unit is unknown.

    Example:
        >>> round(joint_entropy(torch.full((2, 4), 1 / 8), "bits").item(), 4)
        3.0
    """
    return entropy(_flat(joint), unit)


def conditional_entropy(joint: Tensor, unit: Unit = "nats") -> Tensor:
    r"""Average surprise of y given x, :math:`H(y \mid x) = H(x, y) - H(x)`.

    References:
        Elements of Information Theory (Cover and Thomas, 2006).

    Args:
        joint: Table of :math:`p(x, y)`, ``(*batch, n, m)``.
        unit: ``"nats"`` or ``"bits"``.

    Raises:
        UsageError: If the table does not sum to one, or the unit is unknown.

    Example:
        >>> conditional_entropy(torch.eye(4) / 4, "bits")
        tensor(0.)
    """
    return joint_entropy(joint, unit) - entropy(joint.sum(-1), unit)


def mutual_information(joint: Tensor, unit: Unit = "nats") -> Tensor:
    r"""What x says about y, :math:`I(x; y) = \mathrm{KL}(p(x, y) \,\|\, p(x) p(y)) = H(x) + H(y) - H(x, y)`.

    References:
        A Mathematical Theory of Communication (Shannon, 1948).

    Args:
        joint: Table of :math:`p(x, y)`, ``(*batch, n, m)``.
        unit: ``"nats"`` or ``"bits"``.

    Raises:
        UsageError: If the table does not sum to one, or the unit is unknown.

    Example:
        >>> mutual_information(torch.eye(4) / 4, "bits")
        tensor(2.)
    """
    together = _flat(joint)
    product = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    return kl(together, _flat(product), unit)


def _flat(joint: Tensor) -> Tensor:
    if joint.dim() < 2:
        raise ShapeError("A joint table must have two dimensions.", got=tuple(joint.shape), expected="(*batch, n, m)")
    return joint.flatten(-2)


def _nats(unit: Unit) -> float:
    """Size of the unit in nats."""
    if unit not in ("nats", "bits"):
        raise UsageError("Unknown unit.", got=repr(unit), expected="nats or bits")
    return 1.0 if unit == "nats" else math.log(2)


def _mean(values: Tensor, unit: Unit) -> MonteCarlo:
    values = values / _nats(unit)
    return MonteCarlo(values.mean(0), values.std(0) / math.sqrt(len(values)), len(values))


def _distributions(p: object, q: object) -> tuple[Distribution, Distribution]:
    if isinstance(p, Distribution) and isinstance(q, Distribution):
        return p, q
    kinds = f"{type(p).__name__} and {type(q).__name__}"
    raise UsageError("Only two tables or two distributions can be compared.", got=kinds)


def _check_tables(*tables: Tensor) -> None:
    for table in tables:
        one = torch.ones((), dtype=table.dtype, device=table.device)
        if (table < 0).any() or not torch.allclose(table.sum(-1), one, atol=1e-4):
            raise UsageError(
                "A table of probabilities must sum to one over its last dimension.",
                got=f"a smallest entry of {table.min().item():g} and sums up to {table.sum(-1).max().item():g}",
                remedy="Divide counts by their sum.",
            )
    if len({table.shape[-1] for table in tables}) > 1:
        raise ShapeError("The tables are over different events.", got=[tuple(table.shape) for table in tables])

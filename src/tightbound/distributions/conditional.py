r"""Conditional distributions :math:`p(y \mid x, c)`: modules whose call returns a distribution.

Convention: an input has shape ``(*leading, *input_shape)`` and a
condition ``c`` is a :class:`~tightbound.conditions.Given` of shape ``(*batch)``.
The network sees one flat batch; the distribution has ``batch_shape == leading`` and the event as its ``event_shape``.
Any module that keeps this contract can stand wherever one is asked for; log-densities are in nats.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from ..conditions import Given
from ..errors import ObjectiveError, ShapeError, UsageError

__all__ = [
    "Conditional",
    "Embeddings",
    "Unconditional",
    "broadcast",
    "embedded",
    "independent",
    "leading_shape",
    "require_event_shape",
]


class Conditional(nn.Module):
    r"""Abstract :math:`p(y \mid x, c)`: a network gives features, :meth:`distribution` turns them into a distribution.

    Its attribute ``embedding`` turns a condition into the features that the network is shown: a module of the one entry
    that there is, or :class:`Embeddings` of several; None shows it the entry itself. This is the one place where sample
    and batch dimensions are flattened before a network and restored behind it, where a condition is broadcast to them,
    and where reduced precision ends: densities are at least float32.

    Args:
        network: Maps ``(n, *input_shape)``, and ``(n, condition_dim)`` where there is a condition, to ``(n, ...)``.
        input_shape: Shape of one input.

    Raises:
        ShapeError: If an input does not end in ``input_shape``, or a condition cannot be broadcast to its batch.
    """

    def __init__(self, network: nn.Module, input_shape: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.embedding: nn.Module | None = None
        self.input_shape = tuple(input_shape)

    def forward(self, inputs: Tensor, c: Given | None = None) -> Distribution:
        return self.distribution(self.features(inputs, c))

    def features(self, inputs: Tensor, c: Given | None = None) -> Tensor:
        """The network's output, of shape ``(*leading, ...)``."""
        leading = leading_shape(inputs, self.input_shape)
        flat = inputs.reshape(math.prod(leading), *self.input_shape)
        shown = embedded(self.embedding, c)
        out = self.network(flat) if shown is None else self.network(flat, broadcast(shown, leading))
        if out.dtype in (torch.bfloat16, torch.float16):
            out = out.float()
        return out.reshape(*leading, *out.shape[1:])

    def distribution(self, features: Tensor) -> Distribution:
        """The distribution that features of shape ``(*leading, ...)`` parametrise."""
        raise NotImplementedError


class Unconditional(nn.Module):
    """In the place of an embedding: its part is given no condition, whatever the model is given.

    Such are the parts of a first stage, behind a prior that is given a text, and a posterior that sees the whole of a
    picture of which the condition is a part.

    Example:
        >>> part = nn.Linear(3, 2)
        >>> embedded(Unconditional(), Given({"class": torch.zeros(5, 1)})) is None
        True
    """


class Embeddings(nn.Module):
    """Features of several conditions, each with an embedding of its own: their sum.

    Added, they have one size, whatever a model is given, and what a missing condition adds is learned too. A vector is
    added to each of several that stand in a row, such as those of a text's tokens. It is shown the conditions that it
    names, and no others.

    Args:
        each: By name, a module from an entry ``(n, size)`` to features ``(n, dim)``, or ``(n, length, dim)`` in a row.

    Example:
        >>> c = Given({"class": torch.zeros(5, 1), "vector": torch.zeros(5, 3)})
        >>> Embeddings({"class": nn.Linear(1, 4), "vector": nn.Linear(3, 4)})(c).shape
        torch.Size([5, 4])
    """

    def __init__(self, each: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.each = nn.ModuleDict(each)

    def forward(self, c: Given) -> Tensor:
        """The features ``(n, dim)`` or ``(n, length, dim)`` of conditions ``(n,)``."""
        found = [embedding(c[name]) for name, embedding in self.each.items()]
        rows = any(features.dim() == 3 for features in found)
        shown = [features.unsqueeze(1) if rows and features.dim() == 2 else features for features in found]
        return functools.reduce(torch.add, shown)


def leading_shape(inputs: Tensor, input_shape: Sequence[int]) -> tuple[int, ...]:
    """The sample and batch dimensions of inputs that must end in ``input_shape``.

    Raises:
        ShapeError: If they do not.

    Example:
        >>> leading_shape(torch.zeros(3, 5, 1, 8, 8), (1, 8, 8))
        (3, 5)
    """
    input_shape = tuple(input_shape)
    split = inputs.dim() - len(input_shape)
    if split < 0 or tuple(inputs.shape[split:]) != input_shape:
        raise ShapeError(
            "The input does not fit the network.",
            got=tuple(inputs.shape),
            expected=f"(*leading, {', '.join(map(str, input_shape))})",
            remedy="Reshape the input, or build the model from the spec of this data.",
        )
    return tuple(inputs.shape[:split])


def embedded(embedding: nn.Module | None, c: Given | None) -> Tensor | None:
    """Features ``(*batch, dim)`` of conditions of shape ``(*batch)``; None for a part that is given none.

    Args:
        embedding: Of the one entry that there is, or :class:`Embeddings` of several; None for the entry itself.
        c: The conditions.

    Raises:
        ObjectiveError: If there is no condition where the part is given one.
        UsageError: If that is no :class:`~tightbound.conditions.Given`, or has several entries for one embedding.

    Example:
        >>> embedded(nn.Linear(3, 2), Given({"vector": torch.zeros(4, 5, 3)})).shape
        torch.Size([4, 5, 2])
    """
    if isinstance(embedding, Unconditional):
        return None
    if c is not None:
        return _features(embedding, c)
    if embedding is not None:
        raise ObjectiveError(
            "The model is given a condition, and there is none.",
            remedy="Call model(c): x, c = model.see(batch); c.missing() is what stands for none.",
        )
    return None


def _features(embedding: nn.Module | None, c: Given) -> Tensor:
    if not isinstance(c, Given):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(
            "A model is given named conditions.",
            got=type(c).__name__,
            expected="a Given, such as tightbound.conditions.Given({'class': torch.tensor([[7]])})",
            remedy="x, c = model.see(batch) makes it of data, model.condition.read(words) of words.",
        )
    if embedding is None:
        return c.only
    flat = c.flatten()
    out = embedding(flat if isinstance(embedding, Embeddings) else flat.only)
    return out.reshape(*c.shape, *out.shape[1:])


def broadcast(features: Tensor, leading: tuple[int, ...]) -> Tensor:
    """Features of conditions, ``(*batch, dim)``, for all of the leading dimensions, flat.

    Raises:
        ShapeError: If they do not fit.

    Example:
        >>> broadcast(torch.zeros(5, 2), (3, 5)).shape
        torch.Size([15, 2])
    """
    try:
        return features.expand(*leading, features.shape[-1]).reshape(math.prod(leading), features.shape[-1])
    except (RuntimeError, IndexError):
        raise ShapeError(
            "The condition does not fit the batch.",
            got=tuple(features.shape[:-1]),
            expected=f"(*batch) with batch ending {leading}",
            remedy="Give one condition per example, or none.",
        ) from None


def independent(base: Distribution, event_dims: int) -> Independent:
    """``base`` with its last ``event_dims`` dimensions as the event, unvalidated.

    Example:
        >>> from torch.distributions import Normal
        >>> independent(Normal(torch.zeros(5, 3), torch.ones(5, 3)), 1).event_shape
        torch.Size([3])
    """
    return Independent(base, event_dims, validate_args=False)


def require_event_shape(distribution: Distribution, event_shape: Sequence[int], name: str) -> None:
    """Refuses a distribution over values of another shape: a forgotten ``Independent`` would sum nothing.

    Raises:
        ShapeError: If its events have another shape.

    Example:
        >>> from torch.distributions import Normal
        >>> require_event_shape(independent(Normal(torch.zeros(5, 3), torch.ones(5, 3)), 1), (3,), "posterior")
    """
    if tuple(distribution.event_shape) == tuple(event_shape):
        return
    raise ShapeError(
        f"The {name} is not a distribution over such values.",
        got=f"a batch of {tuple(distribution.batch_shape)} and events of shape {tuple(distribution.event_shape)}",
        expected=f"events of shape {tuple(event_shape)}",
        remedy="Wrap it: torch.distributions.Independent(distribution, number_of_event_dimensions).",
    )

r"""Conditional distributions :math:`p(y \mid x, c)`: modules whose call returns a distribution.

Convention: an input has shape ``(*leading, *input_shape)`` and a condition ``c`` is a
:class:`~tightbound.conditions.Given` of shape ``(*batch)``. The network sees one flat batch; the distribution has
``batch_shape == leading`` and the event as its ``event_shape``. Any module that follows this
contract can be used in its place; log-densities are in nats.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from ..conditions import Given, require_given
from ..errors import ObjectiveError, ShapeError
from ..runtime.modes import at_least_float32

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
    r"""Abstract :math:`p(y \mid x, c)`: a network outputs features, :meth:`distribution` the distribution.

    Its attribute ``embedding`` maps a condition to features for the network: a module for a single entry, or
    :class:`Embeddings` for several; None passes the entry itself. Only here are sample and batch dimensions flattened
    before a network and restored after it, conditions broadcast to them, and outputs of reduced precision converted:
    densities are at least float32.

    Args:
        network: Maps ``(n, *input_shape)``, and ``(n, condition_dim)`` if there is a condition, to ``(n, ...)``.
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
        return at_least_float32(out).reshape(*leading, *out.shape[1:])

    def distribution(self, features: Tensor) -> Distribution:
        """The distribution that features of shape ``(*leading, ...)`` parametrise."""
        raise NotImplementedError


class Unconditional(nn.Module):
    """Used as an embedding: this part ignores the condition of the model.

    Used for the parts of a first stage whose prior is conditioned on a text, and for a posterior that sees the complete
    image of which the condition is a part.

    Example:
        >>> part = nn.Linear(3, 2)
        >>> embedded(Unconditional(), Given({"class": torch.zeros(5, 1)})) is None
        True
    """


class Embeddings(nn.Module):
    """Features of several conditions: the sum of an embedding of each.

    The sum has the same size for any number of conditions, and the contribution of a missing condition is learned too.
    If one embedding is a sequence, such as that of a text's tokens, vectors are added to each of its positions. Entries
    without an embedding are ignored.

    Args:
        each: For each name a module that maps an entry ``(n, size)`` to features ``(n, dim)``, or to a sequence ``(n,
            length, dim)``.

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
    """Features ``(*batch, dim)`` of conditions of shape ``(*batch)``; None for an unconditional part.

    Args:
        embedding: A module for a single entry, or :class:`Embeddings` for several; None for the entry itself.
        c: The conditions.

    Raises:
        ObjectiveError: If the part needs a condition and none is given.
        UsageError: If ``c`` is not a :class:`~tightbound.conditions.Given`, or has several entries for one embedding.

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
            "This model needs a condition, and none was given.",
            remedy="Call model(c), with x, c = model.see(batch); c.missing() stands for a missing condition.",
        )
    return None


def _features(embedding: nn.Module | None, c: Given) -> Tensor:
    require_given(c)
    if embedding is None:
        return c.only
    flat = c.flatten()
    out = embedding(flat if isinstance(embedding, Embeddings) else flat.only)
    return out.reshape(*c.shape, *out.shape[1:])


def broadcast(features: Tensor, leading: tuple[int, ...]) -> Tensor:
    """Features of conditions, ``(*batch, dim)``, broadcast to the leading dimensions and flattened.

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
    """Refuses a distribution over values of another shape: without ``Independent`` nothing would be summed.

    Raises:
        ShapeError: If its events have another shape.

    Example:
        >>> from torch.distributions import Normal
        >>> require_event_shape(independent(Normal(torch.zeros(5, 3), torch.ones(5, 3)), 1), (3,), "posterior")
    """
    if tuple(distribution.event_shape) == tuple(event_shape):
        return
    raise ShapeError(
        f"The {name} has the wrong event shape.",
        got=f"a batch of {tuple(distribution.batch_shape)} and events of shape {tuple(distribution.event_shape)}",
        expected=f"events of shape {tuple(event_shape)}",
        remedy="Wrap it: torch.distributions.Independent(distribution, event_dims).",
    )

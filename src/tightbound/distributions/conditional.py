r"""Conditional distributions :math:`p(y \mid x, c)`: modules whose call returns a distribution.

Convention: an input has shape ``(*leading, *input_shape)`` and a condition ``c`` has shape ``(*batch, condition_dim)``.
The network sees one flat batch; the distribution has ``batch_shape == leading`` and the event as its ``event_shape``.
Any module that follows this contract can be used in its place; log-densities are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from ..errors import ObjectiveError, ShapeError

__all__ = [
    "Conditional",
    "Unconditional",
    "broadcast",
    "embedded",
    "independent",
    "leading_shape",
    "require_event_shape",
]


class Conditional(nn.Module):
    r"""Abstract :math:`p(y \mid x, c)`: a network gives features, :meth:`distribution` turns them into a distribution.

    Its attribute ``embedding`` turns a condition into features for the network; None passes the condition itself. Only
    here are sample and batch dimensions flattened before a network and restored after it, and conditions broadcast to
    them. Densities are at least float32, also under autocast.

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

    def forward(self, inputs: Tensor, c: Tensor | None = None) -> Distribution:
        return self.distribution(self.features(inputs, c))

    def features(self, inputs: Tensor, c: Tensor | None = None) -> Tensor:
        """The network's output, of shape ``(*leading, ...)``."""
        leading = leading_shape(inputs, self.input_shape)
        flat = inputs.reshape(math.prod(leading), *self.input_shape)
        c = embedded(self.embedding, c)
        out = self.network(flat) if c is None else self.network(flat, broadcast(c, leading))
        if out.dtype in (torch.bfloat16, torch.float16):
            out = out.float()
        return out.reshape(*leading, *out.shape[1:])

    def distribution(self, features: Tensor) -> Distribution:
        """The distribution that features of shape ``(*leading, ...)`` parametrise."""
        raise NotImplementedError


class Unconditional(nn.Module):
    """Used as an embedding: this part ignores the condition of the model.

    Used for the parts of a first stage whose prior is conditioned on a text, and for a posterior that sees the complete
    image of which the condition is a part.

    Example:
        >>> part = nn.Linear(3, 2)
        >>> embedded(Unconditional(), torch.zeros(5, 4)) is None
        True
    """


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


def embedded(embedding: nn.Module | None, c: Tensor | None) -> Tensor | None:
    """Features ``(*batch, dim)`` of conditions ``(*batch, size)``; None for an unconditional part.

    Raises:
        ObjectiveError: If the part is conditional and no condition is given.

    Example:
        >>> embedded(nn.Linear(3, 2), torch.zeros(4, 5, 3)).shape
        torch.Size([4, 5, 2])
    """
    if embedding is None:
        return c
    if isinstance(embedding, Unconditional):
        return None
    if c is None:
        raise ObjectiveError(
            "This model needs a condition, and none was given.",
            remedy="Call model(c): x, c = model.see(batch); conditions.missing(c) makes the missing condition.",
        )
    out = embedding(c.reshape(-1, c.shape[-1]))
    return out.reshape(*c.shape[:-1], *out.shape[1:])


def broadcast(c: Tensor, leading: tuple[int, ...]) -> Tensor:
    """Conditions ``(*batch, size)`` for all of the leading dimensions, flat.

    Raises:
        ShapeError: If they do not fit.

    Example:
        >>> broadcast(torch.zeros(5, 2), (3, 5)).shape
        torch.Size([15, 2])
    """
    try:
        return c.expand(*leading, c.shape[-1]).reshape(math.prod(leading), c.shape[-1])
    except (RuntimeError, IndexError):
        raise ShapeError(
            "The condition does not fit the batch.",
            got=tuple(c.shape),
            expected=f"(*batch, condition_dim) with batch ending {leading}",
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

r"""Conditional distributions :math:`p(y \mid x, c)`: modules whose call returns a distribution.

Convention: an input has shape ``(*leading, *input_shape)`` and a condition ``c`` has shape ``(*batch, condition_dim)``.
The network sees one flat batch; the distribution has ``batch_shape == leading`` and the event as its ``event_shape``.
Any module that keeps this contract can stand wherever one is asked for; log-densities are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from ..errors import ShapeError

__all__ = ["Conditional", "check_event", "has_density", "independent"]


class Conditional(nn.Module):
    r"""Abstract :math:`p(y \mid x, c)`: a network gives features, :meth:`distribution` turns them into a distribution.

    This is the one place where sample and batch dimensions are flattened before a network and restored behind it,
    where a condition is broadcast to them, and where reduced precision ends: densities are at least float32.

    Args:
        network: Maps ``(n, *input_shape)``, and ``(n, condition_dim)`` where there is a condition, to ``(n, ...)``.
        input_shape: Shape of one input.

    Raises:
        ShapeError: If an input does not end in ``input_shape``, or a condition cannot be broadcast to its batch.
    """

    def __init__(self, network: nn.Module, input_shape: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.input_shape = tuple(input_shape)

    def forward(self, inputs: Tensor, c: Tensor | None = None) -> Distribution:
        return self.distribution(self.features(inputs, c))

    def features(self, inputs: Tensor, c: Tensor | None = None) -> Tensor:
        """The network's output, of shape ``(*leading, ...)``."""
        leading = _leading(inputs, self.input_shape)
        flat = inputs.reshape(math.prod(leading), *self.input_shape)
        out = self.network(flat) if c is None else self.network(flat, _broadcast(c, leading))
        if out.dtype in (torch.bfloat16, torch.float16):
            out = out.float()
        return out.reshape(*leading, *out.shape[1:])

    def distribution(self, features: Tensor) -> Distribution:
        """The distribution that features of shape ``(*leading, ...)`` parametrise."""
        raise NotImplementedError


def _leading(inputs: Tensor, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    split = inputs.dim() - len(input_shape)
    if split < 0 or tuple(inputs.shape[split:]) != input_shape:
        raise ShapeError(
            "The input does not fit the network.",
            got=tuple(inputs.shape),
            expected=f"(*leading, {', '.join(map(str, input_shape))})",
            remedy="Reshape the input, or build the model from the spec of this data.",
        )
    return tuple(inputs.shape[:split])


def _broadcast(c: Tensor, leading: tuple[int, ...]) -> Tensor:
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
    """``base`` with its last ``event_dims`` dimensions as the event, unvalidated."""
    return Independent(base, event_dims, validate_args=False)


def check_event(distribution: Distribution, x: Tensor, name: str) -> None:
    """Refuses an ``x`` that is not an event of the distribution: a forgotten ``Independent`` would sum nothing.

    Raises:
        ShapeError: If ``x`` does not end in the distribution's batch and event shape, broadcasting aside.
    """
    event = tuple(distribution.event_shape)
    fits = tuple(x.shape[x.dim() - len(event) :]) == event
    if fits and event:
        return
    raise ShapeError(
        f"The {name} is not a distribution over such values.",
        got=f"values of shape {tuple(x.shape)}, event shape {event}",
        expected="an event shape equal to the shape of one example",
        remedy="Wrap it: torch.distributions.Independent(distribution, number_of_event_dimensions).",
    )


def has_density(distribution: Distribution) -> bool:
    """Whether ``log_prob`` is exact: a bound or a point mass declares that it is not by ``exact_density = False``."""
    return getattr(distribution, "exact_density", True)

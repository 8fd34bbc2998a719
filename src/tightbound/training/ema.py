"""An exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..checkpoint import tensors_of

__all__ = ["MovingAverage"]

SCHEDULED = ("temperature",)
"""Buffers set by a schedule, not learned: they are copied, not averaged."""


class MovingAverage:
    r"""Average of a module's floating-point state, :math:`\bar\theta \leftarrow d \bar\theta + (1 - d) \theta`.

    The decay grows from 0.1 towards ``decay`` over the first steps, :math:`\min(d, (1 + n) / (10 + n))`, so that the
    initial weights are quickly forgotten. Integers and :data:`SCHEDULED` are not averaged.

    Args:
        module: The module that is trained.
        decay: :math:`d`; at 0 the average is the module itself, at no cost.

    Example:
        >>> net = nn.Linear(1, 1)
        >>> average = MovingAverage(net, decay=0.9)
        >>> average.update(step=0)
        >>> sorted(average.tensors)
        ['bias', 'weight']
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.tensors: dict[str, Tensor] = {n: t.clone() for n, t in tensors_of(module).items()} if decay else {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Updates the average after a step."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        scheduled = _scheduled(self.module)
        for name, tensor in tensors_of(self.module).items():
            if tensor.is_floating_point() and name not in scheduled:
                self.tensors[name].lerp_(tensor, 1 - decay)
            else:
                self.tensors[name].copy_(tensor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Uses the averaged state in the module inside the block."""
        if not self.decay:
            yield
            return
        kept = {name: tensor.clone() for name, tensor in tensors_of(self.module).items()}
        self._copy(self.tensors)
        try:
            yield
        finally:
            self._copy(kept)

    @torch.no_grad()
    def _copy(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors_of(self.module).items():
            tensor.copy_(tensors[name])


def _scheduled(module: nn.Module) -> set[str]:
    """The names of the buffers that a schedule sets."""
    buffers = module.named_buffers(remove_duplicate=False)
    return {name for name, _ in buffers if name.rpartition(".")[2] in SCHEDULED}

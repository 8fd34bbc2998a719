"""Steps that are skipped: those whose gradient is too large, or whose loss or gradient is not finite.

All processes decide alike. Deciding synchronises with the device at every step; without these options nothing does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..options.training import TrainingOptions
from ..runtime.parts import LearnsByItself
from .device import reduced
from .steps.base import Group, Step

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["IN_A_ROW", "Outcome", "Skipping"]

IN_A_ROW = 100
"""Steps skipped one after the other that end a run: its weights no longer change, so the next ones hardly differ."""


@dataclass(frozen=True)
class Outcome:
    """What became of a step, the same in all processes.

    Args:
        skipped: Whether it was skipped.
        lost: Whether it was skipped with a loss that is not finite, whose rows must not be averaged.
        norm: Norm of the gradient; 0 if it is not finite, or was not computed.
    """

    skipped: bool = False
    lost: bool = False
    norm: float = 0.0


class Skipping:
    """Decides whether a step is made, and takes back what its forward pass has changed if it is not.

    Args:
        fabric: This process and its communication.
        step: The computation of a step.
        groups: Its parameters.
        options: The training options.
    """

    def __init__(self, fabric: Fabric, step: Step, groups: Sequence[Group], options: TrainingOptions) -> None:
        self.fabric, self.step, self.options = fabric, step, options
        self.parameters = [p for group in groups for p in group.parameters]
        self.learning = [part for part in step.modules() if isinstance(part, LearnsByItself)]
        self.active = options.skip_norm is not None or options.skip_nonfinite
        self._kept = list[tuple[Tensor, Tensor]]()

    def remember(self) -> None:
        """Before a step: copies what its forward pass may change, buffers and parts that learn by themselves."""
        if self.active:
            theirs = [p for part in self.learning for p in part.parameters()]
            self._kept = [(tensor, tensor.detach().clone()) for tensor in (*self.step.buffers(), *theirs)]

    def decide(self, sums: Tensor) -> Outcome:
        """Whether the step is skipped, from this process's sums of its rows, and the gradient of all processes."""
        if not self.active:
            return Outcome()
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        lost, broken = ~sums.isfinite().all(), ~norm.isfinite()
        seen = torch.stack([lost, broken, self._above(norm), norm.nan_to_num(0, 0)])  # NaN has no maximum
        lost, broken, above, size = reduced(self.fabric, seen, "max").tolist()
        lost, broken = lost and self.options.skip_nonfinite, broken and self.options.skip_nonfinite
        return Outcome(bool(lost or broken or above), bool(lost), size)

    def _above(self, norm: Tensor) -> Tensor:
        limit = self.options.skip_norm
        return torch.zeros_like(norm, dtype=torch.bool) if limit is None else norm > limit

    @torch.no_grad()
    def take_back(self) -> None:
        """After a skipped step: what its forward pass has changed is as before."""
        for tensor, kept in self._kept:
            tensor.copy_(kept)
        for part in self.learning:
            part.forget()

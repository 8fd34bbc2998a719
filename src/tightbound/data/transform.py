r"""Transforms stored levels to model inputs, for a complete batch on its device.

Convention: a stored entry is a level :math:`l \in \{0, \dots, L - 1\}`. Scaled, it is :math:`l / (L - 1)`;
dequantised, :math:`(l + u) / L` with :math:`u \sim U(0, 1)`. Continuous values are standardised, :math:`(x - m) / s`,
or unchanged. Random numbers come from torch's global generator.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from torch import Tensor

from ..options.data import Binarize
from ..options.data_spec import DataSpec

__all__ = ["Transform", "in_data_units", "widths"]


@dataclass(frozen=True)
class Transform:
    """Turns gathered values into a batch.

    Args:
        levels: Number L of stored levels, or None if the values are continuous.
        binarize: ``"dynamic"`` samples a Bernoulli with the grey value as probability, ``"threshold"`` cuts at 1/2.
        dequantize: Whether to add uniform noise within a level.
        flip: Whether to flip the last dimension of each example with probability one half.
        crop: Height and width of crops; None for no cropping.
        anywhere: Whether crops are random for each example, not centered.
        location: Location of continuous values: one number, one per feature or channel, or empty.
        scale: Scale of continuous values: as many numbers.
        whole: Whether integers without levels stay integers: codes.

    Example:
        >>> Transform(levels=5)(torch.tensor([[0, 1, 4]], dtype=torch.uint8))
        tensor([[0.0000, 0.2500, 1.0000]])
        >>> Transform(levels=5, binarize="threshold")(torch.tensor([[0, 2, 3]], dtype=torch.uint8))
        tensor([[0., 0., 1.]])
        >>> Transform(None, location=(10.0, 0.0), scale=(1.0, 5.0))(torch.tensor([[9.0, 5.0]]))
        tensor([[-1.,  1.]])
    """

    levels: int | None
    binarize: Binarize = "none"
    dequantize: bool = False
    flip: bool = False
    crop: tuple[int, int] | None = field(default=None, repr=False)
    anywhere: bool = field(default=False, repr=False)
    location: tuple[float, ...] = field(default=(), repr=False)
    scale: tuple[float, ...] = field(default=(), repr=False)
    whole: bool = field(default=False, repr=False)

    def __call__(self, values: Tensor) -> Tensor:
        """The batch, float32, unless it is of codes."""
        if self.whole and not values.is_floating_point():
            return values
        if self.crop is not None:
            values = _parts_of(values, *self.crop) if self.anywhere else _middle(values, *self.crop)
        if self.flip:
            values = _mirror_half(values)
        if self.levels is None:
            return self._standardised(values).to(torch.float32)
        x = values.to(torch.float32)
        if self.dequantize:
            return _within_level(x).add_(x).div_(self.levels)
        x = x / (self.levels - 1)
        if self.binarize == "dynamic":
            return torch.rand_like(x).lt_(x)  # a Bernoulli draw, at a third of the time of torch.bernoulli
        return (x > 0.5).to(torch.float32) if self.binarize == "threshold" else x

    @property
    def still(self) -> Transform:
        """The transform without augmentation: no flips, and center crops."""
        return replace(self, flip=False, anywhere=False)

    def _standardised(self, values: Tensor) -> Tensor:
        if not self.scale:
            return values
        x = values if values.dtype == torch.float64 else values.to(torch.float32)
        return (x - _along(self.location, x, x.dim() - 1)) / _along(self.scale, x, x.dim() - 1)


def in_data_units(x: Tensor, spec: DataSpec) -> Tensor:
    """Converts model inputs or outputs to the data's own units, :math:`s x + m`, float64.

    Args:
        x: ``(*batch, *shape)``.
        spec: Of the data.

    Example:
        >>> spec = DataSpec("columns", (2,), None, location=(10.0, 0.0), scale=(1.0, 5.0))
        >>> in_data_units(torch.tensor([[-1.0, 1.0]]), spec)
        tensor([[9., 5.]], dtype=torch.float64)
    """
    if not spec.scale:
        return x
    x = x.detach().cpu().double()  # times since 1970 differ by less than float32 tells
    return x * _along(spec.scale, x, len(spec.shape)) + _along(spec.location, x, len(spec.shape))


def widths(spec: DataSpec) -> Tensor:
    """The scale s of every entry of an example, float64 ``(*shape)``; 1 if the data is unchanged."""
    one = torch.ones(spec.shape, dtype=torch.float64)
    return one * _along(spec.scale, one, one.dim()) if spec.scale else one


def _along(numbers: tuple[float, ...], x: Tensor, dimensions: int) -> Tensor:
    """One number for all, or one for each entry of the first dimension of examples, to be broadcast over x."""
    return _tensor(numbers, x.dtype, x.device).view(-1, *[1] * (dimensions - 1))


@lru_cache(maxsize=8)
def _tensor(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Kept, because a copy to a device synchronises with it."""
    return torch.tensor(numbers, dtype=dtype, device=device)


def _middle(values: Tensor, height: int, width: int) -> Tensor:
    top, left = (values.shape[-2] - height) // 2, (values.shape[-1] - width) // 2
    return values[..., top : top + height, left : left + width].contiguous()


def _parts_of(values: Tensor, height: int, width: int) -> Tensor:
    """A uniformly random crop of each image: one gather from a view of all crops."""
    n, device = len(values), values.device
    windows = values.unfold(2, height, 1).unfold(3, width, 1)
    top = torch.randint(windows.shape[2], (n,), device=device)
    left = torch.randint(windows.shape[3], (n,), device=device)
    return windows[torch.arange(n, device=device), :, top, left]


def _mirror_half(values: Tensor) -> Tensor:
    coins = torch.rand(len(values), device=values.device) < 0.5
    return torch.where(coins.view(-1, *[1] * (values.dim() - 1)), values.flip(-1), values)


def _within_level(x: Tensor) -> Tensor:
    # Midpoints of 2^15 cells: a level below 256 plus such a number is exact in float32, so a sum never rounds up into
    # the next level (plain torch.rand does, about once in 10^5 entries of level 255).
    return torch.rand_like(x).mul_(2**15).floor_().add_(0.5).div_(2**15)

r"""Networks that see noised data, how much noise they have, and a condition: for vectors, and for images.

Convention: ``z`` is ``(n, *shape)`` with a variance of about one, ``gamma`` is ``(n)``, minus the log signal-to-noise
ratio, infinite for pure noise; ``c`` is ``(n, condition_dim)`` features of a condition, or None. The output is shaped
like z, and starts at zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError
from .residual import groups

__all__ = ["ImageBlock", "LevelFeatures", "LevelVariance", "UNet", "VectorDenoiser", "zeroed"]

WAVES = tuple(math.pi * 2.0**i for i in range(-1, 3))
"""Frequencies of the waves of a vector, whose entries have a deviation of about one."""


class LevelFeatures(nn.Module):
    r"""Features of a noise level: an MLP of sines and cosines of :math:`\gamma / 4`.

    Pure noise has the level of a ratio of :math:`e^{10}`.

    Args:
        dim: Number of features.
        condition_dim: Features of a condition that are added, mapped linearly; 0 for none.

    Example:
        >>> LevelFeatures(8)(torch.tensor([-3.0, torch.inf])).shape
        torch.Size([2, 8])
    """

    frequencies: Tensor

    def __init__(self, dim: int, condition_dim: int = 0) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.linspace(math.log(0.1), math.log(30.0), dim // 2).exp())
        self.layers = nn.Sequential(nn.Linear(2 * (dim // 2), dim), nn.SiLU(), nn.Linear(dim, dim))
        self.given = nn.Linear(condition_dim, dim) if condition_dim else None

    def forward(self, gamma: Tensor, c: Tensor | None = None) -> Tensor:
        angles = gamma.clamp(-40.0, 20.0).unsqueeze(-1) / 4 * self.frequencies
        found = self.layers(torch.cat([angles.sin(), angles.cos()], dim=-1))
        return F.silu(found if self.given is None or c is None else found + self.given(c))


class LevelVariance(nn.Module):
    """The log variance of an error at each noise level, zero at the start.

    References:
        Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024).

    Example:
        >>> LevelVariance()(torch.tensor([-3.0, 2.0])).tolist()
        [0.0, 0.0]
    """

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.level, self.leave = LevelFeatures(dim), zeroed(nn.Linear(dim, 1))

    def forward(self, gamma: Tensor) -> Tensor:
        return self.leave(self.level(gamma)).squeeze(-1)


class VectorDenoiser(nn.Module):
    r"""Residual fully connected layers, each modulated by the noise level, :math:`h + W_2 \phi((1 + a) W_1 N(h) + b)`.

    Args:
        size: Entries of a vector.
        hidden: Width.
        blocks: Number of residual blocks.
        condition_dim: Size of the condition's features; 0 for none.
        more: Number of further entries of the input, which the output has not.
        waves: Whether it also sees sines and cosines of its input: without them it learns what is smooth first, and
            sharp edges late. For few entries.

    References:
        Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains (Tancik et al., 2020).

    Example:
        >>> VectorDenoiser(2, hidden=32)(torch.zeros(5, 2), torch.zeros(5)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        size: int,
        hidden: int = 256,
        blocks: int = 3,
        condition_dim: int = 0,
        more: int = 0,
        waves: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.level, self.waves = size, LevelFeatures(hidden, condition_dim), waves
        self.enter = nn.Linear((size + more) * (1 + 2 * len(WAVES) * waves), hidden)
        self.blocks = nn.ModuleList(_VectorBlock(hidden) for _ in range(blocks))
        self.leave = zeroed(nn.Linear(hidden, size))

    def forward(self, z: Tensor, gamma: Tensor, c: Tensor | None = None) -> Tensor:
        level, seen = self.level(gamma, c), z.flatten(1)
        if self.waves:
            angles = torch.cat([seen * frequency for frequency in WAVES], dim=1)
            seen = torch.cat([seen, angles.sin(), angles.cos()], dim=1)
        h = self.enter(seen)
        for block in self.blocks:
            h = block(h, level)
        return self.leave(F.silu(h)).reshape(len(z), -1, *z.shape[2:])


class _VectorBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.first = nn.LayerNorm(width), nn.Linear(width, width)
        self.modulation, self.second = nn.Linear(width, 2 * width), zeroed(nn.Linear(width, width))

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        scale, shift = self.modulation(level).chunk(2, dim=-1)
        return h + self.second(F.silu((1 + scale) * self.first(self.norm(h)) + shift))


class UNet(nn.Module):
    """Residual convolutions from a grid to coarser ones and back, each modulated by the noise level.

    Features of the way down are passed to the way up at the same grid. Attention over all positions follows each block
    of the coarsest grid.

    References:
        U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger, Fischer and Brox, 2015).
        Denoising Diffusion Probabilistic Models (Ho, Jain and Abbeel, 2020).

    Args:
        shape: Shape ``(channels, H, W)`` of one image; its sides must be divisible by the patch, and by 2 for every
            further level.
        channels: Channels of each level, the finest first.
        blocks: Residual blocks of each level, on either way.
        patch: Side of the squares that are one position of the finest grid.
        heads: Heads of the attention; 0 for none.
        dropout: Probability with which a channel's activation is dropped in training.
        condition_dim: Size of the condition's features; 0 for none.
        more: Number of further channels of the input, which the output has not.

    Raises:
        UsageError: If the sides cannot be divided.

    Example:
        >>> UNet((1, 28, 28), channels=(8, 16), patch=2)(torch.zeros(5, 1, 28, 28), torch.zeros(5)).shape
        torch.Size([5, 1, 28, 28])
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: Sequence[int] = (64, 128),
        blocks: int = 2,
        *,
        patch: int = 1,
        heads: int = 4,
        dropout: float = 0.0,
        condition_dim: int = 0,
        more: int = 0,
    ) -> None:
        super().__init__()
        _require_divisible(shape, patch * 2 ** (len(channels) - 1) if channels else 0)
        entries, dim = shape[0] * patch**2, 4 * channels[0]
        make = lambda n, m: ImageBlock(n, m, dim, dropout)
        self.patch, self.level = patch, LevelFeatures(dim, condition_dim)
        self.enter = nn.Conv2d(entries + more * patch**2, channels[0], 3, padding=1)
        self.down, self.up, kept = nn.ModuleList(), nn.ModuleList(), [channels[0]]
        for i, width in enumerate(channels):
            before = channels[max(0, i - 1)]
            level = [make(before if j == 0 else width, width) for j in range(blocks)]
            self.down.append(nn.ModuleList(level))
            kept += [width] * blocks
        self.coarser = nn.ModuleList(nn.Conv2d(n, n, 3, stride=2, padding=1) for n in channels[:-1])
        last = channels[-1]
        attention = [_Attention(last, heads)] if heads else []
        self.middle = nn.ModuleList([make(last, last), *attention, make(last, last)])
        for i, width in reversed(list(enumerate(channels))):
            arriving = channels[min(i + 1, len(channels) - 1)]
            skipped = [width] * blocks + [channels[max(0, i - 1)] if i else channels[0]]
            level = [make((arriving if j == 0 else width) + s, width) for j, s in enumerate(skipped)]
            self.up.append(nn.ModuleList(level))
        self.finer = nn.ModuleList(nn.Conv2d(n, n, 3, padding=1) for n in reversed(channels[1:]))
        self.leave = nn.Sequential(
            nn.GroupNorm(groups(channels[0]), channels[0]),
            nn.SiLU(),
            zeroed(nn.Conv2d(channels[0], entries, 3, padding=1)),
        )

    def forward(self, z: Tensor, gamma: Tensor, c: Tensor | None = None) -> Tensor:
        level = self.level(gamma, c)
        patches = F.pixel_unshuffle(z, self.patch)
        h = self.enter(patches.contiguous(memory_format=torch.channels_last))  # faster, on a CPU too
        kept = [h]
        for i, blocks in enumerate(self.down):
            if i:
                h = self.coarser[i - 1](h)
                kept.append(h)
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                h = block(h, level)
                kept.append(h)
        for part in self.middle:
            h = part(h, level)
        for i, blocks in enumerate(self.up):
            if i:
                h = self.finer[i - 1](F.interpolate(h, scale_factor=2.0, mode="nearest"))
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                h = block(torch.cat([h, kept.pop()], dim=1), level)
        return F.pixel_shuffle(self.leave(h), self.patch).contiguous()


class ImageBlock(nn.Module):
    """Two convolutions, the second modulated by the level and started at zero."""

    def __init__(self, inputs: int, outputs: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(groups(inputs), inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.norm, self.modulation = nn.GroupNorm(groups(outputs), outputs), nn.Linear(dim, 2 * outputs)
        self.second = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), zeroed(nn.Conv2d(outputs, outputs, 3, padding=1)))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        scale, shift = self.modulation(level)[..., None, None].chunk(2, dim=1)
        return self.shortcut(h) + self.second((1 + scale) * self.norm(self.first(h)) + shift)


class _Attention(nn.Module):
    """Attention over all positions, added to them."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise UsageError(
                "The heads do not divide the channels.",
                got=f"{heads} heads, {channels} channels",
                remedy="Try 4 heads.",
            )
        self.heads, self.norm = heads, nn.GroupNorm(groups(channels), channels)
        self.inward, self.outward = nn.Conv2d(channels, 3 * channels, 1), zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        n, channels, rows, columns = h.shape
        all_three = self.inward(self.norm(h)).reshape(n, 3, self.heads, channels // self.heads, rows * columns)
        q, k, v = all_three.transpose(-1, -2).unbind(1)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(n, channels, rows, columns)
        return h + self.outward(seen)


def _require_divisible(shape: Sequence[int], factor: int) -> None:
    if factor < 1 or len(shape) != 3 or any(side % factor for side in shape[1:]):
        raise UsageError(
            "The image cannot be halved that often.",
            got=f"examples of shape {tuple(shape)}",
            expected=f"images with sides divisible by {factor}" if factor else "channels of at least one level",
            remedy="Use fewer levels (--channels 64), another --patch, or --image-size.",
        )


def zeroed(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """A layer whose output starts at zero.

    Example:
        >>> zeroed(nn.Linear(2, 1))(torch.ones(2))
        tensor([0.], grad_fn=<ViewBackward0>)
    """
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer

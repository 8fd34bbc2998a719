r"""Encoder and decoder of latent diffusion: an image to a grid of latents and back, with the names of its file formats.

Convention: an image is ``(n, channels, H, W)``, its grid ``(n, features, H / f, W / f)``; the factor f is 2 to the
number of channels less one. Parameters have the names of the ``AutoencoderKL`` and ``VQModel`` of diffusers, so a
state needs no translation.

References:
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022).
    Taming Transformers for High-Resolution Image Synthesis (Esser, Rombach and Ommer, 2021).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..errors import UsageError
from .output import EndsInConvolution

__all__ = ["Architecture", "KLDecoder", "KLEncoder"]

EPS = 1e-6
"""Of every normalisation."""


@dataclass(frozen=True)
class Architecture:
    """The sizes that encoder and decoder share.

    Args:
        channels: Channels of each resolution, finest first; there are one fewer halvings.
        layers: Residual blocks of each resolution in the encoder; the decoder has one more.
        groups: Groups of every normalisation.
        attention: The resolutions, as indices of ``channels``, whose blocks are followed by attention.
        mid_attention: Whether there is attention on the coarsest grid.
        checkpointing: Whether activations are recomputed in the backward pass, to save memory.

    Raises:
        UsageError: If the groups do not divide the channels.

    Example:
        >>> Architecture((32, 64, 64)).factor
        4
    """

    channels: tuple[int, ...]
    layers: int = 1
    groups: int = 8
    attention: tuple[int, ...] = ()
    mid_attention: bool = True
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if uneven := [width for width in self.channels if width % self.groups]:
            raise UsageError(
                "The groups of the normalisation must divide the channels of every resolution.",
                got=f"{self.groups} groups, {uneven[0]} channels",
                remedy="Lower --groups, or change --channels.",
            )

    @property
    def factor(self) -> int:
        """By how much a grid is smaller than its image, along each side."""
        return 1 << (len(self.channels) - 1)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """The grid of an image; a side that the factor does not divide counts as the next larger one.

        Args:
            height: Of the image, in pixels.
            width: Of the image, in pixels.
        """
        return -(-height // self.factor), -(-width // self.factor)


class KLEncoder(nn.Module):
    """Maps images to a grid of features: with twice the latent channels, the means and log variances of latents.

    Images whose sides the factor does not divide are padded at the bottom and the right by repeating their border.

    Args:
        image_channels: Channels of an image.
        features: Features of each position.
        sizes: The architecture.
        embedded: Features after the last 1 x 1 convolution, ``quant_conv``; None: as many as before; 0: it is left out.
        centred: Whether images in [0, 1] are mapped to [-1, 1], the range of the file formats.

    Example:
        >>> encoder = KLEncoder(3, 2 * 4, Architecture((8, 16, 16)))
        >>> encoder(torch.zeros(5, 3, 32, 24)).shape
        torch.Size([5, 8, 8, 6])
    """

    def __init__(
        self,
        image_channels: int,
        features: int,
        sizes: Architecture,
        embedded: int | None = None,
        centred: bool = True,
    ) -> None:
        super().__init__()
        self.sizes, self.centred = sizes, centred
        self.encoder = _Encoder(image_channels, features, sizes)
        self.quant_conv = _pointwise(features, features if embedded is None else embedded)

    def entered(self, x: Tensor) -> Tensor:
        """Images in the range and with the sides that the network needs."""
        return _padded(2 * x - 1 if self.centred else x, self.sizes.factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(self.entered(x)))


class KLDecoder(EndsInConvolution):
    """Maps a grid of latents to images: the mirror image of :class:`KLEncoder`.

    Args:
        latent_channels: Channels of a latent.
        image_channels: Channels of an image.
        sides: Height and width of an image; what the grid has beyond them is cropped.
        sizes: The architecture.
        embedded: Channels of a latent in front of the first 1 x 1 convolution, ``post_quant_conv``; None: as many; 0:
            it is left out.
        centred: Whether images are mapped from [-1, 1] to [0, 1].

    Example:
        >>> decoder = KLDecoder(4, 3, (30, 24), Architecture((8, 16, 16)))
        >>> decoder(torch.zeros(5, 4, 8, 6)).shape
        torch.Size([5, 3, 30, 24])
        >>> decoder.of_sides((64, 64))(torch.zeros(5, 4, 16, 16)).shape
        torch.Size([5, 3, 64, 64])
    """

    def __init__(
        self,
        latent_channels: int,
        image_channels: int,
        sides: Sequence[int],
        sizes: Architecture,
        embedded: int | None = None,
        centred: bool = True,
    ) -> None:
        super().__init__()
        self.sizes, self.centred, self.sides = sizes, centred, tuple(sides)
        embedded = latent_channels if embedded is None else embedded
        self.post_quant_conv = _pointwise(embedded, latent_channels if embedded else 0)
        self.decoder = _Decoder(latent_channels, image_channels, sizes)

    @property
    def conv_out(self) -> nn.Conv2d:
        """The last convolution."""
        return self.decoder.conv_out

    def of_sides(self, sides: Sequence[int]) -> KLDecoder:
        """The same network for images of another height and width; it shares its parameters."""
        other = copy.copy(self)
        other.sides = tuple(sides)
        return other

    def left(self, x: Tensor) -> Tensor:
        """What the network outputs, cropped to the sides and in the range of the data."""
        height, width = self.sides
        x = x[..., :height, :width]
        return (x + 1) / 2 if self.centred else x

    def forward(self, z: Tensor) -> Tensor:
        return self.left(self.decoder(self.post_quant_conv(z)))


def _pointwise(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 1) if outputs else nn.Identity()


def _padded(x: Tensor, factor: int) -> Tensor:
    height, width = x.shape[-2:]
    below, right = -height % factor, -width % factor
    return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x


class _Encoder(nn.Module):
    """``encoder`` of the file formats."""

    def __init__(self, inputs: int, outputs: int, sizes: Architecture) -> None:
        super().__init__()
        self.checkpointing, widths = sizes.checkpointing, sizes.channels
        self.conv_in = _conv(inputs, widths[0])
        self.down_blocks = nn.ModuleList()
        for level, (before, width) in enumerate(pairwise([widths[0], *widths])):
            attention, last = level in sizes.attention, level == len(widths) - 1
            down = None if last else _Downsample(width)
            self.down_blocks.append(_Stage(before, width, sizes.layers, sizes.groups, attention, down=down))
        self.mid_block = _Middle(widths[-1], sizes.groups, sizes.mid_attention)
        self.conv_norm_out = _norm(widths[-1], sizes.groups)
        self.conv_out = _conv(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for block in (*self.down_blocks, self.mid_block):
            h = _through(block, h, self.checkpointing)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


class _Decoder(nn.Module):
    """``decoder`` of the file formats."""

    def __init__(self, inputs: int, outputs: int, sizes: Architecture) -> None:
        super().__init__()
        self.checkpointing, widths = sizes.checkpointing, sizes.channels[::-1]
        self.conv_in = _conv(inputs, widths[0])
        self.mid_block = _Middle(widths[0], sizes.groups, sizes.mid_attention)
        self.up_blocks = nn.ModuleList()
        for level, (before, width) in enumerate(pairwise([widths[0], *widths])):
            attention, last = len(widths) - 1 - level in sizes.attention, level == len(widths) - 1
            up = None if last else _Upsample(width)
            self.up_blocks.append(_Stage(before, width, sizes.layers + 1, sizes.groups, attention, up=up))
        self.conv_norm_out = _norm(widths[-1], sizes.groups)
        self.conv_out = _conv(widths[-1], outputs)

    def forward(self, z: Tensor) -> Tensor:
        h = self.conv_in(z)
        for block in (self.mid_block, *self.up_blocks):
            h = _through(block, h, self.checkpointing)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


def _through(block: nn.Module, h: Tensor, checkpointing: bool) -> Tensor:
    if checkpointing and h.requires_grad and torch.is_grad_enabled():
        return checkpoint(block, h, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore
    return block(h)


class _Stage(nn.Module):
    """The blocks of one resolution, and the step to the next."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        layers: int,
        groups: int,
        attention: bool,
        down: nn.Module | None = None,
        up: nn.Module | None = None,
    ) -> None:
        super().__init__()
        widths = [inputs, *[outputs] * layers]
        self.resnets = nn.ModuleList([_Residual(n, m, groups) for n, m in pairwise(widths)])
        self.attentions = nn.ModuleList([_Attention(outputs, groups) for _ in range(layers * attention)])
        self.downsamplers = nn.ModuleList([] if down is None else [down])
        self.upsamplers = nn.ModuleList([] if up is None else [up])

    def forward(self, h: Tensor) -> Tensor:
        for level, resnet in enumerate(self.resnets):
            h = resnet(h)
            h = self.attentions[level](h) if len(self.attentions) else h
        for step in (*self.downsamplers, *self.upsamplers):
            h = step(h)
        return h


class _Middle(nn.Module):
    """Two residual blocks, with attention between them."""

    def __init__(self, width: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([_Residual(width, width, groups) for _ in range(2)])
        self.attentions = nn.ModuleList([_Attention(width, groups)] if attention else [])

    def forward(self, h: Tensor) -> Tensor:
        first, second = self.resnets
        h = first(h)
        for attention in self.attentions:
            h = attention(h)
        return second(h)


class _Residual(nn.Module):
    r""":math:`s(h) + \mathrm{conv}(\phi(\mathrm{conv}(\phi(h))))`, each activation after a normalisation."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(inputs, groups), _conv(inputs, outputs)
        self.norm2, self.conv2 = _norm(outputs, groups), _conv(outputs, outputs)
        self.conv_shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, h: Tensor) -> Tensor:
        inner = self.conv1(F.silu(self.norm1(h)))
        return self.conv_shortcut(h) + self.conv2(F.silu(self.norm2(inner)))


class _Attention(nn.Module):
    """Self-attention of all positions, with one head, around a skip connection."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = _norm(width, groups)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, h: Tensor) -> Tensor:
        rows = self.group_norm(h).flatten(2).mT
        q, k, v = self.to_q(rows), self.to_k(rows), self.to_v(rows)
        mixed = F.scaled_dot_product_attention(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1)).squeeze(1)
        return h + self.to_out[0](mixed).mT.reshape(h.shape)


class _Downsample(nn.Module):
    """A convolution that halves the sides, padded at the bottom and the right only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv(F.pad(h, (0, 1, 0, 1)))


class _Upsample(nn.Module):
    """Nearest-neighbour upsampling, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv(width, width)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv(F.interpolate(h, scale_factor=2.0, mode="nearest"))


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _norm(width: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, width, eps=EPS)

r"""Encoding and decoding of large images in tiles, with the result of the network itself.

Usually a whole network is applied to overlapping tiles that are blended; then every tile has its own normalisation, its
own attention, and seams. Here each block is applied to tiles before the next one begins, so that a tile needs only the
two pixels around it that the block's two convolutions see. The normalisations have the mean and variance of the whole
image: those of a block's input are known, those behind its first convolution are added up over tiles, for which that
convolution is computed twice (about a third more time). Attention is computed on the complete, small grid.

At any time the input and the output of one block are kept in memory, and what a network needs for one tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError
from .kl_autoencoder import KLDecoder, KLEncoder

__all__ = ["decode_tiled", "encode_tiled"]

TILE = 256
Place = tuple[slice, slice]


@torch.no_grad()
def encode_tiled(encoder: KLEncoder, x: Tensor, tile: int = TILE) -> Tensor:
    """What ``encoder(x)`` returns, in less memory: one image at a time, in tiles.

    Args:
        encoder: The encoder.
        x: Images, ``(n, channels, H, W)``.
        tile: Side of a tile in pixels, an even number.

    Raises:
        UsageError: If it is not even, or below 2.

    Example:
        >>> from tightbound.networks import Architecture
        >>> encoder = KLEncoder(3, 8, Architecture((8, 16)))
        >>> x = torch.rand(1, 3, 20, 24)
        >>> torch.allclose(encode_tiled(encoder, x, tile=8), encoder(x), atol=1e-4)
        True
    """
    _require_even(tile)
    return torch.cat([_encoded(encoder, image, tile) for image in x.split(1)])


@torch.no_grad()
def decode_tiled(decoder: KLDecoder, z: Tensor, tile: int = TILE) -> Tensor:
    """What ``decoder(z)`` returns, in less memory: one image at a time, in tiles.

    Args:
        decoder: The decoder.
        z: Latents, ``(n, channels, h, w)``.
        tile: Side of a tile in pixels, an even number.

    Raises:
        UsageError: If it is not even, or below 2.

    Example:
        >>> from tightbound.networks import Architecture
        >>> decoder = KLDecoder(4, 3, (20, 24), Architecture((8, 16)))
        >>> z = torch.randn(1, 4, 10, 12)
        >>> torch.allclose(decode_tiled(decoder, z, tile=8), decoder(z), atol=1e-4)
        True
    """
    _require_even(tile)
    return torch.cat([_decoded(decoder, latent, tile) for latent in z.split(1)])


def _require_even(tile: int) -> None:
    if tile < 2 or tile % 2:
        raise UsageError("Tiles are halved at every level.", got=f"tile {tile}", expected="an even side, such as 256")


def _encoded(encoder: KLEncoder, x: Tensor, tile: int) -> Tensor:
    network = encoder.encoder
    h = _mapped(encoder.entered(x), network.conv_in, tile, 1)
    for stage in network.down_blocks:
        h = _staged(stage, h, tile)
    return encoder.quant_conv(network.conv_out(F.silu(network.conv_norm_out(network.mid_block(h)))))


def _decoded(decoder: KLDecoder, z: Tensor, tile: int) -> Tensor:
    network = decoder.decoder
    h = network.mid_block(network.conv_in(decoder.post_quant_conv(z)))
    for stage in network.up_blocks:
        h = _staged(stage, h, tile)
    norm = _norm_of(network.conv_norm_out, h)
    return decoder.left(_mapped(h, lambda part: network.conv_out(F.silu(norm(part))), tile, 1))


def _staged(module: nn.Module, h: Tensor, tile: int) -> Tensor:
    """A resolution: its blocks, and the step to the next."""
    stage: Any = module
    for level, block in enumerate(stage.resnets):
        h = _residual(block, h, tile)
        h = stage.attentions[level](h) if len(stage.attentions) else h
    for step in stage.downsamplers:
        h = _halved(h, step, tile)
    for step in stage.upsamplers:
        h = _mapped(h, step, tile, 1, scale=2)
    return h


def _residual(module: nn.Module, h: Tensor, tile: int) -> Tensor:
    block: Any = module
    first, moments = _norm_of(block.norm1, h), _Moments(block.norm2)
    inner = lambda part: block.conv1(F.silu(first(part)))
    for _, found in _tiles(h, inner, tile, 1):
        moments.add(found)
    second = moments.norm()

    def whole(part: Tensor) -> Tensor:
        return block.conv_shortcut(part) + block.conv2(F.silu(second(inner(part))))

    return _mapped(h, whole, tile, 2)


def _mapped(h: Tensor, network: Callable[[Tensor], Tensor], tile: int, halo: int, scale: int = 1) -> Tensor:
    """The output of a network on the whole, from tiles."""
    out = None
    for (rows, columns), part in _tiles(h, network, tile, halo, scale):
        if out is None:
            out = part.new_empty(len(h), part.shape[1], h.shape[2] * scale, h.shape[3] * scale)
        out[:, :, rows, columns] = part
    return h if out is None else out


def _tiles(
    h: Tensor, network: Callable[[Tensor], Tensor], tile: int, halo: int, scale: int = 1
) -> Iterator[tuple[Place, Tensor]]:
    """The outputs of tiles without their halo, each with its place in the whole.

    Zeros are padded only where the image ends: within it a halo is cut off, where they are padded too.
    """
    height, width = h.shape[2:]
    for top, left in product(range(0, height, tile), range(0, width, tile)):
        below, right = min(top + tile, height), min(left + tile, width)
        above, before = max(0, top - halo), max(0, left - halo)
        part = network(h[:, :, above : below + halo, before : right + halo])
        rows, columns = slice(top * scale, below * scale), slice(left * scale, right * scale)
        start, first = (top - above) * scale, (left - before) * scale
        own = part[:, :, start : start + rows.stop - rows.start, first : first + columns.stop - columns.start]
        yield (rows, columns), own


def _halved(h: Tensor, module: nn.Module, tile: int) -> Tensor:
    """A step to half of the sides: an output sees a pixel to the right and below, or the zeros where the image ends."""
    step: Any = module
    height, width = h.shape[2:]
    rows = list[Tensor]()
    for top in range(0, height, tile):
        line = list[Tensor]()
        for left in range(0, width, tile):
            below, right = top + tile + 1, left + tile + 1
            part = h[:, :, top:below, left:right]
            line.append(step.conv(F.pad(part, (0, right > width, 0, below > height))))
        rows.append(torch.cat(line, dim=3))
    return torch.cat(rows, dim=2)


class _Affine(NamedTuple):
    """A normalisation with given mean and variance: a scale and a shift of each channel."""

    scale: Tensor
    shift: Tensor

    def __call__(self, h: Tensor) -> Tensor:
        return h * self.scale + self.shift


def _norm_of(norm: nn.GroupNorm, h: Tensor) -> _Affine:
    """A normalisation with the mean and variance of the whole."""
    variance, mean = torch.var_mean(h.unflatten(1, (norm.num_groups, -1)).flatten(2), dim=2, correction=0)
    return _affine(norm, mean, variance)


def _affine(norm: nn.GroupNorm, mean: Tensor, variance: Tensor) -> _Affine:
    of_each = norm.num_channels // norm.num_groups
    mean, std = (t.repeat_interleave(of_each, dim=1) for t in (mean, (variance + norm.eps).sqrt()))
    scale = norm.weight / std
    return _Affine(scale[..., None, None], (norm.bias - mean * scale)[..., None, None])


class _Moments:
    """The mean and variance of the groups of a normalisation, added up over tiles in float64."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        self.normalised, self.sums, self.squares, self.count = norm, torch.zeros(()), torch.zeros(()), 0

    def add(self, part: Tensor) -> None:
        """Adds a tile."""
        rows = part.unflatten(1, (self.normalised.num_groups, -1)).flatten(2).double()
        self.sums, self.squares = self.sums + rows.sum(2), self.squares + rows.square().sum(2)
        self.count += rows.shape[2]

    def norm(self) -> _Affine:
        """The normalisation of the whole."""
        mean = self.sums / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0)
        kind = self.normalised.weight.dtype
        return _affine(self.normalised, mean.to(kind), variance.to(kind))

r"""Quantised posteriors :math:`q(z \mid x, c)`: point masses on the nearest vectors of a codebook.

Convention: an encoder outputs features ``(n, d, *grid)`` and a quantiser replaces the vector at each position. A level
is a grid of codes with its own codebook; levels are in sampling order, the top (coarsest) first. Codes are int64, ``(n,
*grid)`` for each level. Losses are squared errors, summed over an example.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..conditions import Given
from ..distributions import Conditional
from ..distributions.codes import CodePoint
from ..networks import EndsInLayer
from ..quantizers import Quantized, Quantizer
from ..quantizers.clusters import nearest
from ..quantizers.quantized import require_finite, rows_of
from ..runtime.modes import evaluating
from ..runtime.parts import StartsFromData
from .base import CodePosterior

__all__ = ["PyramidDecoder", "PyramidPosterior", "QuantizedPosterior"]


class _Quantized(Conditional, CodePosterior, StartsFromData):
    """Abstract: an encoder, a quantiser for each level, and maps between codes and latents.

    Args:
        network: Encoder, maps ``(n, *shape)`` to ``(n, features, *grid)``.
        quantizers: The top level's first.
        shape: Shape of one example.
        grids: Shape of each level's grid.
    """

    means_are_vectors = True

    def __init__(
        self,
        network: nn.Module,
        quantizers: Sequence[Quantizer],
        shape: Sequence[int],
        grids: Sequence[Sequence[int]],
    ) -> None:
        super().__init__(network, shape)
        self.quantizers = nn.ModuleList(quantizers)
        self.grids = tuple(tuple(grid) for grid in grids)
        self.levels: tuple[int, ...] = tuple(q.codes for q in quantizers)
        self.dims: tuple[int, ...] = tuple(q.dim for q in quantizers)

    def distribution(self, features: Tensor) -> CodePoint:
        leading = features.shape[:-3]
        levels = self.quantize(features.reshape(-1, *features.shape[-3:]))
        vectors = self.join([level.vectors for level in levels])
        learned = torch.stack([level.codebook_loss for level in levels]).sum(0)
        committed = torch.stack([level.commitment_loss for level in levels]).sum(0)
        codes = tuple(level.codes.view(*leading, *level.codes.shape[1:]) for level in levels)
        vectors = vectors.view(*leading, *vectors.shape[1:])
        return CodePoint(vectors, codes, learned.view(leading), committed.view(leading))

    @torch.no_grad()
    def codes(self, x: Tensor, c: Given | None = None) -> tuple[Tensor, ...]:
        """The codes ``(n, *grid)`` of data ``(n, *shape)``; the codebook does not learn from them.

        Raises:
            DataError: If the encoder's output is not finite.
        """
        with evaluating(self):
            point: CodePoint = self(x, c)
        require_finite(point.vectors)
        return point.codes

    def embed(self, codes: Sequence[Tensor]) -> Tensor:
        """The latents ``(n, *latent)`` of codes ``(n, *grid)``.

        Raises:
            UsageError: If a code is out of range.
        """
        pairs = zip(self._quantizers, codes, strict=True)
        return self.join([quantizer.embed(level) for quantizer, level in pairs])

    @torch.no_grad()
    def codes_of(self, z: Tensor) -> tuple[Tensor, ...]:
        """The codes ``(n, *grid)`` of latents ``(n, *latent)``, or the nearest codes.

        Raises:
            DataError: If there is a NaN or an infinite entry.
        """
        require_finite(z)
        return tuple(_codes_of(*pair) for pair in zip(self._quantizers, self.split(z), strict=True))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Initialises the codebooks, the top first, from training examples ``(n, *shape)``.

        A conditional encoder starts from its first training batch instead.
        """
        if self.embedding is not None or not all(q.starts for q in self._quantizers):
            return
        with evaluating(self):
            self.start(torch.cat([self.features(part) for part in x.split(AT_ONCE)]))

    def quantize(self, features: Tensor) -> list[Quantized]:
        """The quantised levels of features ``(n, features, *grid)``."""
        raise NotImplementedError

    def start(self, features: Tensor) -> None:
        """Initialises the codebooks from features."""
        raise NotImplementedError

    def join(self, vectors: Sequence[Tensor]) -> Tensor:
        """The latents of each level's vectors ``(n, d, *grid)``."""
        raise NotImplementedError

    def split(self, z: Tensor) -> list[Tensor]:
        """The inverse of :meth:`join`."""
        raise NotImplementedError

    @property
    def _quantizers(self) -> list[Quantizer]:
        return list(self.quantizers)  # pyright: ignore[reportReturnType]

    def without_details(self, z: Tensor, kept: int) -> Tensor:
        levels = self.split(z)
        means = [level.mean((0, 2, 3), keepdim=True).expand_as(level) for level in levels[kept:]]
        return self.join([*levels[:kept], *means])


AT_ONCE = 250
"""Batch size for encoding examples when a codebook is initialised."""


def _codes_of(quantizer: Quantizer, vectors: Tensor) -> Tensor:
    every = torch.arange(quantizer.codes, device=vectors.device)
    table = rows_of(quantizer.embed(every.unsqueeze(0)), quantizer.dim)  # after projections, if any
    exact = table.dtype if table.device.type == "mps" else torch.float64  # which distinguishes near duplicates
    rows = rows_of(vectors, quantizer.dim)
    return nearest(rows.to(exact), table.to(exact)).view(len(vectors), *vectors.shape[2:])


class QuantizedPosterior(_Quantized):
    r"""One grid of codes, :math:`q(z \mid x) = \mathbb{1}[z = e_k], \; k_i = \arg\min_k \lVert f_i(x) - e_k \rVert`.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017).

    Args:
        encoder: Maps ``(n, *shape)`` to ``(n, d, *grid)``.
        quantizer: The quantiser, for vectors of width d.
        shape: Shape of one example.
        grid: ``(h, w)``, the shape of the codes of one.

    Example:
        >>> from tightbound.networks.residual import GridEncoder
        >>> from tightbound.quantizers import VectorQuantizer
        >>> encoder = GridEncoder((1, 8, 8), 4, (8,))
        >>> posterior = QuantizedPosterior(encoder, VectorQuantizer(16, 4), (1, 8, 8), encoder.grid)
        >>> q = posterior(torch.rand(5, 1, 8, 8))
        >>> q.event_shape, q.codes[0].shape
        (torch.Size([4, 4, 4]), torch.Size([5, 4, 4]))
    """

    def __init__(self, encoder: nn.Module, quantizer: Quantizer, shape: Sequence[int], grid: Sequence[int]) -> None:
        super().__init__(encoder, [quantizer], shape, [grid])

    def quantize(self, features: Tensor) -> list[Quantized]:
        return [self._quantizers[0](features)]

    def start(self, features: Tensor) -> None:
        self._quantizers[0].start_from(features)

    def join(self, vectors: Sequence[Tensor]) -> Tensor:
        return vectors[0]

    def split(self, z: Tensor) -> list[Tensor]:
        return [z]


class PyramidPosterior(_Quantized):
    r"""Several grids of codes, each given those above it.

    The encoder gives features :math:`h_1` of the finest grid, further encoders those of the coarser ones. From the top
    down, each level's vectors are upsampled to the next grid and passed to its head:

    .. math:: e_l = Q_l\big(g_l(h_l, u_l)\big), \qquad u_{l - 1} = \mathrm{lift}_l(e_l, u_l)

    z is the concatenation of the vectors of all levels, the top first.

    References:
        Generating Diverse High-Fidelity Images with VQ-VAE-2 (Razavi, van den Oord and Vinyals, 2019).

    Args:
        encoder: Maps ``(n, *shape)`` to the features of the finest grid, ``(n, width, h, w)``.
        coarser: Maps from each grid's features to the next coarser, finest first; one fewer than levels.
        heads: Maps from a level's features, concatenated with the upsampled vectors, to its quantiser's input; the top
            first.
        lifts: Maps from a level's vectors, concatenated with the upsampled ones, to the next grid; the top first.
        quantizers: One per level, the top first.
        shape: Shape of one example.
        grids: Shape of each level's codes of one, the top's first.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes.vq_vae import VQVAE2
        >>> spec = DataSpec("digits", shape=(1, 8, 8), levels=17)
        >>> q = VQVAE2(codes=16, code_dim=4, channels=(8,)).build(spec).posterior(torch.rand(5, 1, 8, 8))
        >>> q.event_shape, [codes.shape[1:] for codes in q.codes]  # 4 x (2 x 2 + 4 x 4)
        (torch.Size([80]), [torch.Size([2, 2]), torch.Size([4, 4])])
    """

    def __init__(
        self,
        encoder: nn.Module,
        coarser: Sequence[nn.Module],
        heads: Sequence[nn.Module],
        lifts: Sequence[nn.Module],
        quantizers: Sequence[Quantizer],
        shape: Sequence[int],
        grids: Sequence[Sequence[int]],
    ) -> None:
        super().__init__(encoder, quantizers, shape, grids)
        self.coarser, self.heads, self.lifts = nn.ModuleList(coarser), nn.ModuleList(heads), nn.ModuleList(lifts)

    def quantize(self, features: Tensor) -> list[Quantized]:
        return self._downward(features)

    def start(self, features: Tensor) -> None:
        self._downward(features, start=True)

    def _downward(self, features: Tensor, start: bool = False) -> list[Quantized]:
        lifted, out = None, list[Quantized]()
        for level, h in enumerate(self._upward(features)):
            z, quantizer = self.heads[level](_joined(h, lifted)), self._quantizers[level]
            if start:
                quantizer.start_from(z)
            out.append(quantizer(z))
            if level < len(self.lifts):
                lifted = self.lifts[level](_joined(out[-1].vectors, lifted))
        return out

    def _upward(self, features: Tensor) -> list[Tensor]:
        """The features of every grid, the top first."""
        found = [features]
        for network in self.coarser:
            found.append(network(found[-1]))
        return found[::-1]

    def join(self, vectors: Sequence[Tensor]) -> Tensor:
        return torch.cat([level.flatten(1) for level in vectors], dim=1)

    def split(self, z: Tensor) -> list[Tensor]:
        return _split(z, self.dims, self.grids)


class PyramidDecoder(EndsInLayer):
    """Decodes the vectors of several grids: upsamples them to the finest grid, concatenates and decodes them.

    References:
        Generating Diverse High-Fidelity Images with VQ-VAE-2 (Razavi, van den Oord and Vinyals, 2019).

    Args:
        lifts: As in the posterior.
        decoder: Maps all vectors and upsampled features on the finest grid to the image.
        dims: Width of each level's vectors.
        grids: Shape of each level's grid.

    Example:
        >>> from tightbound.networks.residual import GridDecoder
        >>> lift, decoder = GridDecoder(3, (6, 4, 4), (6,)), GridDecoder(3 + 6, (1, 8, 8), (6,))
        >>> PyramidDecoder([lift], decoder, (3, 3), ((2, 2), (4, 4)))(torch.zeros(5, 60)).shape
        torch.Size([5, 1, 8, 8])
    """

    def __init__(
        self, lifts: Sequence[nn.Module], decoder: EndsInLayer, dims: Sequence[int], grids: Sequence[Sequence[int]]
    ) -> None:
        super().__init__()
        self.lifts, self.decoder, self.dims, self.grids = nn.ModuleList(lifts), decoder, tuple(dims), tuple(grids)

    @property
    def last_layer(self) -> nn.Module:
        return self.decoder.last_layer

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        *above, finest = _split(z, self.dims, self.grids)
        lifted = None
        for lift, vectors in zip(self.lifts, above, strict=True):
            lifted = lift(_joined(vectors, lifted))
        grid = _joined(finest, lifted)
        return self.decoder(grid) if c is None else self.decoder(grid, c)


def _joined(grid: Tensor, lifted: Tensor | None) -> Tensor:
    return grid if lifted is None else torch.cat([grid, lifted], dim=1)


def _split(z: Tensor, dims: Sequence[int], grids: Sequence[Sequence[int]]) -> list[Tensor]:
    shapes = [(d, *grid) for d, grid in zip(dims, grids, strict=True)]
    parts = z.split([math.prod(shape) for shape in shapes], dim=1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]

r"""Autoregressive distributions over codes: of one grid, and of the grids of a code space.

.. math:: p(k \mid c) = \prod_i p(k_i \mid k_{<i}, c)

Convention: codes are int64 ``(n, *grid)``, in reading order, row by row; with several levels the top comes first, and
each is conditioned on those above. Conditions ``c`` are of shape ``(n,)``; log-probabilities are masses in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional as F
from torch.types import _size

from ..conditions import Given
from ..distributions import Sampling, embedded
from ..distributions.codes import CodeMass
from ..errors import ObjectiveError
from ..posteriors import CodePosterior
from ..runtime.modes import at_least_float32
from .pixelcnn import PixelCNN
from .transformer import Transformer

__all__ = ["AutoregressiveCodes", "AutoregressivePrior", "ConvolutionalGrid", "TransformerGrid"]


class Grid(nn.Module):
    """Abstract: a distribution over one grid of codes, given a condition and the grids above."""

    def log_prob(self, codes: Tensor, c: Given | None = None, above: tuple[Tensor, ...] = ()) -> Tensor:
        """Log-probability of every code given those before it and above, ``(n, positions)``."""
        raise NotImplementedError

    def generate(self, n: int, c: Given | None, above: tuple[Tensor, ...], sampling: Sampling) -> Tensor:
        """Draws n grids."""
        raise NotImplementedError


class ConvolutionalGrid(Grid):
    """A PixelCNN over one grid of codes, conditioned on the condition and the grids above.

    Args:
        network: The PixelCNN, over the grid or, for a row of codes, over ``(1, length)``; its ``grid_channels`` match
            the map of the grids above.
        embedding: Features of conditions, or None.
        above: Numbers of codes of the grids above, the top first.

    Example:
        >>> grid = ConvolutionalGrid(PixelCNN(10, (4, 4), channels=8, layers=2, grid_channels=8), above=(5,))
        >>> grid.log_prob(torch.zeros(3, 4, 4).long(), above=(torch.zeros(3, 2, 2).long(),)).shape
        torch.Size([3, 16])
    """

    def __init__(self, network: PixelCNN, embedding: nn.Module | None = None, above: Sequence[int] = ()) -> None:
        super().__init__()
        self.network, self.embedding = network, embedding
        width = network.grid_channels
        self.above = nn.ModuleList(nn.Embedding(k, width) for k in above)
        self.mix = _mixer(width) if above else None

    def log_prob(self, codes: Tensor, c: Given | None = None, above: tuple[Tensor, ...] = ()) -> Tensor:
        """Log-probability of every code given those before it and above, ``(n, positions)``."""
        codes = codes.reshape(len(codes), *self.network.shape)
        return _of_chosen(self.network(codes, embedded(self.embedding, c), self._map(above)), codes)

    def generate(self, n: int, c: Given | None, above: tuple[Tensor, ...], sampling: Sampling) -> Tensor:
        """Samples n grids."""
        null = None if c is None or sampling.guidance == 1 else embedded(self.embedding, c.missing())
        return self.network.generate(n, embedded(self.embedding, c), null, self._map(above), sampling)

    def _map(self, above: tuple[Tensor, ...]) -> Tensor | None:
        if self.mix is None:
            return None
        maps = [table(codes).movedim(-1, 1) for table, codes in zip(self.above, above, strict=True)]
        return self.mix(sum(F.interpolate(each, self.network.size) for each in maps))


def _mixer(width: int) -> nn.Module:
    """Residual convolutions on the map of the grids above."""
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1), nn.ELU(), _Residual(width), _Residual(width), nn.Conv2d(width, width, 1)
    )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.ELU(), nn.Conv2d(width, width, 3, padding=1), nn.ELU(), nn.Conv2d(width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class TransformerGrid(Grid):
    """A transformer over one grid of codes; text, other conditions and the grids above form its prefix.

    Args:
        network: The transformer.
        embedding: From conditions to vectors ``(n, length, width)``, as a :class:`TokenPrefix` gives, or one of them,
            ``(n, width)``; or None.
        above: Numbers of codes of the grids above, the top first.
        above_positions: Total number of codes in these grids.

    Example:
        >>> grid = TransformerGrid(Transformer(10, (4, 4), width=16, layers=2, heads=2), above=(5,), above_positions=4)
        >>> grid.log_prob(torch.zeros(3, 4, 4).long(), above=(torch.zeros(3, 2, 2).long(),)).shape
        torch.Size([3, 16])
    """

    def __init__(
        self,
        network: Transformer,
        embedding: nn.Module | None = None,
        above: Sequence[int] = (),
        above_positions: int = 0,
    ) -> None:
        super().__init__()
        self.network, self.embedding = network, embedding
        self.above = nn.ModuleList(nn.Embedding(k, network.width) for k in above)
        self.places = nn.Parameter(torch.randn(above_positions, network.width) * 0.02)

    def log_prob(self, codes: Tensor, c: Given | None = None, above: tuple[Tensor, ...] = ()) -> Tensor:
        """Log-probability of every code given those before it and above, ``(n, positions)``."""
        return _of_chosen(self.network(codes, self._prefix(c, above)), codes)

    def generate(self, n: int, c: Given | None, above: tuple[Tensor, ...], sampling: Sampling) -> Tensor:
        """Samples n grids."""
        null = None if c is None or sampling.guidance == 1 else self._prefix(c.missing(), above)
        return self.network.generate(n, self._prefix(c, above), null, sampling)

    def _prefix(self, c: Given | None, above: tuple[Tensor, ...]) -> Tensor | None:
        parts: list[Tensor] = []
        if self.embedding is not None and (found := embedded(self.embedding, c)) is not None:
            parts.append(found if found.dim() == 3 else found.unsqueeze(1))
        if self.above:
            tables = zip(self.above, above, strict=True)
            parts.append(torch.cat([table(codes.flatten(1)) for table, codes in tables], dim=1) + self.places)
        return torch.cat(parts, dim=1) if parts else None


def _of_chosen(logits: Tensor, codes: Tensor) -> Tensor:
    """Log-probabilities of the codes ``(n, *grid)``, ``(n, positions)``, at least float32."""
    logits = at_least_float32(logits)
    return -F.cross_entropy(logits.flatten(0, -2), codes.flatten(), reduction="none").view(len(codes), -1)


class AutoregressivePrior(nn.Module):
    r"""A prior over the codes of a posterior, each level given those above, :math:`\prod_l p(k_l \mid k_{<l},
    c)`.

    The posterior, which maps codes to latents, is shared with the model, not copied.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017).
        Generating Diverse High-Fidelity Images with VQ-VAE-2 (Razavi, van den Oord and Vinyals, 2019).
        Zero-Shot Text-to-Image Generation (Ramesh et al., 2021).

    Args:
        posterior: The code space.
        grids: A :class:`ConvolutionalGrid` or :class:`TransformerGrid` for each of its levels, the top first.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes.vq_vae import VQVAE
        >>> model = VQVAE(codes=16, channels=(8,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> network = PixelCNN(16, model.posterior.grids[0], channels=8, layers=2)
        >>> prior = AutoregressivePrior(model.posterior, [ConvolutionalGrid(network)])
        >>> prior().log_prob(prior().sample((5,))).shape
        torch.Size([5])
    """

    grids: Sequence[Grid]

    def __init__(self, posterior: CodePosterior, grids: Sequence[Grid]) -> None:
        super().__init__()
        self.posterior, self.grids = posterior, nn.ModuleList(grids)  # pyright: ignore[reportAttributeAccessIssue]

    def forward(self, c: Given | None = None) -> Distribution:
        return AutoregressiveCodes(self, c)


class AutoregressiveCodes(CodeMass):
    """The distribution that an :class:`AutoregressivePrior` gives: exact masses in one pass, sampling code by code.

    Args:
        prior: The prior with the networks.
        c: Conditions of shape ``(*batch)``, or None.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes.vq_vae import VQVAE
        >>> model = VQVAE(codes=16, channels=(8,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> network = Transformer(16, model.posterior.grids[0], width=16, layers=1, heads=2)
        >>> p = AutoregressiveCodes(AutoregressivePrior(model.posterior, [TransformerGrid(network)]))
        >>> [level.shape for level in p.sample_codes((5,))]
        [torch.Size([5, 4, 4])]
    """

    def __init__(self, prior: AutoregressivePrior, c: Given | None = None) -> None:
        self.prior, self.c = prior, c
        super().__init__(prior.posterior, () if c is None else c.shape)

    def code_log_prob(self, codes: tuple[Tensor, ...]) -> Tensor:
        leading = codes[0].shape[: codes[0].dim() - len(self.space.grids[0])]
        flat = tuple(k.reshape(-1, *grid) for k, grid in zip(codes, self.space.grids, strict=True))
        c = self._conditions(leading)
        parts = [grid.log_prob(flat[i], c, flat[:i]) for i, grid in enumerate(self.prior.grids)]
        return torch.cat(parts, dim=-1).view(*leading, -1)

    @torch.no_grad()
    def sample_codes(self, sample_shape: _size = (), how: Sampling = Sampling()) -> tuple[Tensor, ...]:  # noqa: B008
        how.require_no_steps()
        leading = (*sample_shape, *self.batch_shape)
        c, drawn = self._conditions(leading), []
        for grid in self.prior.grids:
            drawn.append(grid.generate(math.prod(leading), c, tuple(drawn), how))
        return tuple(codes.view(*leading, *grid) for codes, grid in zip(drawn, self.space.grids, strict=True))

    def _conditions(self, leading: Sequence[int]) -> Given | None:
        return None if self.c is None else self.c.expand(*leading).flatten()

    @property
    def mean(self) -> Tensor:
        raise ObjectiveError(
            "The mean of latents of an autoregressive prior has no closed form.",
            remedy="Sample it; --temperature makes its samples more or less likely.",
        )

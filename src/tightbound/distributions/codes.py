r"""Distributions over quantised latents: the point that an encoder chooses, and priors over the codes.

Convention: a code space has one or more levels, the top first; codes are one int64 tensor ``(*batch, *grid)`` for each
level, and z, ``(*batch, *latent)``, their vectors. The latents are a finite set, so probabilities are masses; their
logs are in nats. Positions of all levels are flattened into ``(*batch, positions)``, row by row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.kl import register_kl
from torch.types import _size

from ..conditions import Given
from .contract import Value
from .sampling import Sampling, Steered, indifferent

__all__ = ["CodeDistribution", "CodeMass", "CodePoint", "CodeSpace", "UniformCodes", "latent_shape"]

AT_ONCE = 64
"""Codes embedded over a full grid at once."""


class CodeSpace:
    """Abstract: the code space of a posterior: the grid of each level, and maps between codes and latents.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes.vq_vae import VQVAE
        >>> model = VQVAE(codes=16, channels=(8,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> model.posterior.grids, model.posterior.levels
        (((4, 4),), (16,))
    """

    grids: tuple[tuple[int, ...], ...]
    """Shape of each level's grid, the top first."""
    levels: tuple[int, ...]
    """Number of codes of each level, K."""

    def codes(self, x: Tensor, c: Given | None = None) -> tuple[Tensor, ...]:
        """The codes ``(n, *grid)`` of data ``(n, *shape)``."""
        raise NotImplementedError

    def embed(self, codes: Sequence[Tensor]) -> Tensor:
        """The latents ``(n, *latent)`` of codes ``(n, *grid)``."""
        raise NotImplementedError

    def codes_of(self, z: Tensor) -> tuple[Tensor, ...]:
        """The codes of latents: the inverse of :meth:`embed`."""
        raise NotImplementedError

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """The first of these gives the device."""
        raise NotImplementedError


class CodePoint(Value):
    r"""All mass on one element of a finite set, :math:`q(z \mid x) = \mathbb{1}[z = e(x)]`.

    A mass, not a density: :math:`\log q(z \mid x) = 0` at the point and :math:`-\infty` elsewhere, so with a prior over
    the same set there is an ELBO, :math:`\log p(x \mid e) + \log p(e)`, and it bounds :math:`\log p(x)`.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017).

    Args:
        vectors: e, of shape ``(*batch, *latent)``, whose gradient goes straight through to the encoder.
        codes: The codes of those vectors, int64 ``(*batch, *grid)`` for each level.
        codebook_loss: Squared distance that trains the codebooks, ``(*batch)``.
        commitment_loss: Squared distance that trains the encoder, ``(*batch)``.

    Example:
        >>> q = CodePoint(torch.ones(5, 4, 7, 7), (torch.zeros(5, 7, 7).long(),), torch.zeros(5), torch.zeros(5))
        >>> q.log_prob(q.rsample((3,))).shape, q.event_shape
        (torch.Size([3, 5]), torch.Size([4, 7, 7]))
    """

    has_rsample = True
    certain = True
    """All samples are the same."""

    def __init__(
        self, vectors: Tensor, codes: tuple[Tensor, ...], codebook_loss: Tensor, commitment_loss: Tensor
    ) -> None:
        self.vectors, self.codes = vectors, codes
        self.codebook_loss, self.commitment_loss = codebook_loss, commitment_loss
        split = commitment_loss.dim()
        super().__init__(vectors.shape[:split], vectors.shape[split:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.vectors

    @property
    def mode(self) -> Tensor:
        return self.vectors

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.vectors)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        return self.vectors.expand(*sample_shape, *self.vectors.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        event = len(self.event_shape)
        same = (value == self.vectors).flatten(-event).all(-1)
        return torch.zeros(same.shape, dtype=value.dtype, device=value.device).masked_fill(~same, -math.inf)


class CodeDistribution(Steered):
    """Abstract: a distribution over the latents of a code space, defined by one over their codes.

    Args:
        space: The latents and their codes.
        batch_shape: One distribution for each condition.
        event_shape: Shape of one latent, where it is known; else from :func:`latent_shape`.
    """

    def __init__(self, space: CodeSpace, batch_shape: _size = (), event_shape: _size | None = None) -> None:
        self.space = space
        event_shape = latent_shape(space) if event_shape is None else torch.Size(event_shape)
        super().__init__(torch.Size(batch_shape), event_shape, validate_args=False)

    def code_bound(self, codes: tuple[Tensor, ...]) -> Tensor:
        """What each position adds to the log-probability, or to an unbiased estimate of a lower bound on it.

        Args:
            codes: Codes of each level, ``(*batch, *grid)``, the top's first.

        Returns:
            ``(*batch, positions)``, nats.
        """
        raise NotImplementedError

    def sample_codes(self, sample_shape: _size = (), how: Sampling = Sampling()) -> tuple[Tensor, ...]:  # noqa: B008
        """Codes of each level, ``(*sample_shape, *batch, *grid)``."""
        raise NotImplementedError

    def codes_of(self, value: Tensor) -> tuple[Tensor, ...]:
        """The codes of each level, ``(*batch, *grid)``, of latents ``(*batch, *latent)``."""
        leading = value.shape[: value.dim() - len(self.event_shape)]
        flat = self.space.codes_of(value.reshape(-1, *self.event_shape))
        return tuple(codes.view(*leading, *codes.shape[1:]) for codes in flat)

    def sample(self, sample_shape: _size = (), how: Sampling = Sampling()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            codes = self.sample_codes(sample_shape, how)
            flat = tuple(level.reshape(-1, *grid) for level, grid in zip(codes, self.space.grids, strict=True))
            return self.space.embed(flat).view(*sample_shape, *self.batch_shape, *self.event_shape)


class CodeMass(CodeDistribution):
    r"""Abstract: a distribution over codes with exact probabilities.

    .. math:: \log p(z) = \sum_i \log p(k_i \mid k_{<i}), \qquad z = e(k)

    Two codes with the same vector are counted as the first, so this is a lower bound.
    """

    def code_log_prob(self, codes: tuple[Tensor, ...]) -> Tensor:
        """Log-probabilities ``(*batch, positions)``, nats, of codes ``(*batch, *grid)``, the top's first."""
        raise NotImplementedError

    def code_bound(self, codes: tuple[Tensor, ...]) -> Tensor:
        return self.code_log_prob(codes)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.code_log_prob(self.codes_of(value)).sum(-1)


class UniformCodes(CodeMass):
    r"""Every code equally likely at every position, :math:`\log p(z) = -\sum_i \ln K_i`.

    Args:
        space: The latents and their codes.
        batch_shape: One distribution for each condition, all the same.
        event_shape: As for :class:`CodeDistribution`.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes.vq_vae import VQVAE
        >>> model = VQVAE(codes=16, channels=(8,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> p = UniformCodes(model.posterior)
        >>> p.log_prob(p.sample((3,))) / 16  # -ln 16 at each of the 4 x 4 positions
        tensor([-2.7726, -2.7726, -2.7726])
    """

    def code_log_prob(self, codes: tuple[Tensor, ...]) -> Tensor:
        dtype = torch.promote_types(next(self.space.parameters()).dtype, torch.float32)
        levels = zip(codes, self.space.grids, self.space.levels, strict=True)
        parts = [torch.full_like(_in_a_row(level, grid), -math.log(k), dtype=dtype) for level, grid, k in levels]
        return torch.cat(parts, dim=-1)

    def sample_codes(self, sample_shape: _size = (), how: Sampling = Sampling()) -> tuple[Tensor, ...]:  # noqa: B008
        how.require_temperature_alone()
        if how.temperature != 1:
            raise indifferent(how.temperature)
        leading, device = (*sample_shape, *self.batch_shape), _device(self.space)
        pairs = zip(self.space.levels, self.space.grids, strict=True)
        return tuple(torch.randint(k, (*leading, *grid), device=device) for k, grid in pairs)

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> UniformCodes:
        return UniformCodes(self.space, batch_shape, self.event_shape)

    @property
    @torch.no_grad()
    def mean(self) -> Tensor:
        """The mean vector of the codebook at each position."""
        start = self.space.embed(_everywhere(self.space, 0, torch.zeros(1, dtype=torch.int64)))[0]
        total = start.clone()
        for level, k in enumerate(self.space.levels):
            parts = [_everywhere(self.space, level, part) for part in torch.arange(k).split(AT_ONCE)]
            total += sum((self.space.embed(part) - start).sum(0) for part in parts) / k
        return total.expand(*self.batch_shape, *self.event_shape)


def latent_shape(space: CodeSpace) -> torch.Size:
    """Shape of one latent of a code space.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes.vq_vae import VQVAE
        >>> model = VQVAE(codes=16, code_dim=3, channels=(8,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> latent_shape(model.posterior)
        torch.Size([3, 4, 4])
    """
    with torch.no_grad():
        return space.embed(_everywhere(space, 0, torch.zeros(1, dtype=torch.int64))).shape[1:]


def _in_a_row(codes: Tensor, grid: tuple[int, ...]) -> Tensor:
    return codes.flatten(codes.dim() - len(grid))


def _everywhere(space: CodeSpace, level: int, codes: Tensor) -> tuple[Tensor, ...]:
    """Grids with one code ``(n,)`` at all positions of a level, and code 0 on the others."""
    codes = codes.to(_device(space))
    rows = [codes if l == level else torch.zeros_like(codes) for l in range(len(space.grids))]
    return tuple(row.view(-1, *[1] * len(grid)).expand(-1, *grid) for row, grid in zip(rows, space.grids, strict=True))


def _device(space: CodeSpace) -> torch.device:
    return next(space.parameters()).device


@register_kl(CodePoint, CodeMass)
def _kl_of_a_point(q: CodePoint, p: CodeMass) -> Tensor:
    r"""KL of a point mass from a distribution over codes, :math:`-\log p(k)`."""
    return -p.code_log_prob(q.codes).sum(-1)

r"""What every quantiser returns, and codebook usage over a data set.

Convention: an encoder's output is ``(n, d, *grid)``, codes are int64 of shape ``(n, *grid)``; inside, vectors are rows
``(N, d)`` with ``N = n * prod(grid)``. Squared errors are sums over the grid and the channels of one example, never
means: a loss has shape ``(n,)`` and does not depend on the rest of the batch. Entropies are in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import DataError, ShapeError, UsageError
from ..runtime.modes import at_least_float32

__all__ = [
    "Quantized",
    "Usage",
    "grid_of",
    "per_example",
    "require_codes",
    "require_finite",
    "rows_of",
    "straight_through",
]


class Quantized(NamedTuple):
    r"""A batch with its vectors replaced by the nearest code vectors.

    With the stop-gradient :math:`\mathrm{sg}`, the encoder's output :math:`z_e` and the chosen vectors :math:`e`,

    .. math:: L = \lVert \mathrm{sg}[z_e] - e \rVert^2 + \beta \lVert z_e - \mathrm{sg}[e] \rVert^2.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017).

    Args:
        vectors: :math:`e`, of shape ``(n, d, *grid)``; its gradient goes straight through to :math:`z_e`.
        codes: Their codes, int64 ``(n, *grid)``.
        codebook_loss: The first term, ``(n,)``, with gradients for the codebook only; 0 where it is not learned by
            gradients.
        commitment_loss: The second term without its weight, ``(n,)``, with gradients for the encoder only.

    Example:
        >>> from tightbound.quantizers import VectorQuantizer
        >>> out = VectorQuantizer(16, 4)(torch.randn(5, 4, 7, 7))
        >>> out.vectors.shape, out.codes.shape, out.commitment_loss.shape
        (torch.Size([5, 4, 7, 7]), torch.Size([5, 7, 7]), torch.Size([5]))
    """

    vectors: Tensor
    codes: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor


class Quantizer(nn.Module):
    """Abstract: maps vectors to the nearest of finitely many, and codes to vectors."""

    codes: int
    """Number of codes, K."""
    dim: int
    """Width of a vector, d."""
    starts: bool = False
    """Whether it can be initialised from data."""

    def forward(self, z: Tensor) -> Quantized:
        """Vectors ``(n, d, *grid)``, quantised."""
        raise NotImplementedError

    def embed(self, codes: Tensor) -> Tensor:
        """The vectors ``(n, d, *grid)`` of codes ``(n, *grid)``."""
        raise NotImplementedError

    def start_from(self, z: Tensor) -> None:
        """Initialises from vectors ``(n, d, *grid)`` of data, if supported."""


class Usage:
    r"""How much of a codebook is used, counted over all batches: a single batch underestimates it.

    .. math:: \mathrm{perplexity} = \exp\Big(-\sum_k p_k \log p_k\Big), \qquad p_k = \text{share of code } k.

    Args:
        codes: Number of codes.

    Raises:
        UsageError: If there are no codes, or a counted code is out of range.

    Example:
        >>> usage = Usage(4)
        >>> usage.update(torch.tensor([[0, 1], [1, 0]]))
        >>> usage.used, round(usage.perplexity, 6)
        (0.5, 2.0)
    """

    def __init__(self, codes: int) -> None:
        if codes < 1:
            raise UsageError("A codebook must have at least one code.", got=codes, expected="1 or more")
        self.counts = torch.zeros(codes, dtype=torch.int64)

    def update(self, codes: Tensor) -> None:
        """Counts the codes of one more batch, of any shape."""
        require_codes(codes, len(self.counts))
        self.counts += torch.bincount(codes.flatten(), minlength=len(self.counts)).to(self.counts.device)

    @property
    def used(self) -> float:
        """Share of the codes used at least once."""
        return self.counts.count_nonzero().item() / len(self.counts)

    @property
    def perplexity(self) -> float:
        """Number of equally used codes with the same entropy; 0 before the first update."""
        if not self.counts.any():
            return 0.0
        shares = self.counts.double() / self.counts.sum()
        return torch.special.entr(shares).sum().exp().item()


def rows_of(z: Tensor, dim: int) -> Tensor:
    """The vectors of ``(n, dim, *grid)`` as rows ``(N, dim)``, at least float32.

    Raises:
        ShapeError: If they have another width.

    Example:
        >>> rows_of(torch.zeros(5, 4, 7, 7), 4).shape
        torch.Size([245, 4])
    """
    if z.dim() < 2 or z.shape[1] != dim:
        raise ShapeError(
            "These vectors do not fit the quantiser.",
            got=tuple(z.shape),
            expected=f"(n, {dim}, *grid)",
            remedy="Give the encoder as many output channels as the quantiser has dimensions.",
        )
    return at_least_float32(z).movedim(1, -1).reshape(-1, dim)


def grid_of(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """The inverse of :func:`rows_of`: rows as ``(n, d, *grid)``, where ``shape`` is ``(n, *grid)``.

    Example:
        >>> grid_of(torch.zeros(245, 4), (5, 7, 7)).shape
        torch.Size([5, 4, 7, 7])
    """
    return rows.view(*shape, rows.shape[1]).movedim(-1, 1)


def per_example(values: Tensor, n: int) -> Tensor:
    """The sums of ``(N,)`` numbers over the positions of each of n examples.

    Example:
        >>> per_example(torch.ones(6), 2)
        tensor([3., 3.])
    """
    return values.view(n, -1).sum(1) if n else values.new_zeros(0)


def straight_through(value: Tensor, source: Tensor) -> Tensor:
    """Exactly ``value``, with the gradient of ``source``; NaN where the source is not finite.

    References:
        Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation (Bengio, Leonard and
        Courville, 2013).

    Example:
        >>> source = torch.tensor([0.3], requires_grad=True)
        >>> value = straight_through(source.round(), source)
        >>> value.item(), torch.autograd.grad(value, source)[0].item()
        (0.0, 1.0)
    """
    return value.detach() + (source - source.detach())


def require_codes(codes: Tensor, size: int) -> None:
    """Refuses codes that are not integers from 0 to ``size - 1``.

    Raises:
        UsageError: If they are not.

    Example:
        >>> require_codes(torch.tensor([0, 3]), 4)
    """
    if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
        raise UsageError("Codes must be integers.", got=codes.dtype, expected="int64")
    if codes.numel() and not 0 <= codes.min() <= codes.max() < size:
        raise UsageError(
            "A code is out of range.",
            got=f"codes from {codes.min()} to {codes.max()}",
            expected=f"0 to {size - 1}",
            remedy="Use the codes of this quantiser; codes of another differ in meaning.",
        )


def require_finite(z: Tensor) -> None:
    """Refuses vectors with NaN or infinite entries, which have no nearest code.

    Raises:
        DataError: If there are any.

    Example:
        >>> require_finite(torch.zeros(5, 4))
    """
    if not z.isfinite().all():
        raise DataError(
            "Some vectors are not finite, so they have no nearest code.",
            got=f"{(~z.isfinite()).sum()} of {z.numel()} entries are NaN or infinite",
            remedy="Lower the learning rate of the encoder, or clip its gradient.",
        )

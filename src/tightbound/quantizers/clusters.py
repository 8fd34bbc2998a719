r"""Nearest centres and k-means, with memory that does not grow with vectors times centres.

Convention: vectors are rows ``(N, d)``, centres ``(K, d)``; an index is that of the nearest centre.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fill", "k_means", "moments", "nearest", "spread"]

ENTRIES = 1 << 21
"""Distances held at once on a CPU: 8 MiB fit its cache, which is faster than one large product."""
DEVICE_ENTRIES = 1 << 26
"""The same on an accelerator, where large products are faster."""
WORK = 1 << 30
"""Maximum number of distances in an iteration of k-means."""
JITTER = 0.01
"""Standard deviation of the noise on repeated vectors, as a share of the data's."""


@torch.no_grad()
def nearest(vectors: Tensor, centres: Tensor, entries: int | None = None) -> Tensor:
    r"""The index of the nearest centre, :math:`\arg\min_k \tfrac{1}{2} \lVert e_k \rVert^2 - z \cdot e_k`.

    Half the squared distance without the term that is the same for all centres: one matrix product, computed in chunks.

    Args:
        vectors: z, ``(N, d)``.
        centres: e, ``(K, d)``.
        entries: Number of distances held at once; None chooses by device.

    Returns:
        Indices, int64 ``(N,)``.

    Example:
        >>> nearest(torch.tensor([[0.9], [0.2]]), torch.tensor([[0.0], [1.0]]))
        tensor([1, 0])
    """
    if entries is None:
        entries = ENTRIES if vectors.device.type == "cpu" else DEVICE_ENTRIES
    norms = centres.square().sum(1) / 2
    indices = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    rows = max(1, entries // len(centres))
    for piece, out in zip(vectors.split(rows), indices.split(rows), strict=True):
        torch.argmin(torch.addmm(norms, piece, centres.t(), alpha=-1), dim=1, out=out)
    return indices


@torch.no_grad()
def moments(vectors: Tensor, indices: Tensor, count: int) -> Tensor:
    """Number of vectors of each centre, and their sum: ``(count, 1 + d)``, the number first.

    Example:
        >>> moments(torch.tensor([[2.0], [3.0], [5.0]]), torch.tensor([0, 0, 2]), 3)
        tensor([[2., 5.],
                [0., 0.],
                [1., 5.]])
    """
    total = vectors.new_zeros(count, 1 + vectors.shape[1])
    total[:, 0].index_add_(0, indices, vectors.new_ones(()).expand(len(vectors)))
    total[:, 1:].index_add_(0, indices, vectors)
    return total


@torch.no_grad()
def spread(vectors: Tensor, count: int, rounds: int = 32) -> Tensor:
    r"""Starting centres among the vectors, drawn with probability proportional to the squared distance to those already
    drawn.

    With at most ``rounds`` centres this is k-means++; more are drawn several at a time.

    References:
        k-means++: The Advantages of Careful Seeding (Arthur and Vassilvitskii, 2007).
        Scalable k-means++ (Bahmani et al., 2012).

    Args:
        vectors: ``(N, d)``, with N at least ``count``.
        count: Number of centres.
        rounds: Number of draws.

    Example:
        >>> spread(torch.tensor([[0.0], [0.0], [9.0]]), 2).sum()
        tensor(9.)
    """
    chosen = torch.randint(len(vectors), (1,), device=vectors.device)
    distances = (vectors - vectors[chosen]).square().sum(1)
    while len(chosen) < count:
        more = min(-(-count // rounds), count - len(chosen))
        scores = distances.log() + _gumbel(distances)  # the largest are a draw without replacement
        scores[chosen] = -torch.inf
        new = scores.topk(more).indices
        closest = vectors[new][nearest(vectors, vectors[new])]
        distances = torch.minimum(distances, (vectors - closest).square().sum(1))
        chosen = torch.cat([chosen, new])
    return vectors[chosen]


def _gumbel(like: Tensor) -> Tensor:
    return -torch.empty_like(like).exponential_().log()


@torch.no_grad()
def k_means(vectors: Tensor, count: int, iterations: int = 10) -> Tensor:
    """Centres ``(count, d)`` of vectors ``(N, d)`` by Lloyd's iterations from spread starts.

    A centre without vectors stays in place. At most 64 vectors per centre are used, fewer for thousands of centres.
    With fewer than two per centre there is nothing to average: see :func:`fill`.

    References:
        Least squares quantization in PCM (Lloyd, 1982).

    Example:
        >>> k_means(torch.tensor([[0.0], [2.0], [9.0], [11.0]]), 2).sort(0).values
        tensor([[ 1.],
                [10.]])
    """
    most = min(64 * count, WORK // count)
    if min(len(vectors), most) < 2 * count:
        return fill(vectors, count)
    if len(vectors) > most:
        vectors = vectors[torch.randperm(len(vectors), device=vectors.device)[:most]]
    centres = spread(vectors, count)
    for _ in range(iterations):
        sizes, sums = moments(vectors, nearest(vectors, centres), count).split([1, vectors.shape[1]], dim=1)
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
    return centres


@torch.no_grad()
def fill(vectors: Tensor, count: int) -> Tensor:
    """A random sample of ``count`` vectors; if there are fewer, all of them and slightly noisy copies.

    Example:
        >>> fill(torch.tensor([[0.0], [1.0]]), 5).shape
        torch.Size([5, 1])
    """
    order = torch.randperm(len(vectors), device=vectors.device)[:count]
    copies = torch.randint(len(vectors), (count - len(order),), device=vectors.device)
    scale = JITTER * vectors.std(0, correction=0).clamp(min=1e-3)
    noise = scale * torch.randn(len(copies), vectors.shape[1], dtype=vectors.dtype, device=vectors.device)
    return torch.cat([vectors[order], vectors[copies] + noise])

r"""Vector quantisation: the nearest of K learned vectors, and how those learn.

Convention: an encoder's output is ``(n, d, *grid)``, codes are int64 of shape ``(n, *grid)``; inside, vectors are rows
``(N, p)`` with ``N = n * prod(grid)`` and p the codebook's width. Squared errors are sums over an example.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Literal, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from ..errors import DataError, UsageError
from ..networks.linear import Linear
from ..runtime.parts import LearnsByItself
from .clusters import fill, k_means, moments, nearest
from .quantized import (
    Quantized,
    Quantizer,
    grid_of,
    per_example,
    require_codes,
    require_finite,
    rows_of,
    straight_through,
)

__all__ = ["VectorQuantizer", "direction"]

PSEUDO_COUNT = 1e-5
"""Pseudo-count of vectors at each code's own position, so that an unused code stays in place."""
USAGE_DECAY = 0.99
"""Decay of the usage counts where the codebook is learned by gradients."""
SHORTEST = 1e-6
"""Shorter vectors count as zero."""


class VectorQuantizer(Quantizer, LearnsByItself):
    r"""Replaces each vector z by the nearest of a codebook, :math:`\arg\min_{e_k} \lVert z - e_k \rVert`.

    With ``ema`` the codebook follows the vectors by online k-means. In a step let :math:`n_k` vectors with the sum
    :math:`s_k` have the code k; with decay :math:`\gamma` after t steps

    .. math::
        N_k \leftarrow \gamma N_k + (1 - \gamma) n_k, \quad S_k \leftarrow \gamma S_k + (1 - \gamma) s_k, \quad
        e_k \leftarrow \frac{\hat S_k + \epsilon e_k}{\hat N_k + \epsilon}, \quad
        \hat N_k = \frac{N_k}{1 - \gamma^t},

    where the averages start from zero, the division takes that bias away, and :math:`\epsilon = 10^{-5}` smooths the
    counts: an unused code stays in place. Without ``ema`` the codebook is a parameter, learned by the codebook loss.

    A code is dead when its average count is below the share ``revive`` of the mean count and the average has half
    filled its window (69 steps at 0.99). It becomes a random vector of the batch, and its average starts again between
    that share and the mean, so that it has about two windows to be used. For a codebook that is learned by gradients,
    ``anew`` marks the codes revived since the last :meth:`before_step`, which resets their optimiser state. At 0.03 a
    code of average usage is not revived by chance while a batch has at least K / 16 vectors, and codes used more rarely
    matter little. None of this synchronises with the device.

    Both learn in :meth:`forward` in training mode only. Under ``torch.distributed`` they learn from the vectors of all
    processes, so all have the same codebook. Everything is at least float32, also under autocast.

    A vector that is not finite gives outputs and a loss that are not finite, which the caller must check; the codebook
    ignores it.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017), appendix A.1.
        Fast Decoding in Sequence Models using Discrete Latent Variables (Kaiser et al., 2018).
        Jukebox: A Generative Model for Music (Dhariwal et al., 2020), for reviving codes.
        Vector-quantized Image Modeling with Improved VQGAN (Yu et al., 2022), for ``cosine`` and ``project``.

    Args:
        codes: K, the number of codes. More than the number of vectors to start from is allowed but of little use.
        dim: d, the width of a vector.
        ema: The decay :math:`\gamma`; None for a codebook that is learned by gradients.
        cosine: Whether vectors and codes are normalised to length 1. A zero vector stays 0 and gets no gradient.
        project: p, the width of the codebook between learned projections from d and back to d; the losses are then
            errors in p dimensions. None for no projections and p = d.
        revive: Share of the mean count below which a code is dead; 0 for never.
        start: Whether the first training batch, or :meth:`start_from`, initialises the codebook by k-means or random
            choice.

    Raises:
        UsageError: If a number is out of range.

    Example:
        >>> quantizer = VectorQuantizer(16, 4)
        >>> z = torch.randn(5, 4, 7, 7, requires_grad=True)
        >>> out = quantizer(z)
        >>> torch.equal(quantizer.eval().embed(quantizer.codes_of(z)), quantizer(z).vectors)
        True
    """

    starts = True
    codebook: Tensor
    averages: Tensor
    weight: Tensor
    started: Tensor
    anew: Tensor

    def __init__(
        self,
        codes: int,
        dim: int,
        *,
        ema: float | None = 0.99,
        cosine: bool = False,
        project: int | None = None,
        revive: float = 0.03,
        start: Literal["k-means", "data"] = "k-means",
    ) -> None:
        super().__init__()
        _check(codes, dim, ema, project, revive, start)
        self.codes, self.dim, self.ema, self.cosine, self.revive, self.start = codes, dim, ema, cosine, revive, start
        width = dim if project is None else project
        codebook = torch.randn(codes, width)
        if ema is None:
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
        self.inward = nn.Identity() if project is None else Linear(dim, width)
        self.outward = nn.Identity() if project is None else Linear(width, dim)
        self.register_buffer("averages", torch.zeros(codes, 1 + width))  # N and S
        self.register_buffer("weight", torch.zeros(()))  # 1 - decay^t
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("anew", torch.zeros(codes, 1, dtype=torch.bool), persistent=False)
        self._known_started = False
        self.register_load_state_dict_post_hook(_read_anew)
        self.more, self.empty, self._seen = False, False, list[tuple[Tensor, Tensor]]()

    def forward(self, z: Tensor) -> Quantized:
        """The nearest vectors of an encoder's output ``(n, d, *grid)``, with their losses.

        Raises:
            ShapeError: If it has another width.
        """
        shape = (z.shape[0], *z.shape[2:])
        with torch.autocast(z.device.type, enabled=False):
            rows = self._rows(z)
            if self.training and not self._has_started():
                self._start(rows.detach())
            indices = nearest(rows.detach(), self._centres())
            chosen = self._lookup(indices)
            committed = (rows - chosen.detach()).square().sum(1)
            learned = (rows.detach() - chosen).square().sum(1) if self.ema is None else torch.zeros_like(committed)
            vectors = grid_of(self.outward(straight_through(chosen, rows)), shape)
            if self.training:
                self._learn(rows.detach(), torch.where(committed.isfinite(), indices, self.codes))
        losses = per_example(learned, len(z)), per_example(committed, len(z))
        return Quantized(vectors, indices.view(shape), *losses)

    @torch.no_grad()
    def codes_of(self, z: Tensor) -> Tensor:
        """The codes ``(n, *grid)`` of an encoder's output ``(n, d, *grid)``; nothing is learned.

        Raises:
            ShapeError: If it has another width.
            DataError: If there is a NaN or an infinite entry.
        """
        require_finite(z)
        with torch.autocast(z.device.type, enabled=False):
            return nearest(self._rows(z), self._centres()).view(z.shape[0], *z.shape[2:])

    def embed(self, codes: Tensor) -> Tensor:
        """The vectors ``(n, d, *grid)`` of codes ``(n, *grid)``.

        Raises:
            UsageError: If a code is out of range.
        """
        require_codes(codes, self.codes)
        with torch.autocast(codes.device.type, enabled=False):
            return grid_of(self.outward(self._lookup(codes.flatten())), codes.shape)

    def start_from(self, z: Tensor) -> None:
        """Takes the codebook from an encoder's output ``(n, d, *grid)``, by k-means or by chance; forgets the averages.

        With fewer vectors than codes all become codes, and the others are copies with noise of a hundredth of their
        standard deviation. In distributed runs every process calls this, and the vectors of the first count.

        Raises:
            ShapeError: If it has another width.
            DataError: If there are no vectors, or an entry is not finite.
        """
        require_finite(z)
        if not z.numel():
            raise DataError(
                "There are no vectors to initialise a codebook from.", got=tuple(z.shape), expected="some vectors"
            )
        with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
            self._start(self._rows(z))

    @contextmanager
    def part_of_batch(self, *, number: int, of: int, more: bool, empty: bool) -> Iterator[None]:
        """Inside the block, inputs are a part of a batch, so that the codebook is updated as by the complete batch.

        Args:
            number: Of the part, over all processes.
            of: Number of parts.
            more: Whether another part follows: the codes wait for it.
            empty: Whether the part has no examples of its own; its inputs are then ignored.

        Example:
            >>> quantizer, z = VectorQuantizer(2, 1, start="data"), torch.tensor([[0.0], [1.0]])
            >>> for i in range(2):
            ...     with quantizer.part_of_batch(number=i, of=2, more=i == 0, empty=False):
            ...         _ = quantizer(z)
            ...     print(f"{quantizer.averages[:, 0].sum():.2f}")
            0.00
            0.04
        """
        self.more, self.empty = more, empty
        try:
            yield
        finally:
            self.more, self.empty = False, False

    @torch.no_grad()
    def before_step(self, optimizer: Optimizer) -> None:
        """Clears gradient and optimiser state of revived codes.

        Example:
            >>> quantizer = VectorQuantizer(4, 2, ema=None)
            >>> optimizer = torch.optim.Adam(quantizer.parameters())
            >>> quantizer.codebook.grad = torch.ones(4, 2)
            >>> optimizer.step()
            >>> quantizer.anew[1] = True
            >>> quantizer.before_step(optimizer)
            >>> optimizer.state[quantizer.codebook]["exp_avg"][:, 0]
            tensor([0.1000, 0.0000, 0.1000, 0.1000])
        """
        if self.ema is not None or not self.revive:
            return
        for remembered in (self.codebook.grad, *optimizer.state.get(self.codebook, {}).values()):
            if isinstance(remembered, Tensor) and remembered.shape == self.codebook.shape:
                remembered.masked_fill_(self.anew, 0)
        self.anew.zero_()

    def forget(self) -> None:
        """Forgets whether the codebook is initialised, which is read again."""
        self._known_started = False

    def _rows(self, z: Tensor) -> Tensor:
        rows = self.inward(rows_of(z, self.dim).to(self.codebook.dtype))
        return direction(rows) if self.cosine else rows

    def _centres(self) -> Tensor:
        codebook = self.codebook.detach()
        return direction(codebook) if self.cosine else codebook

    def _lookup(self, indices: Tensor) -> Tensor:
        chosen = F.embedding(indices, self.codebook)
        return direction(chosen) if self.cosine else chosen

    def _has_started(self) -> bool:
        if not self._known_started:  # reading it synchronises with the device, so it is cached
            self._known_started = bool(self.started)
        return self._known_started

    @torch.no_grad()
    def _start(self, rows: Tensor) -> None:
        rows = rows[rows.isfinite().all(1)]
        if len(rows):
            self.codebook.copy_((k_means if self.start == "k-means" else fill)(rows, self.codes))
            self.started.fill_(True)
        self.averages.zero_()
        self.weight.zero_()
        if _many_processes():
            distributed.broadcast(self.codebook.detach(), 0)
            distributed.broadcast(self.started, 0)

    @torch.no_grad()
    def take(self, vectors: Tensor) -> None:
        """Takes vectors that were learned before; averages follow from them, as if each had been used as often.

        Args:
            vectors: ``(codes, width)``.
        """
        self.codebook.copy_(vectors)
        self.started.fill_(True)
        self.averages.copy_(torch.cat([torch.ones_like(self.averages[:, :1]), vectors.to(self.averages)], dim=1))
        self.weight.fill_(1)

    @torch.no_grad()
    def _learn(self, rows: Tensor, indices: Tensor) -> None:
        """One update of the averages; the index ``codes`` marks rows that are not finite."""
        seen = moments(rows, indices, self.codes + 1)[:-1]
        self._seen.append((torch.zeros_like(seen) if self.empty else seen, _pick(rows, self.codes)))
        if self.more:
            return
        parts, self._seen = self._seen, []
        seen, picked = _agreed(reduce(torch.add, [seen for seen, _ in parts]), parts[0][1])
        decay = USAGE_DECAY if self.ema is None else self.ema
        self.averages.lerp_(seen, 1 - decay)
        self.weight.mul_(decay).add_(1 - decay)
        if self.ema is not None:
            self._follow()
        if self.revive:
            self._revive(picked)

    def _follow(self) -> None:
        sizes, sums = (self.averages / self.weight).split([1, self.codebook.shape[1]], dim=1)
        means = self.codebook + (sums - sizes * self.codebook) / (sizes + PSEUDO_COUNT)  # exactly itself if unused
        self.codebook.copy_(direction(means) if self.cosine else means)

    def _revive(self, picked: Tensor) -> None:
        sizes = self.averages[:, :1]
        mean = sizes.mean()
        dead = (sizes < self.revive * mean) & (self.weight > 0.5) & picked.isfinite().all(1, keepdim=True)
        size = self.revive**0.5 * mean
        fresh = size * torch.cat([torch.ones_like(sizes), picked], dim=1)
        self.averages.copy_(torch.where(dead, fresh, self.averages))
        self.codebook.copy_(torch.where(dead, picked, self.codebook))
        if self.ema is None:
            self.anew.logical_or_(dead)


def _read_anew(quantizer: VectorQuantizer, keys: NamedTuple) -> None:
    """Forgets whether it has started, after it has loaded weights."""
    quantizer.forget()


def direction(vectors: Tensor) -> Tensor:
    """Rows ``(N, p)`` normalised to length 1; a zero row stays zero, without a gradient.

    Example:
        >>> direction(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    lengths = vectors.norm(dim=1, keepdim=True)
    none = lengths < SHORTEST
    return torch.where(none, 0, vectors / lengths.masked_fill(none, 1))


def _many_processes() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _pick(rows: Tensor, count: int) -> Tensor:
    """A random sample of rows, without replacement if possible; without rows, an unusable value."""
    if not len(rows):
        return rows.new_full((count, rows.shape[1]), torch.nan)
    order = torch.randperm(len(rows), device=rows.device)
    return rows[order.repeat(-(-count // len(rows)))[:count]]


def _agreed(seen: Tensor, picked: Tensor) -> tuple[Tensor, Tensor]:
    """The counts of all processes and the rows picked by the first, in one broadcast."""
    if not _many_processes():
        return seen, picked
    if distributed.get_rank() != 0:
        picked = torch.zeros_like(picked)
    both = torch.cat([seen, picked], dim=1)
    distributed.all_reduce(both)
    seen, picked = both.split([seen.shape[1], picked.shape[1]], dim=1)
    return seen, picked


def _check(codes: int, dim: int, ema: float | None, project: int | None, revive: float, start: str) -> None:
    if codes < 1:
        raise UsageError("A codebook must have at least one code.", got=f"codes = {codes}", expected="1 or more")
    if dim < 1 or (project is not None and project < 1):
        got = f"dim = {dim}, project = {project}"
        raise UsageError("Vectors must have at least one dimension.", got=got, expected="1 or more")
    if ema is not None and not 0 <= ema < 1:
        raise UsageError(
            "The decay ema must be at least 0 and below 1.", got=f"ema = {ema}", expected="0 <= ema < 1, or None"
        )
    if not 0 <= revive < 1:
        raise UsageError("revive must be at least 0 and below 1.", got=f"revive = {revive}", expected="0 <= revive < 1")
    if start not in ("k-means", "data"):
        raise UsageError("Unknown start.", got=start, expected="k-means or data")

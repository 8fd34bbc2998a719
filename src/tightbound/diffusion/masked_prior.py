r"""A prior over codes by masked diffusion: it can be bounded, and sampled many codes at a time.

Convention: as in :mod:`tightbound.diffusion.masked`; the codes of all levels are one row, the top's first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.types import _size

from ..conditions import Given
from ..distributions import Bounded, CodeDistribution, Sampling
from ..errors import ObjectiveError
from ..posteriors import CodePosterior
from .masked import CodeDenoiser, bound_terms, hidden_counts, log_probs_of, numbers_hidden, random_sets, reveal, spans
from .times import stratified_draws

__all__ = ["SAMPLER_STEPS", "MaskedCodes", "MaskedPrior"]

SAMPLER_STEPS = 16
"""Default number of steps in which samples are drawn."""


class MaskedPrior(nn.Module):
    r"""A prior over the codes of all levels, by the probabilities of hidden codes given the visible ones.

    The posterior, which maps codes to latents, is shared with the model, not copied.

    References:
        Structured Denoising Diffusion Models in Discrete State-Spaces (Austin et al., 2021).
        MaskGIT: Masked Generative Image Transformer (Chang et al., 2022).

    Args:
        posterior: The code space.
        denoiser: The network.
        timesteps: Steps of the chain whose bound is computed; None for continuous time.

    Raises:
        UsageError: If there are no steps.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.diffusion import MaskedTransformer
        >>> from tightbound.recipes.vq_vae import VQVAE
        >>> posterior = VQVAE(codes=16, channels=(8,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17)).posterior
        >>> network = MaskedTransformer(posterior.levels, posterior.grids, width=16, layers=1, heads=2)
        >>> p = MaskedPrior(posterior, network)()
        >>> p.lower_bound(p.sample((5,), Sampling(steps=4))).shape
        torch.Size([5])
    """

    def __init__(self, posterior: CodePosterior, denoiser: CodeDenoiser, timesteps: int | None = None) -> None:
        super().__init__()
        self.posterior, self.denoiser = posterior, denoiser
        self.positions = sum(math.prod(grid) for grid in posterior.grids)
        self.counts = hidden_counts(self.positions, timesteps)

    def forward(self, c: Given | None = None) -> MaskedCodes:
        return MaskedCodes(self, c)


class MaskedCodes(CodeDistribution, Bounded):
    """The distribution that a :class:`MaskedPrior` gives.

    Args:
        prior: The prior with the network.
        c: Conditions of shape ``(*batch)``, or None.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.diffusion import MaskedTransformer
        >>> from tightbound.distributions import has_density
        >>> from tightbound.recipes.vq_vae import VQVAE
        >>> posterior = VQVAE(codes=16, channels=(8,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17)).posterior
        >>> network = MaskedTransformer(posterior.levels, posterior.grids, width=16, layers=1, heads=2)
        >>> p = MaskedCodes(MaskedPrior(posterior, network))
        >>> [level.shape for level in p.sample_codes((5,))], has_density(p)
        ([torch.Size([5, 4, 4])], False)
    """

    def __init__(self, prior: MaskedPrior, c: Given | None = None) -> None:
        self.prior, self.c = prior, c
        super().__init__(prior.posterior, () if c is None else c.shape)

    def code_bound(self, codes: tuple[Tensor, ...]) -> Tensor:
        """Terms of an unbiased estimate of a lower bound, ``(*batch, positions)`` nats, from one random set of hidden
        codes for each entry of the batch.

        The numbers of hidden codes are stratified over the batch; of two or more dimensions the first counts draws of
        the same examples, whose numbers are stratified too.
        """
        leading = codes[0].shape[: codes[0].dim() - len(self.space.grids[0])]
        x = torch.cat([k.reshape(math.prod(leading), -1) for k in codes], dim=1)
        draws = leading[0] if len(leading) > 1 else 1
        times = stratified_draws(draws, math.prod(leading) // max(1, draws), device=x.device).flatten()
        hidden = random_sets(numbers_hidden(times, self.prior.counts), self.prior.positions)
        log_probs = log_probs_of(self.prior.denoiser(x, hidden, self._conditions(leading)), x)
        return bound_terms(log_probs, hidden).view(*leading, -1)

    def lower_bound(self, x: Tensor) -> Tensor:
        """An unbiased estimate of a lower bound on log p(z) of latents, ``(*batch)`` nats: see :meth:`code_bound`."""
        return self.code_bound(self.codes_of(x)).sum(-1)

    @torch.no_grad()
    def sample_codes(self, sample_shape: _size = (), how: Sampling = Sampling()) -> tuple[Tensor, ...]:  # noqa: B008
        leading, p = (*sample_shape, *self.batch_shape), self.prior
        how.require_no_sampler()
        c, plan = self._conditions(leading), spans(p.positions, how.steps or SAMPLER_STEPS)
        missing = None if c is None else c.missing()
        drawn = reveal(
            lambda codes, hidden: p.denoiser(codes, hidden, c),
            math.prod(leading),
            p.positions,
            plan,
            how,
            None if missing is None else lambda codes, hidden: p.denoiser(codes, hidden, missing),
            next(p.posterior.parameters()).device,
        )
        levels = drawn.split([math.prod(grid) for grid in self.space.grids], dim=1)
        return tuple(level.reshape(*leading, *grid) for level, grid in zip(levels, self.space.grids, strict=True))

    def _conditions(self, leading: Sequence[int]) -> Given | None:
        return None if self.c is None else self.c.expand(*leading).flatten()

    @property
    def mean(self) -> Tensor:
        raise ObjectiveError(
            "The mean of latents of a masked prior has no closed form.",
            remedy="Sample it; --temperature makes its samples more or less likely.",
        )

r"""Posteriors of top-down hierarchies, :math:`q(u \mid x) = \prod_l q(u_l \mid u_{>l}, x)`, over packed noise.

Convention: a group maps its noise to :math:`z_l = \mu_p + \sigma_p u_l`, so :math:`p(u) = \mathcal{N}(0, I)` exactly,
and a Gaussian of z with mean m and deviation s is one of u with mean :math:`(m - \mu_p) / \sigma_p` and deviation
:math:`s / \sigma_p`: the KL is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn import functional as F
from torch.types import _size

from ..conditions import Given
from ..distributions import independent, leading_shape
from ..distributions.packed import Packed, Visit
from ..errors import ShapeError, UsageError
from ..networks.ladder import Group, LadderDecoder, recomputed
from ..networks.limits import log_deviation
from ..runtime.modes import at_least_float32
from .base import PackedLayers, Posterior

__all__ = ["ARMS", "Arm", "Direct", "Merge", "PackedNormal", "Residual", "TopDownPosterior", "merge"]

Chosen = Callable[[int, Tensor, Tensor], Tensor]
"""From the index of a group and the mean and deviation of its posterior to its noise u; without side effects."""


class Arm(nn.Module):
    r"""Abstract: one group's posterior :math:`q(u_l \mid u_{>l}, x)`.

    Args:
        network: From the state, the features of x, or both, to two numbers for each entry of the latent.
    """

    sees_state: bool = True
    """Whether the network's input includes the state of the path down."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, h: Tensor, e: Tensor, mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of u.

        Args:
            h: The state of the path down.
            e: Features of x on the same grid.
            mean: :math:`\\mu_p`.
            log_std: :math:`\\log \\sigma_p`.
        """
        out = self.network(torch.cat([h, e], dim=1) if self.sees_state else e)
        a, raw = at_least_float32(out).chunk(2, dim=1)
        return self.moments(a, log_deviation(raw), mean, log_std)

    def moments(self, a: Tensor, b: Tensor, mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of u from the network's location and log deviation."""
        raise NotImplementedError


class Residual(Arm):
    r"""The network gives what changes from the prior, :math:`q(z) = \mathcal{N}(\mu_p + \sigma_p a, (\sigma_p e^b)^2)`.

    References:
        NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020).

    Example:
        >>> m = torch.tensor([0.5]), torch.tensor([-1.0])
        >>> [u.item() for u in Residual(nn.Identity()).moments(*m, mean=torch.ones(1), log_std=torch.ones(1))]
        [0.5, 0.3678794503211975]
    """

    def moments(self, a: Tensor, b: Tensor, mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        return a, b.exp()


class Direct(Arm):
    r"""The network gives the posterior itself, :math:`q(z) = \mathcal{N}(a, e^{2b})`.

    References:
        Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images (Child, 2021).

    Example:
        >>> m = torch.tensor([3.0]), torch.tensor([0.0])
        >>> Direct(nn.Identity()).moments(*m, mean=torch.ones(1), log_std=torch.zeros(1))
        (tensor([2.]), tensor([1.]))
    """

    def moments(self, a: Tensor, b: Tensor, mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        return (a - mean) * (-log_std).exp(), (b - log_std).exp()


class Merge(Arm):
    r"""The network gives a Gaussian message from x, multiplied by the prior: :func:`merge`.

    References:
        Ladder Variational Autoencoders (Sønderby et al., 2016).

    Example:
        >>> m = torch.tensor([3.0]), torch.tensor([0.0])
        >>> Merge(nn.Identity()).moments(*m, mean=torch.ones(1), log_std=torch.zeros(1))[0]
        tensor([1.])
    """

    sees_state = False

    def moments(self, a: Tensor, b: Tensor, mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        log_precision = 2 * (log_std - b)  # of the message, in units of the prior's
        return (a - mean) * (-log_std).exp() * log_precision.sigmoid(), (0.5 * F.logsigmoid(-log_precision)).exp()


ARMS: dict[str, type[Arm]] = {"residual": Residual, "direct": Direct, "merge": Merge}
"""Posteriors of a group by name."""


def merge(prior: Distribution, message: Distribution) -> Distribution:
    r"""The normalised product of two Gaussians, weighted by their precisions.

    .. math:: \mathcal{N}\!\left( \frac{\mu_1 \sigma_1^{-2} + \mu_2 \sigma_2^{-2}}{\sigma_1^{-2} + \sigma_2^{-2}},
        \frac{1}{\sigma_1^{-2} + \sigma_2^{-2}} \right)

    References:
        Ladder Variational Autoencoders (Sønderby et al., 2016).

    Args:
        prior: Independent Gaussians.
        message: The same.

    Raises:
        UsageError: If one is not Gaussian.

    Example:
        >>> p = independent(Normal(torch.zeros(2), torch.ones(2)), 1)
        >>> q = independent(Normal(torch.ones(2), torch.ones(2)), 1)
        >>> merge(p, q).mean, merge(p, q).variance
        (tensor([0.5000, 0.5000]), tensor([0.5000, 0.5000]))
    """
    bases = [d.base_dist if isinstance(d, Independent) else d for d in (prior, message)]
    for each in bases:
        if not isinstance(each, Normal):
            raise UsageError(
                "Only Gaussians can be merged by their precisions.",
                got=type(each).__name__,
                expected="a Normal, or Independent Normals",
                remedy="Use --posterior residual or direct, which need no product with the prior.",
            )
    first, second = (each for each in bases if isinstance(each, Normal))
    precision = first.scale**-2 + second.scale**-2
    mean = (first.loc * first.scale**-2 + second.loc * second.scale**-2) / precision
    return independent(Normal(mean, precision**-0.5), len(prior.event_shape))


class TopDownPosterior(Posterior):
    r"""The posterior over the packed noise of all groups, which shares the path down with the decoder.

    Args:
        bottom_up: From examples to features on each grid, the coarsest first.
        arms: The posterior of each group, the top first.
        levels: For each group, the index of its features.
        decoder: The path down; its parameters belong to the likelihood.
        shape: Shape of one example.

    Example:
        >>> from tightbound.networks.ladder import BottomUp, ConvolutionalGroup, PreactivationBlock
        >>> grids = [(1, 1), (7, 7)]
        >>> decoder = LadderDecoder([ConvolutionalGroup(8, 2, g, above=(1, 1)) for g in grids], 8, (1, 28, 28), 1)
        >>> arms = [Residual(PreactivationBlock(16, 4, 8, g)) for g in grids]
        >>> q = TopDownPosterior(BottomUp((1, 28, 28), 8, grids), arms, [0, 1], decoder, (1, 28, 28))
        >>> q(torch.zeros(5, 1, 28, 28)).rsample((3,)).shape
        torch.Size([3, 5, 100])
    """

    def __init__(
        self,
        bottom_up: nn.Module,
        arms: Sequence[Arm],
        levels: Sequence[int],
        decoder: LadderDecoder,
        shape: Sequence[int],
    ) -> None:
        super().__init__()
        self.bottom_up, self.arms, self.levels, self.shape = bottom_up, nn.ModuleList(arms), tuple(levels), tuple(shape)
        self._source = (decoder,)  # in a tuple: followed, but registered and saved only once, with the likelihood

    @property
    def decoder(self) -> LadderDecoder:
        """The path down."""
        return self._source[0]

    @property
    def space(self) -> PackedLayers:
        """The space of its latents."""
        return PackedLayers(self, self.decoder.layers)

    def forward(self, x: Tensor, c: Given | None = None) -> Distribution:
        leading = leading_shape(x, self.shape)
        features = self.bottom_up(x.reshape(math.prod(leading), *self.shape))
        return PackedNormal(self, [features[level] for level in self.levels], leading, x)


class PackedNormal(Packed):
    """The distribution of :class:`TopDownPosterior`: Gaussian in each group, given the groups above it.

    Args:
        source: The posterior.
        features: Of x, for each group, ``(n, channels, rows, columns)``.
        batch: The batch shape of x, n in total.
        like: A tensor of the dtype and device of samples.
        noise: Shift and log scale of the noise of each example, ``(*batch, total)``; None for standard noise.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import Ladder
        >>> model = Ladder(channels=8, grids=(1, 4), groups=(1,)).build(DataSpec("digits", (1, 8, 8), levels=17))
        >>> q = model.posterior(torch.zeros(5, 1, 8, 8))
        >>> q.log_prob(q.sample((3,))).shape, list(q.visit().posteriors)
        (torch.Size([3, 5]), ['z1', 'z2'])
    """

    has_rsample = True

    def __init__(
        self,
        source: TopDownPosterior,
        features: Sequence[Tensor],
        batch: _size,
        like: Tensor,
        noise: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.source, self.features, self._like, self._noise = source, list(features), like, noise
        super().__init__(torch.Size(batch), torch.Size((sum(source.decoder.sizes),)), validate_args=False)

    def visit(self, sample_shape: _size = (), *, pathwise: bool = True) -> Visit:
        u, moments, h = self._sampled(torch.Size(sample_shape), pathwise)
        leading = (*sample_shape, *self.batch_shape)
        output = at_least_float32(self.source.decoder.output(h))
        flat = [[m.reshape(*leading, m[0:1].numel()) for m in each] for each in reversed(moments)]
        posteriors = {
            name: independent(Normal(mean, std, validate_args=False), 1)
            for name, (mean, std) in zip(self.source.decoder.layers, flat, strict=True)
        }
        output = output.reshape(*leading, *output.shape[1:])
        return Visit(u.reshape(*leading, u.shape[1]), posteriors, output, self.source.decoder)

    def corrected(self, shift: Tensor, log_scale: Tensor) -> PackedNormal:
        if self._noise is not None:
            before, scale = self._noise
            shift, log_scale = before + scale.exp() * shift, scale + log_scale
        fixed = [e.detach() for e in self.features]  # what is optimised is the noise, step by step
        return PackedNormal(self.source, fixed, self.batch_shape, self._like, (shift, log_scale))

    @torch.no_grad()
    def pairs(self) -> dict[str, tuple[Tensor, Tensor]]:
        (n,), decoder = self.batch_shape, self.source.decoder
        h, found = decoder.begin(self._like, n), list[tuple[Tensor, Tensor]]()
        for i, (group, arm, e) in enumerate(zip(decoder.path, self.source.arms, self.features, strict=True)):
            mean, log_std, h = group.prior(h)
            own, std = self._corrected(i, *arm(h, e, mean, log_std))
            u = own + std * torch.randn_like(own)
            rows = [self._under_all(i, arm, u[j], (h[j], mean[j], log_std[j])) for j in range(n)]
            found.append((u.flatten(1), torch.stack(rows)))
            h = group.absorb(h, mean + log_std.exp() * u)
        return dict(zip(reversed(decoder.layers), found, strict=True))

    def _under_all(self, i: int, arm: nn.Module, u: Tensor, given: Sequence[Tensor]) -> Tensor:
        """The log-density of one sample of a group, given its own state, for the features of every example."""
        h, mean, log_std = (each.expand(*self.batch_shape, *each.shape) for each in given)
        moments = self._corrected(i, *arm(h, self.features[i], mean, log_std))
        return Normal(*moments, validate_args=False).log_prob(u).double().flatten(1).sum(1)

    def _corrected(self, i: int, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of a group with the noise of each example."""
        if self._noise is None:
            return mean, std
        repeats = len(mean) // max(1, self.batch_shape.numel())
        shift, log_scale = (
            self._split(each.reshape(-1, each.shape[-1]))[i].repeat(repeats, 1, 1, 1) for each in self._noise
        )
        return mean + std * shift, std * log_scale.exp()

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        u, _, _ = self._sampled(torch.Size(sample_shape), pathwise=True)
        return u.reshape(*sample_shape, *self.batch_shape, u.shape[1])

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        leading = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        own = self.batch_shape.numel()
        if own != 1 and leading[len(leading) - len(self.batch_shape) :] != self.batch_shape:
            raise ShapeError(
                "The values do not fit the batch.", got=tuple(value.shape), expected=f"(*, {own}, entries)"
            )
        value = value.expand(*leading, value.shape[-1])
        parts = self._split(value.reshape(leading.numel(), value.shape[-1]))
        _, moments, _ = self._down(leading.numel(), lambda i, mean, std: parts[i])
        total = [
            Normal(*m, validate_args=False).log_prob(u).flatten(1).sum(1) for m, u in zip(moments, parts, strict=True)
        ]
        return torch.stack(total).sum(0).reshape(leading)

    @property
    def mean(self) -> Tensor:
        """Each group's mean given the means above it: a representative, not the mean of the joint distribution."""
        return self._on_means[0]

    @property
    def stddev(self) -> Tensor:
        """Each group's standard deviation given the means above it."""
        return self._on_means[1]

    @cached_property
    def _on_means(self) -> tuple[Tensor, Tensor]:
        u, moments, _ = self._down(self.batch_shape.numel(), lambda i, mean, std: mean)
        std = torch.cat([std.flatten(1) for _, std in moments], dim=1)
        return u.reshape(*self.batch_shape, u.shape[1]), std.reshape(*self.batch_shape, u.shape[1])

    def _sampled(self, sample_shape: torch.Size, pathwise: bool) -> tuple[Tensor, list[tuple[Tensor, Tensor]], Tensor]:
        n = sample_shape.numel() * self.batch_shape.numel()
        noise = self._split(torch.randn(n, self.event_shape[0], dtype=self._like.dtype, device=self._like.device))

        def chosen(i: int, mean: Tensor, std: Tensor) -> Tensor:
            u = mean + std * noise[i]
            return u if pathwise else u.detach()

        return self._down(n, chosen)

    def _down(self, n: int, chosen: Chosen) -> tuple[Tensor, list[tuple[Tensor, Tensor]], Tensor]:
        """One pass: the packed noise ``(n, total)``, each group's mean and deviation, and the state at the bottom."""
        decoder, repeats = self.source.decoder, n // max(1, self.batch_shape.numel())
        h, found = decoder.begin(self._like, n), []
        for i, (group, arm, e) in enumerate(zip(decoder.groups, self.source.arms, self.features, strict=True)):
            e = e if repeats == 1 else e.expand(repeats, *e.shape).flatten(0, 1)
            h, *own = recomputed(
                decoder.recompute, _one, group, arm, h, e, partial(self._corrected, i), partial(chosen, i)
            )
            found.append(tuple(own))
        u = torch.cat([each[0].flatten(1) for each in found], dim=1)
        return u, [(mean, std) for _, mean, std in found], h

    def _split(self, packed: Tensor) -> list[Tensor]:
        decoder = self.source.decoder
        parts = packed.split(decoder.sizes, dim=1)
        return [part.unflatten(1, group.size) for part, group in zip(parts, decoder.path, strict=True)]


def _one(
    group: Group,
    arm: Arm,
    h: Tensor,
    e: Tensor,
    corrected: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    chosen: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One group: the state below it, its noise, and the mean and deviation of its posterior."""
    mean, log_std, h = group.prior(h)
    location, std = corrected(*arm(h, e, mean, log_std))
    u = chosen(location, std)
    return group.absorb(h, mean + log_std.exp() * u), u, location, std

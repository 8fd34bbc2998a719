r"""Networks of top-down hierarchies: from an image up to features at several resolutions, and from latents down to it.

Convention: ``h`` is the state of the path down, ``(n, channels, rows, columns)``; a group's latent and noise are ``(n,
latent_channels, rows, columns)``, and the path takes the noise of all groups packed into ``(n, total)``, the top first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..runtime.modes import at_least_float32
from .limits import log_deviation, within
from .mlp import ACTIVATIONS
from .output import EndsInLayer

__all__ = [
    "BottomUp",
    "ConvolutionalGroup",
    "Group",
    "LadderDecoder",
    "PreactivationBlock",
    "coarser",
    "finer",
    "recomputed",
]

Grid = tuple[int, int]


class PreactivationBlock(nn.Module):
    r"""Two convolutions, each after a nonlinearity, :math:`W_2 \phi(W_1 \phi(x))`.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        hidden: Channels between the two convolutions.
        grid: Rows and columns; grids of fewer than three have kernels of one position, and four times as
            many channels between.
        activation: A name in :data:`~tightbound.networks.ACTIVATIONS`.
        scale: Factor on the initial weights of the last layer; at 0 the output starts at zero.

    Example:
        >>> PreactivationBlock(8, 4, 8, (7, 7), scale=0.0)(torch.ones(5, 8, 7, 7)).abs().max()
        tensor(0., grad_fn=<MaxBackward1>)
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: int, grid: Grid, activation: str = "silu", scale: float = 1.0
    ) -> None:
        super().__init__()
        phi, kernel, hidden = ACTIVATIONS[activation], *((3, hidden) if min(grid) > 2 else (1, 4 * hidden))
        self.layers = nn.Sequential(
            phi(),
            _started(nn.Conv2d(inputs, hidden, kernel, padding=kernel // 2)),
            phi(),
            _started(nn.Conv2d(hidden, outputs, kernel, padding=kernel // 2), scale),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def residual(blocks: Iterable[nn.Module], h: Tensor) -> Tensor:
    """A state after some blocks, each added to it."""
    for block in blocks:
        h = h + block(h)
    return h


def _blocks(number: int, channels: int, grid: Grid, activation: str, scale: float) -> nn.ModuleList:
    return nn.ModuleList(
        PreactivationBlock(channels, channels, channels, grid, activation, scale) for _ in range(number)
    )


def coarser(channels: int, fine: Grid, coarse: Grid) -> nn.Module:
    """From a grid to a coarser one: a convolution over the positions of each, or a mean where they do not divide.

    Args:
        channels: Channels of both.
        fine: Rows and columns.
        coarse: Rows and columns.

    Example:
        >>> coarser(8, (7, 7), (1, 1))(torch.zeros(5, 8, 7, 7)).shape
        torch.Size([5, 8, 1, 1])
    """
    ratio = _ratio(fine, coarse)
    return nn.AdaptiveAvgPool2d(coarse) if ratio is None else _started(nn.Conv2d(channels, channels, ratio, ratio))


def finer(channels: int, coarse: Grid, fine: Grid) -> nn.Module:
    """From a grid to a finer one: a transposed convolution to the positions of each, or the nearest.

    Args:
        channels: Channels of both.
        coarse: Rows and columns.
        fine: Rows and columns.

    Example:
        >>> finer(8, (4, 4), (7, 7))(torch.zeros(5, 8, 4, 4)).shape
        torch.Size([5, 8, 7, 7])
    """
    ratio = _ratio(fine, coarse)
    if ratio is None:
        return nn.Upsample(fine)
    layer = nn.ConvTranspose2d(channels, channels, ratio, stride=ratio)
    nn.init.normal_(layer.weight, std=channels**-0.5)  # each position has one input per channel
    return layer


def _ratio(fine: Grid, coarse: Grid) -> Grid | None:
    """Rows and columns of a coarse position in the fine grid, if they divide."""
    (rows, columns), (r, c) = fine, coarse
    return None if rows % r or columns % c else (rows // r, columns // c)


class Group(nn.Module):
    r"""Abstract: one group of latents of the path down, :math:`z_l = \mu_l(h) + \sigma_l(h) \, u_l`.

    Args:
        size: Shape of its latent, ``(latent_channels, rows, columns)``.
    """

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = tuple(size)

    def prior(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Mean and log standard deviation of :math:`p(z_l \mid z_{>l})`, and the state to which z is added."""
        raise NotImplementedError

    def absorb(self, h: Tensor, z: Tensor) -> Tensor:
        """The state after the latent."""
        raise NotImplementedError

    def forward(self, h: Tensor, u: Tensor) -> Tensor:
        """The state after a group whose noise is ``u``."""
        mean, log_std, h = self.prior(h)
        return self.absorb(h, mean + log_std.exp() * u)


class ConvolutionalGroup(Group):
    """A group on a grid, with residual blocks.

    References:
        Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images (Child, 2021).

    Args:
        channels: Of the state.
        latent_channels: Of the latent.
        grid: Rows and columns.
        above: The grid of the group above, if it is another: the state is then enlarged, and a learned map is added.
        blocks: Residual blocks after the latent.
        activation: A name in :data:`~tightbound.networks.ACTIVATIONS`.
        zero: Factor on the initial weights of the prior's last layer.
        scale: Factor on the initial weights of the last layers that add to the state.

    Example:
        >>> group = ConvolutionalGroup(8, 2, (7, 7), above=(1, 1))
        >>> group(torch.zeros(5, 8, 1, 1), torch.zeros(5, 2, 7, 7)).shape
        torch.Size([5, 8, 7, 7])
    """

    def __init__(
        self,
        channels: int,
        latent_channels: int,
        grid: Grid,
        *,
        above: Grid | None = None,
        blocks: int = 1,
        activation: str = "silu",
        zero: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__((latent_channels, *grid))
        self.begin = None if above is None else nn.Parameter(0.1 * torch.randn(channels, *grid))
        self.enlarge = nn.Identity() if above in (None, grid) else finer(channels, above, grid)
        self.moments = PreactivationBlock(channels, 2 * latent_channels, channels, grid, activation, zero)
        self.enter = _started(nn.Conv2d(latent_channels, channels, 1), scale)
        self.blocks = _blocks(blocks, channels, grid, activation, scale)

    def prior(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.begin is not None:
            h = self.enlarge(h) + self.begin
        mean, raw = within(at_least_float32(self.moments(h))).chunk(2, dim=1)
        return mean, log_deviation(raw), h

    def absorb(self, h: Tensor, z: Tensor) -> Tensor:
        return residual(self.blocks, h + self.enter(z))


class LadderDecoder(EndsInLayer):
    r"""The path down: from packed noise, group by group, to the parameters of an image.

    Args:
        groups: The groups, the top first.
        channels: Channels of the state.
        shape: Shape ``(channels, H, W)`` of one image; the last group's rows and columns divide H and W.
        parameters: Parameters for each entry of an image.
        activation: A name in :data:`~tightbound.networks.ACTIVATIONS`.
        recompute: Whether the backward pass recomputes the activations of a group, to save memory.

    Example:
        >>> groups = [ConvolutionalGroup(8, 2, grid, above=(1, 1)) for grid in ((1, 1), (7, 7))]
        >>> decoder = LadderDecoder(groups, 8, (1, 28, 28), parameters=1)
        >>> decoder(torch.zeros(5, 2 + 2 * 49)).shape
        torch.Size([5, 1, 28, 28])
    """

    def __init__(
        self,
        groups: Sequence[Group],
        channels: int,
        shape: Sequence[int],
        parameters: int,
        activation: str = "silu",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        phi, (rows, columns) = ACTIVATIONS[activation], groups[-1].size[1:]
        patch = shape[1] // rows, shape[2] // columns
        width = max(16, channels // max(patch))
        self.groups, self.channels, self.recompute = nn.ModuleList(groups), channels, recompute
        self.unpatch = nn.Sequential(phi(), _started(nn.Conv2d(channels, width * math.prod(patch), 1)))
        self.patch = patch
        self.last = nn.Sequential(phi(), nn.Conv2d(width, parameters * shape[0], 3, padding=1))

    @property
    def last_layer(self) -> nn.Module:
        return self.last[-1]

    @property
    def sizes(self) -> list[int]:
        """Size of each group's noise, the top first."""
        return [math.prod(group.size) for group in self.path]

    @property
    def layers(self) -> dict[str, int]:
        """Size of each group's noise by its name, from the data up: z1, z2, ..."""
        return {f"z{i}": size for i, size in enumerate(reversed(self.sizes), start=1)}

    @property
    def path(self) -> list[Group]:
        """The groups, the top first."""
        return cast(list[Group], list(self.groups))

    def begin(self, like: Tensor, n: int) -> Tensor:
        """The state above the top group: zeros, ``(n, channels, rows, columns)``."""
        return like.new_zeros(n, self.channels, *self.path[0].size[1:])

    def forward(self, u: Tensor) -> Tensor:
        h = self.begin(u, len(u))
        for group, own in zip(self.path, u.split(self.sizes, dim=1), strict=True):
            h = recomputed(self.recompute, group, h, own.unflatten(1, group.size))
        return self.output(h)

    def output(self, h: Tensor) -> Tensor:
        """Parameters ``(n, parameters * channels, H, W)`` from the state below the last group."""
        return self.last(_unpatched(self.unpatch(h), self.patch))


class BottomUp(nn.Module):
    """From an image up: features on each grid, the coarsest first.

    Args:
        shape: Shape ``(channels, H, W)`` of one image.
        channels: Channels of the features.
        grids: Rows and columns of each grid, the coarsest first; the last divides H and W.
        blocks: Residual blocks on each grid.
        activation: A name in :data:`~tightbound.networks.ACTIVATIONS`.
        scale: Factor on the initial weights of the blocks' last layers.

    Example:
        >>> [tuple(e.shape) for e in BottomUp((1, 28, 28), 8, [(1, 1), (7, 7)])(torch.zeros(5, 1, 28, 28))]
        [(5, 8, 1, 1), (5, 8, 7, 7)]
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: int,
        grids: Sequence[Grid],
        blocks: int = 2,
        activation: str = "silu",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        phi, (rows, columns) = ACTIVATIONS[activation], grids[-1]
        patch = shape[1] // rows, shape[2] // columns
        width = max(16, channels // max(patch))
        self.stem = nn.Sequential(
            _started(nn.Conv2d(shape[0], width, 3, padding=1)),
            phi(),
            _started(nn.Conv2d(width, channels, patch, stride=patch)),
        )
        steps = [coarser(channels, fine, coarse) for coarse, fine in pairwise(grids)]
        self.steps = nn.ModuleList([*steps, nn.Identity()])
        self.levels = nn.ModuleList(_blocks(blocks, channels, grid, activation, scale) for grid in grids)

    def forward(self, x: Tensor) -> list[Tensor]:
        h: Tensor = self.stem(2 * x - 1)
        found: list[Tensor] = []
        levels = cast(list[nn.ModuleList], list(self.levels))
        for step, blocks in zip(reversed(self.steps), reversed(levels), strict=True):
            h = residual(blocks, step(h))
            found.insert(0, h)
        return found


def recomputed(active: bool, function: Callable[..., Any], *inputs: Any) -> Any:
    """The function of the inputs, whose activations the backward pass recomputes if active."""
    if not active or not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def _started(layer: nn.Conv2d, scale: float = 1.0) -> nn.Conv2d:
    """The layer with weights that keep the size of a signal through a rectifier, times a scale, and no bias.

    References:
        Delving Deep into Rectifiers (He, Zhang, Ren and Sun, 2015).
    """
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    with torch.no_grad():
        layer.weight.mul_(scale)
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


def _unpatched(x: Tensor, patch: Grid) -> Tensor:
    """``(n, c * rows * columns, h, w)`` to ``(n, c, h * rows, w * columns)``."""
    n, inputs, h, w = x.shape
    rows, columns = patch
    c = inputs // (rows * columns)
    return x.reshape(n, c, rows, columns, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c, h * rows, w * columns)

r"""Discrete posteriors :math:`q(z \mid x, c)`: relaxed in training, exact in evaluation.

Convention: z has a one-hot vector for each position, event ``(positions, classes)``, or a bit, event ``(positions,)``.
The positions of a grid ``(n, channels, *grid)`` are in row-major order. The codes of z are int64, ``(*leading,
*grid)``: the index of the one, or the bit. Log-densities are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..conditions import Given
from ..distributions import Bits, CodePoint, Conditional, OneHot, RelaxedBernoulli, RelaxedCategorical
from ..distributions.one_hot import one_hot
from ..errors import ShapeError, UsageError
from ..networks import last_layer
from ..quantizers.quantized import require_codes
from ..runtime.parts import StartsFromData
from .base import CodePosterior

__all__ = ["BernoulliPosterior", "CategoricalPosterior", "RelaxedPosterior"]

AT_ONCE = 2**24
"""Logits held at once when they are initialised from data."""
VECTORS = 20_000
"""Total positions used to estimate the spread of the logits of a class."""


class RelaxedPosterior(Conditional, CodePosterior):
    """Abstract: a posterior with an exact distribution for evaluation and a relaxed one for training.

    Its latents are codes: ``grids`` holds the shape of their one grid, ``levels`` the number of codes.
    """

    temperature: Tensor

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        positions: int,
        classes: int,
        hard: bool,
        temperature: float,
        grid: Sequence[int] | None,
    ) -> None:
        grid = (positions,) if grid is None else tuple(grid)
        if not temperature > 0:
            raise UsageError("A temperature must be positive.", got=temperature, remedy="Start at 1 and anneal it.")
        if math.prod(grid) != positions:
            raise ShapeError("The grid must hold all positions.", got=grid, expected=f"{positions} of them")
        super().__init__(network, shape)
        self.positions, self.hard = positions, hard
        self.grids, self.levels = (grid,), (classes,)
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def features(self, inputs: Tensor, c: Given | None = None) -> Tensor:
        """The logits: ``(*leading, *event)``."""
        out = super().features(inputs, c)
        return self.logits(out, inputs.dim() - len(self.input_shape))

    def distribution(self, features: Tensor) -> Distribution:
        if self.at_mode:
            return self._point(features)
        return self._relaxed(features) if self.training else self._exact(features)

    def _point(self, logits: Tensor) -> CodePoint:
        q = self._exact(logits)
        nothing = logits.new_zeros(q.batch_shape)
        return CodePoint(q.mode, self.codes_of(q.mode), nothing, nothing)

    def relaxed(self, x: Tensor, c: Given | None = None) -> Distribution:
        """The relaxed distribution in any mode, for the relaxation gap."""
        return self._relaxed(self.features(x, c))

    @torch.no_grad()
    def codes(self, x: Tensor, c: Given | None = None) -> tuple[Tensor, ...]:
        """The most probable codes of examples, one int64 ``(*leading, *grid)``."""
        return self.codes_of(self._exact(self.features(x, c)).mode)

    def codes_of(self, z: Tensor) -> tuple[Tensor, ...]:
        """The codes of latents, one int64 ``(*leading, *grid)``; of relaxed ones, the most probable codes."""
        return (self._numbers(z).unflatten(-1, self.grids[0]),)

    def embed(self, codes: Sequence[Tensor]) -> Tensor:
        """The latents ``(*leading, *event)`` of codes ``(*leading, *grid)``.

        Raises:
            UsageError: If a code is out of range.
        """
        require_codes(codes[0], self.levels[0])
        return self._latent(codes[0].flatten(codes[0].dim() - len(self.grids[0])))

    def _numbers(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def _latent(self, numbers: Tensor) -> Tensor:
        raise NotImplementedError

    def logits(self, out: Tensor, leading: int) -> Tensor:
        """The logits in the event's shape, from the network's output with ``leading`` leading dimensions."""
        raise NotImplementedError

    def _relaxed(self, logits: Tensor) -> Distribution:
        raise NotImplementedError

    def _exact(self, logits: Tensor) -> Distribution:
        raise NotImplementedError


class CategoricalPosterior(RelaxedPosterior, StartsFromData):
    r"""Independent classes at several positions, :math:`q(z \mid x) = \prod_i \operatorname{Cat}(z_i; \eta_i(x))`.

    In training mode a :class:`~tightbound.distributions.relaxed.RelaxedCategorical` with gradients through its samples;
    in evaluation mode the exact :class:`~tightbound.distributions.one_hot.OneHot`, so that every reported bound uses
    hard samples. Training anneals the temperature in place: ``posterior.temperature.fill_(0.5)``. The latents are codes
    too: see :meth:`codes`, :meth:`embed`, :meth:`codes_of`, ``grids`` and ``levels``.

    References:
        Categorical Reparameterization with Gumbel-Softmax (Jang, Gu and Poole, 2017).
        Zero-Shot Text-to-Image Generation (Ramesh et al., 2021).

    Args:
        network: Encoder, maps ``(n, *shape)`` to ``(n, positions * classes)``, the classes of a position adjacent; to
            ``(n, positions, classes)``; or to ``(n, classes, height, width)`` with height * width positions.
        shape: Shape of one example.
        positions: Number of positions.
        classes: K.
        hard: Whether training samples are one-hot too (straight through).
        temperature: Initial temperature.
        grid: Shape of the grid of codes; None for a row.
        spread: Initial standard deviation of every class's logits, set by :meth:`initialise`; None to leave them.

    Raises:
        ShapeError: If the number of logits or the size of the grid does not match.
        UsageError: If the temperature is not positive.

    Example:
        >>> from tightbound.networks import MLP
        >>> posterior = CategoricalPosterior(MLP((1, 8, 8), 20 * 10), (1, 8, 8), positions=20, classes=10)
        >>> posterior(torch.zeros(5, 1, 8, 8)).rsample().shape
        torch.Size([5, 20, 10])
        >>> posterior.eval()(torch.zeros(5, 1, 8, 8)).sample().unique()
        tensor([0., 1.])
        >>> posterior.codes(torch.zeros(5, 1, 8, 8))[0].shape
        torch.Size([5, 20])
    """

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        positions: int,
        classes: int,
        hard: bool = False,
        temperature: float = 1.0,
        grid: Sequence[int] | None = None,
        spread: float | None = None,
    ) -> None:
        super().__init__(network, shape, positions, classes, hard, temperature, grid)
        self.classes, self.spread = classes, spread

    @property
    def examples_wanted(self) -> int:
        return max(32, min(2000, VECTORS // self.positions))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Initialises the logits of every class to mean 0 and equal deviation over examples and positions.

        At random initialisation a few classes are the most probable everywhere and hardly depend on x, so the decoder
        would learn to ignore z before the encoder is informative.

        Args:
            x: Training examples, ``(n, *shape)``; the encoder's last layer has K outputs.
        """
        layer = last_layer(self.network)
        if self.spread is None or layer is None or len(weight := layer.get_parameter("weight")) != self.classes:
            return
        n, sums = 0, torch.zeros(2, self.classes, dtype=torch.float64, device=x.device)
        for part in x.split(max(1, AT_ONCE // (self.positions * self.classes))):
            logits = self.features(part).flatten(0, -2).double()
            n, sums = n + len(logits), sums + torch.stack([logits.sum(0), logits.square().sum(0)])
        mean, square = (sums / n).to(weight.dtype)
        gain = self.spread / (square - mean.square()).clamp(min=1e-12).sqrt()
        weight.mul_(gain.view(-1, *[1] * (weight.dim() - 1)))
        bias = layer.get_parameter("bias")
        bias.copy_(gain * (bias - mean))

    def logits(self, out: Tensor, leading: int) -> Tensor:
        event, given = (self.positions, self.classes), tuple(out.shape[leading:])
        on_grid = len(given) > 2
        if given not in (event, (self.positions * self.classes,)) and not (
            on_grid and given[0] == self.classes and out[(0,) * leading].numel() == self.positions * self.classes
        ):
            raise _misfit(given, f"{event}, flat or not, or ({self.classes}, height, width)")
        if on_grid:
            out = out.flatten(leading + 1).mT
        return out.reshape(*out.shape[:leading], *event)

    def _relaxed(self, logits: Tensor) -> RelaxedCategorical:
        return RelaxedCategorical(logits, self.temperature.clone(), self.hard)  # annealing works in place

    def _exact(self, logits: Tensor) -> OneHot:
        return OneHot(logits)

    def _numbers(self, z: Tensor) -> Tensor:
        return z.argmax(-1)

    def _latent(self, numbers: Tensor) -> Tensor:
        return one_hot(numbers, self.temperature.expand(*numbers.shape, self.classes))


class BernoulliPosterior(RelaxedPosterior):
    r"""Independent bits, :math:`q(z \mid x) = \prod_i \operatorname{Bernoulli}(z_i; \sigma(\eta_i(x)))`.

    Relaxed in training mode and exact in evaluation mode, as :class:`CategoricalPosterior`.

    References:
        The Concrete Distribution: A Continuous Relaxation of Discrete Random Variables (Maddison, Mnih and Teh, 2017).

    Args:
        network: Encoder, maps ``(n, *shape)`` to ``(n, positions)``, or to as many logits in any shape, in row-major
            order.
        shape: Shape of one example.
        positions: Number of positions.
        hard: Whether training samples are 0 or 1 too (straight through).
        temperature: Initial temperature.
        grid: Shape of the grid of codes; None for a row.

    Raises:
        ShapeError: If the number of logits or the size of the grid does not match.
        UsageError: If the temperature is not positive.

    Example:
        >>> from tightbound.networks import MLP
        >>> posterior = BernoulliPosterior(MLP((1, 8, 8), 20), (1, 8, 8), positions=20)
        >>> posterior(torch.zeros(5, 1, 8, 8)).rsample().shape
        torch.Size([5, 20])
    """

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        positions: int,
        hard: bool = False,
        temperature: float = 1.0,
        grid: Sequence[int] | None = None,
    ) -> None:
        super().__init__(network, shape, positions, 2, hard, temperature, grid)

    def logits(self, out: Tensor, leading: int) -> Tensor:
        if out.shape[leading:].numel() != self.positions:
            raise _misfit(tuple(out.shape[leading:]), f"{self.positions} in any shape")
        return out.reshape(*out.shape[:leading], self.positions)

    def _relaxed(self, logits: Tensor) -> RelaxedBernoulli:
        return RelaxedBernoulli(logits, self.temperature.clone(), self.hard)

    def _exact(self, logits: Tensor) -> Bits:
        return Bits(logits)

    def _numbers(self, z: Tensor) -> Tensor:
        return (z > 0.5).long()

    def _latent(self, numbers: Tensor) -> Tensor:
        return numbers.to(self.temperature.dtype)


def _misfit(got: tuple[int, ...], expected: str) -> ShapeError:
    return ShapeError(
        "The encoder does not give the logits of the latent.",
        got=f"{got} for an example",
        expected=expected,
        remedy="Give the encoder that many outputs.",
    )

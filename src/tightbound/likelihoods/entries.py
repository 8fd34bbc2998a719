r"""Likelihoods of entries that are independent given z, with parameters from a decoder.

Convention: the decoder outputs ``parameters * D`` numbers for an example of D entries; log-densities are in nats and
summed over the entries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal
from torch.distributions import Laplace as LaplaceDistribution

from ..conditions import Given
from ..distributions import Bernoulli as BernoulliDistribution
from ..distributions import (
    BernoulliVector,
    CategoricalLevels,
    Conditional,
    DiscretizedLogistic,
    LogitLaplace,
    independent,
)
from ..errors import ShapeError, UsageError
from ..networks import last_layer
from ..options.data_spec import DataSpec
from ..runtime.parts import StartsFromData
from .base import Likelihood, Measure, density_of, mass_of

__all__ = [
    "Bernoulli",
    "Categorical",
    "DiscretizedLogisticLikelihood",
    "EntryLikelihood",
    "Gaussian",
    "Laplace",
    "LogitLaplaceLikelihood",
    "Scale",
]

Scale = Literal["fixed", "shared", "per-dimension", "network"]


class EntryLikelihood(Conditional, Likelihood, StartsFromData):
    """Abstract: a decoder, and the distribution family that its output parametrises.

    Args:
        network: Decoder, maps ``(n, *input_shape)`` to ``(n, parameters * D)`` in any shape.
        input_shape: Shape of one latent.
        shape: Shape of one example, D entries.
        parameters: Number of decoder outputs per entry.

    Raises:
        ShapeError: If the decoder has another number of outputs.
    """

    mean_in_one_pass = True
    start_share: ClassVar[float] = 1.0
    """Factor on the decoder's last weights where its bias starts from data."""

    def __init__(self, network: nn.Module, input_shape: Sequence[int], shape: Sequence[int], parameters: int) -> None:
        super().__init__(network, input_shape)
        self.shape, self.parameters_per_entry = tuple(shape), parameters

    def features(self, inputs: Tensor, c: Given | None = None) -> Tensor:
        out = super().features(inputs, c)
        return self._fitted(out, inputs.shape[: inputs.dim() - len(self.input_shape)])

    @property
    def decoder(self) -> nn.Module:
        return self.network

    def takes_output_of(self, network: nn.Module) -> bool:
        return self.network is network

    def given(self, output: Tensor) -> Distribution:
        return self.distribution(self._fitted(output, output.shape[: output.dim() - len(self.shape)]))

    def _fitted(self, out: Tensor, leading: Sequence[int]) -> Tensor:
        """The network's output with a dimension for the parameters of an entry."""
        parameters, entries = self.parameters_per_entry, math.prod(self.shape)
        if out.shape[len(leading) :].numel() != parameters * entries:
            raise ShapeError(
                "The decoder does not fit the data.",
                got=f"{out.shape[len(leading) :].numel()} numbers for an example",
                expected=f"{parameters} for each of its {entries} entries",
                remedy="Give the decoder that many outputs.",
            )
        return out.reshape(*leading, parameters, *self.shape)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Initialises the decoder's last bias from data, so that it need not be learned.

        Args:
            x: Some training examples, ``(n, *shape)``.
        """
        if (layer := last_layer(self.network)) is None:
            return
        bias = layer.get_parameter("bias")
        entries = len(bias) // self.parameters_per_entry  # entries of an example, or its channels
        rows = x.flatten(1) if entries == math.prod(self.shape) else x.flatten(2).movedim(1, 2).flatten(0, 1)
        start = self.start(rows)
        bias.view(-1, entries)[: len(start)] = start
        layer.get_parameter("weight").mul_(self.start_share)

    def start(self, rows: Tensor) -> Tensor:
        """Initial parameters: the best fit to rows of entries ``(n, entries)`` without a latent."""
        return rows.mean(0, keepdim=True)


class Bernoulli(EntryLikelihood):
    r"""Independent binary entries, :math:`\log p(x \mid z) = \sum_i x_i \log \pi_i(z) + (1 - x_i) \log(1 - \pi_i(z))`.

    Grey values in :math:`[0, 1]` are allowed, as in many published examples, but then the sum is a cross-entropy, not a
    likelihood of that data.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014).

    Args:
        network: Decoder to one logit per entry.
        input_shape: Shape of one latent.
        shape: Shape of one example.

    Example:
        >>> likelihood = Bernoulli(nn.Linear(2, 64), (2,), (1, 8, 8))
        >>> likelihood(torch.zeros(5, 2)).log_prob(torch.ones(5, 1, 8, 8)).shape
        torch.Size([5])
    """

    def __init__(self, network: nn.Module, input_shape: Sequence[int], shape: Sequence[int]) -> None:
        super().__init__(network, input_shape, shape, parameters=1)

    def distribution(self, features: Tensor) -> Distribution:
        logits = features.squeeze(-len(self.shape) - 1)
        return BernoulliVector(BernoulliDistribution(logits), len(self.shape), validate_args=False)

    def start(self, rows: Tensor) -> Tensor:
        return rows.mean(0, keepdim=True).clamp(1e-3, 1 - 1e-3).logit()

    def measure(self, data: DataSpec) -> Measure:
        if data.discrete and data.levels == 2:
            return Measure("mass", "probability of binary data")
        return Measure("none", "a Bernoulli cross-entropy on grey values is not a likelihood of that data")


class _Located(EntryLikelihood):
    """Abstract: a location per entry from the decoder and a scale that is fixed, learned, or the decoder's too."""

    width: ClassVar[float] = 1.0
    """Standard deviation of the distribution of scale 1."""

    def __init__(
        self, network: nn.Module, input_shape: Sequence[int], shape: Sequence[int], scale: Scale, initial: float
    ) -> None:
        if scale not in get_args(Scale):
            raise UsageError("Unknown scale.", got=scale, expected=f"one of: {', '.join(get_args(Scale))}")
        super().__init__(network, input_shape, shape, parameters=2 if scale == "network" else 1)
        self.scale = scale
        log_scale = torch.full(self.shape if scale == "per-dimension" else (), math.log(initial))
        if scale == "fixed":
            self.register_buffer("log_scale", log_scale)
        else:
            self.log_scale = nn.Parameter(log_scale)

    @property
    def sigma(self) -> tuple[str, Tensor]:
        return self.scale, self.width * self.log_scale.exp()

    def location_and_log_scale(self, features: Tensor) -> tuple[Tensor, Tensor]:
        location, *rest = features.unbind(-len(self.shape) - 1)
        return location, (self.log_scale + rest[0]).clamp(-12.0, 12.0) if rest else self.log_scale


class Gaussian(_Located):
    r"""Independent Gaussian entries, :math:`p(x \mid z) = \prod_i \mathcal{N}(x_i; \mu_i(z), \sigma_i^2)`.

    With the fixed variance :math:`\sigma^2 = \tfrac{1}{2}`, :math:`-\log p(x \mid z) = \lVert x - \mu(z) \rVert^2 +
    \tfrac{D}{2} \log \pi`: the summed squared error plus a constant.

    References:
        Simple and Effective VAE Training with Calibrated Decoders (Rybkin, Daniilidis and Levine, 2021).

    Args:
        network: Decoder to the mean (and, with ``scale="network"``, a log standard deviation) of each entry.
        input_shape: Shape of one latent.
        shape: Shape of one example.
        scale: ``"fixed"``; learned and ``"shared"`` by all entries; learned ``"per-dimension"``; or ``"network"``, for
            each entry and latent.
        variance: Fixed or initial :math:`\sigma^2`, in squared units of the data.

    Raises:
        UsageError: If the variance is not positive or the scale unknown.

    Example:
        >>> likelihood = Gaussian(nn.Linear(2, 64), (2,), (1, 8, 8), scale="shared")
        >>> likelihood(torch.zeros(3, 5, 2)).log_prob(torch.ones(5, 1, 8, 8)).shape
        torch.Size([3, 5])
    """

    def __init__(
        self,
        network: nn.Module,
        input_shape: Sequence[int],
        shape: Sequence[int],
        scale: Scale = "fixed",
        variance: float = 0.5,
    ) -> None:
        if not variance > 0:
            raise UsageError("The variance of a Gaussian must be positive.", got=variance, remedy="Try --variance 0.5.")
        super().__init__(network, input_shape, shape, scale, math.sqrt(variance))

    def distribution(self, features: Tensor) -> Distribution:
        mean, log_scale = self.location_and_log_scale(features)
        return independent(Normal(mean, log_scale.exp(), validate_args=False), len(self.shape))

    def nats_per_error(self, width: float) -> Tensor:
        return 1 / (2 * (width * self.log_scale.exp()).square())

    def measure(self, data: DataSpec) -> Measure:
        return density_of(data)


class Laplace(_Located):
    r"""Independent Laplace entries, :math:`p(x \mid z) = \prod_i \frac{1}{2 b} e^{-|x_i - \mu_i(z)| / b}`.

    With b fixed, :math:`-\log p(x \mid z)` is the summed absolute error over b, plus a constant; a learned b is the
    mean absolute error. The decoder's output is the median and the mean.

    References:
        Taming Transformers for High-Resolution Image Synthesis (Esser, Rombach and Ommer, 2021), for the L1 loss.

    Args:
        network: Decoder to the location of each entry.
        input_shape: Shape of one latent.
        shape: Shape of one example.
        scale: ``"fixed"``; learned and ``"shared"`` by all entries; learned ``"per-dimension"``; or ``"network"``.
        initial: Fixed or initial b, in units of the data.

    Example:
        >>> likelihood = Laplace(nn.Linear(2, 64), (2,), (1, 8, 8))
        >>> likelihood(torch.zeros(3, 5, 2)).log_prob(torch.ones(5, 1, 8, 8)).shape
        torch.Size([3, 5])
    """

    width = math.sqrt(2)

    def __init__(
        self,
        network: nn.Module,
        input_shape: Sequence[int],
        shape: Sequence[int],
        scale: Scale = "shared",
        initial: float = 0.1,
    ) -> None:
        super().__init__(network, input_shape, shape, scale, initial)

    def distribution(self, features: Tensor) -> Distribution:
        centre, log_scale = self.location_and_log_scale(features)
        return independent(LaplaceDistribution(centre, log_scale.exp(), validate_args=False), len(self.shape))

    def nats_per_error(self, width: float) -> Tensor:
        return 1 / (width * self.log_scale.exp())

    def measure(self, data: DataSpec) -> Measure:
        return density_of(data)


class DiscretizedLogisticLikelihood(_Located):
    r"""Independent discrete entries under a logistic density.

    Each is a :class:`~tightbound.distributions.DiscretizedLogistic`.

    References:
        Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016).

    Args:
        network: Decoder to the location (and, with ``scale="network"``, a log scale) of each entry.
        input_shape: Shape of one latent.
        shape: Shape of one example.
        levels: Number of levels.
        scale: As for :class:`Gaussian`.

    Example:
        >>> likelihood = DiscretizedLogisticLikelihood(nn.Linear(2, 64), (2,), (1, 8, 8), levels=17)
        >>> likelihood(torch.zeros(5, 2)).sample().shape
        torch.Size([5, 1, 8, 8])
    """

    width = math.pi / math.sqrt(3)

    def __init__(
        self,
        network: nn.Module,
        input_shape: Sequence[int],
        shape: Sequence[int],
        levels: int,
        scale: Scale = "per-dimension",
    ) -> None:
        super().__init__(network, input_shape, shape, scale, initial=0.1)
        self.levels = levels

    def distribution(self, features: Tensor) -> Distribution:
        mean, log_scale = self.location_and_log_scale(features)
        return independent(DiscretizedLogistic(mean, log_scale, self.levels), len(self.shape))

    def nats_per_error(self, width: float) -> Tensor:
        """Those of an absolute error far larger than the scale."""
        return 1 / (width * self.log_scale.exp())

    def measure(self, data: DataSpec) -> Measure:
        return mass_of(self.levels, data)


class Categorical(EntryLikelihood):
    r"""Independent categorical entries, with a logit for every level.

    .. math:: p(x_i = l \mid z) = \operatorname{softmax}(\eta_i(z))_l

    References:
        Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner and Kavukcuoglu, 2016).

    Args:
        network: Decoder to ``levels`` logits per entry.
        input_shape: Shape of one latent.
        shape: Shape of one example.
        levels: Number of levels.

    Example:
        >>> likelihood = Categorical(nn.Linear(2, 17 * 64), (2,), (1, 8, 8), levels=17)
        >>> likelihood(torch.zeros(5, 2)).mean.shape
        torch.Size([5, 1, 8, 8])
    """

    def __init__(self, network: nn.Module, input_shape: Sequence[int], shape: Sequence[int], levels: int) -> None:
        super().__init__(network, input_shape, shape, parameters=levels)
        self.levels = levels

    def distribution(self, features: Tensor) -> Distribution:
        return independent(CategoricalLevels(features.movedim(-len(self.shape) - 1, -1)), len(self.shape))

    def start(self, rows: Tensor) -> Tensor:
        level = (rows * (self.levels - 1)).round()
        counts = torch.stack([(level == l).sum(0) for l in range(self.levels)])
        return ((counts + 1) / (len(rows) + self.levels)).log().to(rows.dtype)

    def measure(self, data: DataSpec) -> Measure:
        return mass_of(self.levels, data)


class LogitLaplaceLikelihood(EntryLikelihood):
    r"""Independent entries whose logit is Laplace, with centre and log scale of each from the decoder.

    Each is a :class:`~tightbound.distributions.LogitLaplace`: a density on the unit interval.

    References:
        Zero-Shot Text-to-Image Generation (Ramesh et al., 2021).

    Args:
        network: Decoder to a centre and a log scale of each entry.
        input_shape: Shape of one latent.
        shape: Shape of one example.
        eps: Margin that keeps the data away from the ends of the interval.

    Raises:
        UsageError: If ``eps`` is not between 0 and one half, at the first call.

    Example:
        >>> likelihood = LogitLaplaceLikelihood(nn.Linear(2, 2 * 64), (2,), (1, 8, 8))
        >>> likelihood(torch.zeros(3, 5, 2)).log_prob(torch.rand(5, 1, 8, 8)).shape
        torch.Size([3, 5])
    """

    def __init__(self, network: nn.Module, input_shape: Sequence[int], shape: Sequence[int], eps: float = 0.1) -> None:
        super().__init__(network, input_shape, shape, parameters=2)
        self.eps = eps

    def distribution(self, features: Tensor) -> Distribution:
        centre, log_scale = features.unbind(-len(self.shape) - 1)
        return independent(LogitLaplace(centre, log_scale.clamp(-12.0, 12.0), self.eps), len(self.shape))

    def start(self, rows: Tensor) -> Tensor:
        logits = torch.logit((1 - 2 * self.eps) * rows + self.eps)
        centre = logits.median(0).values
        return torch.stack([centre, (logits - centre).abs().mean(0).clamp(min=1e-3).log()])

    def measure(self, data: DataSpec) -> Measure:
        return density_of(data)

r"""Distributions transformed by an invertible map built by zuko.

Convention: :math:`z = f(\epsilon)` with :math:`\epsilon \sim \mathcal{N}(0, I)`, and
:math:`\log p(z) = \log \mathcal{N}(\epsilon) - \log \lvert \det \partial f / \partial \epsilon \rvert`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Normal, constraints
from torch.types import _size

from ..runtime.randomness import fixed_noise
from .conditional import independent
from .contract import Value
from .zuko_guard import load_zuko

__all__ = ["FlowKind", "FlowLayers", "InvertibleMap", "Pushed"]

FlowKind = Literal["iaf", "coupling", "spline"]

BINS = 8
"""Bins of each spline, over -5 to 5."""
DRAWS = 64
"""Samples for a mean or a variance, which have no closed form."""


class InvertibleMap(Protocol):
    """What zuko's transforms offer, torch's with one method more."""

    @property
    def inv(self) -> InvertibleMap:
        """The way back."""
        ...

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Where x goes, and the logarithm of the absolute determinant of the Jacobian there."""
        ...


class FlowLayers(nn.Module):
    r"""Invertible layers :math:`f`, optionally conditioned on a context, initialised near the identity.

    ``"iaf"``: each entry is scaled and shifted by a function of those before it: one pass from noise to z, d passes
    back. ``"coupling"``: half of the entries by a function of the other half; ``"spline"``: likewise through monotonic
    splines; both are fast in both directions. Layers see the entries in alternating order.

    References:
        Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016).
        Density Estimation using Real NVP (Dinh, Sohl-Dickstein and Bengio, 2017).
        Neural Spline Flows (Durkan, Bekasov, Murray and Papamakarios, 2019).

    Args:
        latent_dim: Size d of one vector.
        kind: Kind of layer.
        transforms: Number of layers.
        hidden: Hidden sizes of each layer's network.
        context: Size of the context; 0 for none.

    Example:
        >>> f = FlowLayers(3, "iaf", 2, (8,))(None)
        >>> f.inv(f(torch.zeros(5, 3))).abs().max() < 1e-5
        tensor(True)
    """

    def __init__(
        self, latent_dim: int, kind: FlowKind, transforms: int, hidden: Sequence[int], context: int = 0
    ) -> None:
        super().__init__()
        zuko = load_zuko()
        order = torch.arange(latent_dim)
        options: dict[str, Any] = {"hidden_features": tuple(hidden)}
        if kind != "iaf":
            options["passes"] = 2
        if kind == "spline":
            options["univariate"] = zuko.transforms.MonotonicRQSTransform
            options["shapes"] = [(BINS,), (BINS,), (BINS - 1,)]
        make = zuko.flows.MaskedAutoregressiveTransform
        self.layers = nn.ModuleList(
            make(latent_dim, context, order=order if i % 2 == 0 else order.flip(0), **options)
            for i in range(transforms)
        )
        with torch.no_grad():
            for layer in self.layers:
                for parameter in _last_parameters(layer):
                    parameter.mul_(0.1)

    def forward(self, context: Tensor | None) -> InvertibleMap:
        return load_zuko().transforms.ComposedTransform(*(layer(context) for layer in self.layers))


def _last_parameters(layer: nn.Module) -> list[nn.Parameter]:
    """Parameters of the last linear layer, or the constants used instead."""
    linear = [m for m in layer.modules() if isinstance(m, nn.Linear)]
    return list(linear[-1].parameters()) if linear else list(layer.parameters())


class Pushed(Value):
    r"""Standard normal noise transformed by an invertible map, then scaled and shifted.

    The density of its last sample is cached from sampling; any other value needs the inverse. Mean and variance have no
    closed form: they are estimated from 64 samples with fixed noise.

    Args:
        transform: :math:`f`, from noise ``(*, d)`` to ``(*, d)``.
        mean: Shift after the map, ``(*batch, d)``.
        log_std: Log of the scale after the map, ``(*batch, d)``.

    Example:
        >>> f = FlowLayers(3, "coupling", 2, (8,))(None)
        >>> p = Pushed(f, torch.zeros(5, 3), torch.zeros(5, 3))
        >>> z = p.rsample((2,))
        >>> torch.allclose(p.log_prob(z), p.log_prob(z.clone()), atol=1e-4)
        True
    """

    domain = constraints.real_vector
    has_rsample = True

    def __init__(self, transform: InvertibleMap, mean: Tensor, log_std: Tensor) -> None:
        self.transform, self.shift, self.log_scale = transform, mean, log_std
        zero = torch.zeros_like(mean)
        self.noise = independent(Normal(zero, torch.ones_like(zero), validate_args=False), 1)
        self._drawn: tuple[Tensor, Tensor] | None = None
        super().__init__(mean.shape[:-1], mean.shape[-1:], validate_args=False)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        noise = self.noise.rsample(torch.Size(sample_shape))
        z, log_det = self._push(noise)
        self._drawn = z, self.noise.log_prob(noise) - log_det
        return z

    def sample(self, sample_shape: _size = ()) -> Tensor:
        z = super().sample(sample_shape)
        if torch.is_grad_enabled():  # the cached density has no gradient, which the caller may need
            self._drawn = None
        return z

    def _push(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.transform.call_and_ladj(noise)
        return self.shift + self.log_scale.exp() * y, log_det + self.log_scale.sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._drawn is not None and value is self._drawn[0]:
            return self._drawn[1]
        noise, log_det = self.transform.inv.call_and_ladj((value - self.shift) * torch.exp(-self.log_scale))
        return self.noise.log_prob(noise) + log_det - self.log_scale.sum(-1)

    @property
    def mean(self) -> Tensor:
        return self._draws().mean(0)

    @property
    def variance(self) -> Tensor:
        return self._draws().var(0)

    def _draws(self) -> Tensor:
        """The same noise for every example, so that the mean of one does not depend on its batch."""
        with fixed_noise():
            noise = torch.randn(DRAWS, *[1] * len(self.batch_shape), *self.event_shape).to(self.shift)
        return self._push(noise.expand(DRAWS, *self.shift.shape))[0]

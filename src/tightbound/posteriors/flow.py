r"""Posteriors that are flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.distributions import Distribution

from ..distributions import Conditional, FlowLayers, Pushed
from .base import Posterior

__all__ = ["FlowPosterior"]


class FlowPosterior(Conditional, Posterior):
    r"""A flow conditioned on the encoder's context, then scaled and shifted by the encoder.

    .. math:: z = \mu(x) + \sigma(x) f(\epsilon; h(x)), \qquad \epsilon \sim \mathcal{N}(0, I)

    ``"iaf"`` layers are autoregressive: samples and their own densities take one pass, the density of any other value
    ``latent_dim`` passes. ``"spline"`` layers are couplings of monotonic splines, fast in both directions. They start
    near the identity, so training starts like that of a diagonal Gaussian.

    References:
        Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016).
        Neural Spline Flows (Durkan, Bekasov, Murray and Papamakarios, 2019).

    Args:
        network: Encoder, maps ``(n, *shape)`` to ``(n, 2 * latent_dim + context)``: means, log standard deviations
            and the context h.
        shape: Shape of one example.
        latent_dim: Size of z.
        context: Size of h.
        kind: Kind of layer.
        transforms: Number of layers.
        hidden: Hidden sizes of each layer's network.

    Example:
        >>> import torch
        >>> from tightbound.networks import MLP
        >>> posterior = FlowPosterior(MLP((1, 8, 8), 2 * 3 + 4), (1, 8, 8), 3, context=4)
        >>> posterior(torch.zeros(5, 1, 8, 8)).rsample().shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        latent_dim: int,
        context: int,
        kind: Literal["iaf", "spline"] = "iaf",
        transforms: int = 2,
        hidden: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__(network, shape)
        self.sizes = [latent_dim, latent_dim, context]
        self.flow = FlowLayers(latent_dim, kind, transforms, hidden, context)

    def distribution(self, features: Tensor) -> Distribution:
        mean, log_std, context = features.split(self.sizes, dim=-1)
        return Pushed(self.flow(context), mean, log_std)

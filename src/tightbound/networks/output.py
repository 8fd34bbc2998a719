"""Networks with a last layer that may be initialised from data."""

from __future__ import annotations

from torch import nn

__all__ = ["EndsInConvolution", "EndsInLayer", "closing_layer", "last_layer"]


class EndsInLayer(nn.Module):
    """Abstract: a network whose last layer, with ``weight`` and ``bias``, may start from data.

    Any other module can be used instead; its last layer is then not initialised from data.
    """

    @property
    def last_layer(self) -> nn.Module:
        """The layer that gives its output."""
        raise NotImplementedError


def last_layer(network: nn.Module) -> nn.Module | None:
    """The last layer of a network that declares it; None of any other.

    Example:
        >>> from tightbound.networks import MLP
        >>> last_layer(MLP(3, 2)), last_layer(nn.Identity())
        (Linear(in_features=512, out_features=2, bias=True), None)
    """
    return network.last_layer if isinstance(network, EndsInLayer) else None


class EndsInConvolution(nn.Module):
    """Abstract: a network whose output is a fixed map of that of its last convolution."""

    @property
    def conv_out(self) -> nn.Module:
        """The last convolution, with a ``weight``."""
        raise NotImplementedError


def closing_layer(network: nn.Module | None) -> nn.Module | None:
    """The last layer of a network with weights, where the gradients of two losses are compared; None if not declared.

    Example:
        >>> from tightbound.networks import KLDecoder, Architecture
        >>> closing_layer(KLDecoder(4, 3, (8, 8), Architecture((8, 16), 1, 4))).weight.shape
        torch.Size([3, 8, 3, 3])
    """
    return network.conv_out if isinstance(network, EndsInConvolution) else last_layer(network or nn.Identity())

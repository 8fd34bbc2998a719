"""Networks with a last layer that may be initialised from data."""

from __future__ import annotations

from torch import nn

__all__ = ["EndsInLayer", "last_layer"]


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

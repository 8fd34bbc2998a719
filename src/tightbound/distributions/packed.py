r"""Several layers of latents in one vector, each given those above it.

Convention: a packed latent is ``(*leading, total)``, with the top layer first; layers are named from the data up, z1,
z2, ..., and each is flat, ``(*leading, size)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.types import _size

from .contract import Value

__all__ = ["Packed", "Visit", "layer_slices"]


@dataclass(frozen=True)
class Visit:
    r"""One pass from the top layer to the data.

    Args:
        z: The packed sample, ``(*leading, total)``.
        posteriors: For each layer, from the data up, :math:`q(u_l \mid u_{>l}, x)` given the sample above it, with
            batch shape ``leading``.
        output: What the decoder outputs at z, ``(*leading, ...)``.
        decoder: The decoder.
    """

    z: Tensor
    posteriors: Mapping[str, Distribution]
    output: Tensor
    decoder: nn.Module


class Packed(Value):
    r"""Abstract: a distribution of all layers in one vector, :math:`q(u) = \prod_l q(u_l \mid u_{>l})`.

    A pass that samples it also computes what the decoder outputs there.
    """

    domain = constraints.real_vector

    def visit(self, sample_shape: _size = (), *, pathwise: bool = True) -> Visit:
        """Samples and everything computed on the way, in one pass.

        Args:
            sample_shape: Number of samples.
            pathwise: Whether gradients reach the distribution through its samples.
        """
        raise NotImplementedError

    def corrected(self, shift: Tensor, log_scale: Tensor) -> Packed:
        r"""The same with other noise in every dimension, :math:`\epsilon \mapsto s + e^r \epsilon`; x is held fixed.

        Args:
            shift: s, ``(*batch, total)``.
            log_scale: r, likewise.
        """
        raise NotImplementedError

    def pairs(self) -> dict[str, tuple[Tensor, Tensor]]:
        r"""A sample of each of n posteriors, and its log-density under all of them, with one path down for each sample.

        Returns:
            For each layer, the top first: :math:`u_l^i`, ``(n, size)``, and :math:`\log q(u_l^i \mid u_{>l}^i, x_j)`,
            ``(n, n)``, float64.
        """
        raise NotImplementedError


def layer_slices(sizes: Mapping[str, int]) -> dict[str, slice]:
    """Where each layer lies in the packed vector, which has the top first; listed from the data up.

    Args:
        sizes: Of each layer, from the data up.

    Example:
        >>> layer_slices({"z1": 3, "z2": 2})
        {'z1': slice(2, 5, None), 'z2': slice(0, 2, None)}
    """
    found: dict[str, slice] = {}
    begin = 0
    for name, size in reversed(list(sizes.items())):
        found[name] = slice(begin, begin + size)
        begin += size
    return {name: found[name] for name in sizes}

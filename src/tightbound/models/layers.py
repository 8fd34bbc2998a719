"""What the layers of a packed latent share, and what can be asked of single ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.distributions import Distribution, Normal

from ..distributions import Sampling, independent
from ..errors import UnknownName, UsageError

__all__ = ["common", "part", "require_from_the_top"]


def part(factors: Normal, at: slice) -> Distribution:
    """Some dimensions of a product of Gaussians."""
    return independent(Normal(factors.loc[..., at], factors.scale[..., at], validate_args=False), 1)


def common(hows: Sequence[Sampling], above: Mapping[str, Tensor]) -> Sampling:
    """How all layers are drawn together, from a prior under which they depend on each other.

    Raises:
        UsageError: If some are given, or have a temperature of their own.
    """
    if above or any(how != hows[0] for how in hows):
        raise UsageError(
            "Under this prior the layers depend on each other, so they are drawn together.",
            got="layers that are given" if above else "a temperature for each layer",
            expected="one temperature for all layers, and none given",
            remedy="Use the run that the prior was fitted to.",
        )
    return hows[0]


def require_from_the_top(given: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """Refuses given layers that are unknown, or lie below one that is not given.

    Args:
        given: Layers by name.
        names: Of all layers, from the data up.

    Raises:
        UsageError: If there is one.
    """
    if unknown := [name for name in given if name not in names]:
        raise UnknownName("layer", unknown[0], names)
    if given and set(given) != set(names[-len(given) :]):
        raise UsageError(
            "Layers can be given only together with all above them.",
            got=", ".join(given),
            expected=f"the last ones of: {', '.join(names)}",
        )

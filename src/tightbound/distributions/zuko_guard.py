"""The flow library, imported without its side effect."""

from __future__ import annotations

from types import ModuleType

from torch.distributions import Distribution

__all__ = ["load_zuko"]


def load_zuko() -> ModuleType:
    """Imports zuko, and restores torch's global validation default, which that import switches off.

    Example:
        >>> load_zuko().__name__
        'zuko'
    """
    default = Distribution._validate_args
    try:
        import zuko
    finally:
        Distribution.set_default_validate_args(default)
    return zuko

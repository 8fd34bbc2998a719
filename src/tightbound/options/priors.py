"""What a second stage puts in the prior's place, as values: each has the options that mean something for it, no others.

They are data; the modules that they name are made in :mod:`tightbound.assembly.second_stage`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..errors import UsageError
from ..spec import check_choices, register
from .parts import ConditionOptions, TextPositions, check_sizes

__all__ = [
    "AutoregressivePrior",
    "FlowPrior",
    "LatentSpace",
    "MixturePrior",
    "PixelCNNPrior",
    "SecondPrior",
    "TransformerPrior",
]

LatentSpace = Literal["none", "codes", "vector"]
"""What the latents of a model are."""


@dataclass(frozen=True)
class SecondPrior:
    """Abstract: a prior that is fitted to the latents of a trained model.

    Raises:
        UsageError: If an option is out of range.
    """

    latent_space: ClassVar[LatentSpace]
    """What it is a distribution of."""
    sizes: ClassVar[tuple[str, ...]] = ()
    """Those of its options that are at least one."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_sizes(**{name: getattr(self, name) for name in self.sizes})


@dataclass(frozen=True)
class AutoregressivePrior(ConditionOptions, SecondPrior):
    """Abstract: codes one after the other, each given those before it and, where there is one, a condition."""

    latent_space: ClassVar[LatentSpace] = "codes"

    layers: int = 8
    """Layers of the network."""
    dropout: float = 0.1
    """Share of its activations that training leaves out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("dropout", "drop_condition"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} is a probability.", got=getattr(self, name), expected=f"0 <= {name} < 1")


@register("pixelcnn-prior")
@dataclass(frozen=True)
class PixelCNNPrior(AutoregressivePrior):
    """Codes of a grid from top to bottom, by masked convolutions.

    References:
        Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner and Kavukcuoglu, 2016).

    Example:
        >>> PixelCNNPrior(channels=32).layers
        8
    """

    sizes: ClassVar[tuple[str, ...]] = ("layers", "channels", "kernel", "heads")

    channels: int = 64
    """Channels of its layers."""
    kernel: int = 5
    """Odd side of its kernels."""
    attention_every: int = 0
    """Attention behind every so many layers, at the top level of the codes (0: none)."""
    heads: int = 8
    """Attention heads."""


@register("transformer-prior")
@dataclass(frozen=True)
class TransformerPrior(AutoregressivePrior):
    """Codes in a row, by masked attention to those before.

    References:
        Zero-Shot Text-to-Image Generation (Ramesh et al., 2021).

    Example:
        >>> TransformerPrior(width=64, layers=2).width
        64
    """

    sizes: ClassVar[tuple[str, ...]] = ("layers", "width", "heads")

    text_positions: TextPositions = "learned"
    """Places of a text in front of the codes: a learned vector for each, or queries and keys turned by them."""
    width: int = 256
    """Width of its layers."""
    heads: int = 8
    """Attention heads."""


@register("mixture-prior")
@dataclass(frozen=True)
class MixturePrior(SecondPrior):
    """A mixture of Gaussians over vectors.

    Example:
        >>> MixturePrior(components=5).components
        5
    """

    latent_space: ClassVar[LatentSpace] = "vector"
    sizes: ClassVar[tuple[str, ...]] = ("components",)

    components: int = 100
    """Components of the mixture."""


@register("flow-prior")
@dataclass(frozen=True)
class FlowPrior(SecondPrior):
    """A flow over vectors, of affine coupling transformations.

    References:
        Density Estimation using Real NVP (Dinh, Sohl-Dickstein and Bengio, 2017).

    Example:
        >>> FlowPrior(transforms=2).latent_space
        'vector'
    """

    latent_space: ClassVar[LatentSpace] = "vector"
    sizes: ClassVar[tuple[str, ...]] = ("transforms",)

    transforms: int = 4
    """Transformations of the flow."""

"""Priors of a second stage as values: each class has only the options that apply to it.

They are data; their modules are built in :mod:`tightbound.assembly.second_stage`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..errors import UsageError
from ..spec import register, require_choices
from .parts import ConditionOptions, TextPositions, require_sizes

__all__ = [
    "CodePrior",
    "DiffusionPrior",
    "FlowPrior",
    "LatentSpace",
    "MaskedPrior",
    "MixturePrior",
    "PixelCNNPrior",
    "SecondPrior",
    "TransformerPrior",
]

LatentSpace = Literal["none", "codes", "vector"]
"""The kind of a model's latents."""


@dataclass(frozen=True)
class SecondPrior:
    """Abstract: a prior that is fitted to the latents of a trained model.

    Raises:
        UsageError: If an option is out of range.
    """

    latent_space: ClassVar[LatentSpace]
    """The kind of latents it models."""
    exact: ClassVar[bool] = True
    """Whether its log-probability is exact, not a lower bound."""
    ema: ClassVar[float] = 0.0
    """Decay of the moving average of its weights by default; 0 for none."""
    sizes: ClassVar[tuple[str, ...]] = ()
    """Options that must be at least 1."""

    def __post_init__(self) -> None:
        require_choices(self)
        require_sizes(**{name: getattr(self, name) for name in self.sizes})


@dataclass(frozen=True)
class CodePrior(ConditionOptions, SecondPrior):
    """Abstract: over codes, with an optional condition."""

    latent_space: ClassVar[LatentSpace] = "codes"

    layers: int = 8
    """Layers of the network."""
    dropout: float = 0.1
    """Dropout probability in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("dropout", "drop_condition"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} must be a probability.", got=getattr(self, name), expected=f"0 <= {name} < 1")


@register("pixelcnn-prior")
@dataclass(frozen=True)
class PixelCNNPrior(CodePrior):
    """Codes of a grid in reading order, by masked convolutions.

    References:
        Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner and Kavukcuoglu, 2016).

    Example:
        >>> PixelCNNPrior(channels=32).layers
        8
    """

    sizes: ClassVar[tuple[str, ...]] = ("layers", "channels", "kernel", "heads")

    channels: int = 64
    """Channels of each layer."""
    kernel: int = 5
    """Odd side of the kernels."""
    attention_every: int = 0
    """Attention after every N layers, at the top level of the codes (0: none)."""
    heads: int = 8
    """Number of attention heads."""


@register("transformer-prior")
@dataclass(frozen=True)
class TransformerPrior(CodePrior):
    """Codes in sequence, by masked attention.

    References:
        Zero-Shot Text-to-Image Generation (Ramesh et al., 2021).

    Example:
        >>> TransformerPrior(width=64, layers=2).width
        64
    """

    sizes: ClassVar[tuple[str, ...]] = ("layers", "width", "heads")

    text_positions: TextPositions = "learned"
    """Positions in a text prefix: learned embeddings, or rotary (rotated queries and keys)."""
    width: int = 256
    """Width of the layers."""
    heads: int = 8
    """Number of attention heads."""


@register("masked-prior")
@dataclass(frozen=True)
class MaskedPrior(CodePrior):
    """Codes that are hidden one by one in random order, and revealed many at a time, by attention to all that are
    visible.

    Its log-probability is a lower bound.

    References:
        Structured Denoising Diffusion Models in Discrete State-Spaces (Austin et al., 2021).
        MaskGIT: Masked Generative Image Transformer (Chang et al., 2022).
        Simple and Effective Masked Diffusion Language Models (Sahoo et al., 2024).
        Simplified and Generalized Masked Diffusion for Discrete Data (Shi et al., 2024).

    Example:
        >>> MaskedPrior(width=64, layers=2).exact
        False
    """

    exact: ClassVar[bool] = False
    sizes: ClassVar[tuple[str, ...]] = ("layers", "width", "heads")

    layers: int = 6
    """Layers of the network."""
    width: int = 128
    """Width of the layers."""
    heads: int = 4
    """Number of attention heads."""
    timesteps: int | None = None
    """Steps of the chain whose bound is trained and reported; default: continuous time, which is the tightest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timesteps is not None and self.timesteps < 1:
            raise UsageError(
                "A chain needs at least one step.",
                got=f"timesteps {self.timesteps}",
                expected="1 or more",
                remedy="Leave --timesteps out: continuous time.",
            )


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
    """Number of components of the mixture."""


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
    """Number of transformations of the flow."""


@register("diffusion-prior")
@dataclass(frozen=True)
class DiffusionPrior(ConditionOptions, SecondPrior):
    """Vectors from noise, by diffusion; their log-density is a lower bound.

    References:
        Variational Diffusion Models (Kingma, Salimans, Poole and Ho, 2021).
        Score-based Generative Modeling in Latent Space (Vahdat, Kreis and Kautz, 2021).

    Example:
        >>> DiffusionPrior(width=64).exact
        False
    """

    latent_space: ClassVar[LatentSpace] = "vector"
    exact: ClassVar[bool] = False
    ema: ClassVar[float] = 0.999
    sizes: ClassVar[tuple[str, ...]] = ("width", "layers")

    width: int = 256
    """Width of the network."""
    layers: int = 4
    """Residual layers of the network."""
    first_gamma: float | Literal["auto"] = "auto"
    """Gamma (minus the log signal-to-noise ratio) of the least noise, in units of the latents' deviation; auto: a
    seventh of the least deviation of the posterior, set before training."""
    last_gamma: float = 10.0
    """Gamma of the most noise."""

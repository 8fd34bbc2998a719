"""Groups of options shared by several recipes: abstract dataclasses from which recipes inherit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError
from ..spec import flag

__all__ = [
    "Activation",
    "ConditionName",
    "ConditionOptions",
    "DecoderName",
    "EntryLikelihood",
    "GridNetworks",
    "LikelihoodName",
    "NetworkName",
    "Networks",
    "Scale",
    "ScaleName",
    "TextPositions",
    "UpsamplingName",
    "require_sizes",
]

NetworkName = Literal["mlp", "convolutional"]
UpsamplingName = Literal["resize", "transposed"]
Activation = Literal["relu", "tanh", "silu", "gelu", "softplus"]
LikelihoodName = Literal[
    "auto",
    "bernoulli",
    "gaussian",
    "full-gaussian",
    "discretized-logistic",
    "discretized-logistic-mixture",
    "categorical",
    "logit-laplace",
]
DecoderName = Literal[LikelihoodName, "autoregressive"]
ScaleName = Literal["auto", "fixed", "shared", "per-dimension", "network"]
ConditionName = Literal["none", "auto", "class", "vector", "image", "text"]
NamedConditions = tuple[Literal["class", "vector", "image", "text"], ...]
"""Several conditions at once."""
TextPositions = Literal["learned", "rotary"]


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Abstract: an encoder from an example to one vector, and the decoder that mirrors it."""

    network: NetworkName = "mlp"
    """Kind of encoder and decoder."""
    hidden: tuple[int, ...] = (256, 256)
    """Sizes of the hidden layers of an mlp, from the data to the latent; the decoder mirrors them."""
    channels: tuple[int, ...] = (32, 64, 128)
    """Channels of each level of a convolutional network, finest first."""
    upsampling: UpsamplingName = "resize"
    """How a convolutional decoder doubles a grid: resize (nearest neighbour, then a convolution) or transposed (a
    transposed convolution, which causes checkerboard artefacts)."""
    activation: Activation = "relu"
    """Nonlinearity between layers."""


@dataclass(frozen=True, kw_only=True)
class GridNetworks:
    """Abstract: an encoder from an image to a coarser grid of vectors, and the decoder back."""

    channels: tuple[int, ...] = (32, 64)
    """Channels of each level, finest first; each level halves the sides, so two levels turn 28 x 28 into 7 x 7."""
    upsampling: UpsamplingName = "resize"
    """How a decoder doubles a grid: resize (nearest neighbour, then a convolution) or transposed (a transposed
    convolution, which causes checkerboard artefacts)."""
    blocks: int = 2
    """Residual blocks of encoder and decoder, on the coarsest grid."""
    activation: Activation = "relu"
    """Nonlinearity between layers."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Abstract: the scale of a likelihood."""

    scale: ScaleName = "auto"
    """Scale of gaussian and discretized-logistic: fixed; learned, shared or per-dimension; or output by the network;
    auto: fixed for gaussian, per-dimension for discretized-logistic. For full-gaussian: one learned covariance (auto),
    or output by the network."""
    variance: float = 0.5
    """Fixed or initial variance of gaussian, initial variance of full-gaussian; 0.5 makes the loss the summed squared
    error."""


@dataclass(frozen=True, kw_only=True)
class EntryLikelihood(Scale):
    """Abstract: a likelihood of entries that are independent given the latent."""

    likelihood: LikelihoodName = "auto"
    """p(x given z); auto: bernoulli for binary data, discretized-logistic for levels, else gaussian (scale shared);
    full-gaussian: small vectors with entries correlated given z; discretized-logistic-mixture: images whose channels
    depend on each other given z."""
    likelihood_components: int = 5
    """Components of each pixel, for discretized-logistic-mixture."""


@dataclass(frozen=True, kw_only=True)
class ConditionOptions:
    """Abstract: the condition of a model."""

    condition: ConditionName | NamedConditions = "none"
    """Condition of the model: none; or auto: the class of an example if there are classes, else its numbers, else its
    text; or several at once, such as class text, each dropped by itself."""
    vocabulary: int = 2048
    """Maximum size of the text vocabulary; 256 of the tokens are the bytes."""
    caption_length: int = 32
    """Maximum number of tokens in a text."""
    drop_condition: float = 0.1
    """Probability of dropping the condition in training, so that the model also learns p(x); guidance needs this above
    0."""


def require_sizes(**sizes: int | tuple[int, ...]) -> None:
    """Refuses sizes below one, naming the option.

    Raises:
        UsageError: If there is one.
    """
    for name, given in sizes.items():
        for size in given if isinstance(given, tuple) else (given,):
            if size < 1:
                got = f"{name} {size}"
                raise UsageError(
                    "A layer needs at least one unit.", got=got, expected="at least 1", remedy=f"Raise {flag(name)}."
                )

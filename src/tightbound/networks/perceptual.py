r"""Perceptual distances: how far two images are apart in the features of a frozen network.

.. math:: d(a, b) = \sum_l \frac{1}{H_l W_l} \sum_{i, j} \sum_c w_{lc} \, (\hat a_{lcij} - \hat b_{lcij})^2,
    \qquad \hat a_{lij} = \frac{a_{lij}}{\sqrt{\lVert a_{lij} \rVert^2 + \varepsilon}}

Convention: images are ``(n, channels, H, W)`` with values in [-1, 1]; :math:`a_l` are their features at tap l. The
epsilon lies inside the root, whose slope at 0 would be infinite: a dead feature has the gradient 0, not NaN. Features
are normalised, compared and summed in at least float32, whatever precision the network computes in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..runtime.modes import at_least_float32
from . import features
from .weights import hash_in_name, read_weights, require_family

__all__ = [
    "EfficientNetLite0",
    "PerceptualNetwork",
    "Taps",
    "Vgg16",
    "efficientnet_lite0",
    "from_compvis",
    "perceptual_distance",
    "vgg16",
]

EPS = 1e-10
"""Added to the squared length of a feature before its root."""


class Taps(nn.Module):
    """Abstract: a network with features at several depths.

    Attributes:
        channels: Channels of the features of each tap.
        least: The least side of an image that reaches every tap.
        inputs: Channels of an image; 3 for a network of colour images, which is shown a grey image three times.
        weights: What its weights are, as text for people.
        from_file: Whether they are read from a file, and not trained for a run.
    """

    channels: tuple[int, ...] = ()
    least: int = 1
    inputs: int = 3
    weights: str = ""
    from_file: bool = True

    def forward(self, x: Tensor) -> list[Tensor]:
        """The features of each tap, ``(n, channels, H_l, W_l)``, of images in [-1, 1]."""
        raise NotImplementedError


class PerceptualNetwork(nn.Module):
    r"""The distance of two images in the features of a frozen network: LPIPS, where the network and heads are its.

    References:
        The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (Zhang, Isola, Efros, Shechtman and Wang,
        2018).

    Args:
        taps: The network; its weights are frozen.
        heads: The weight :math:`w_{lc} \ge 0` of every channel of every tap; None for the mean over the taps of the
            squared distance of two features of length 1.

    Raises:
        UsageError: If heads and taps do not fit.

    Example:
        >>> class Pixels(Taps):
        ...     channels = (3,)
        ...     def forward(self, x):
        ...         return [x]
        >>> red, grey = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.5, 0.5, 0.5])
        >>> images = [colour.view(1, 3, 1, 1).expand(2, 3, 8, 8) for colour in (red, grey)]
        >>> PerceptualNetwork(Pixels())(*images)
        tensor([0.8453, 0.8453])
    """

    def __init__(self, taps: Taps, heads: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        self.taps = taps.eval().requires_grad_(False)
        heads = [torch.full((n,), 1 / len(taps.channels)) for n in taps.channels] if heads is None else heads
        if [len(head) for head in heads] != list(taps.channels):
            raise UsageError(
                "The heads do not fit the network.",
                got=f"{[len(head) for head in heads]} channels",
                expected=f"{list(taps.channels)}, one number for each channel of each tap",
            )
        self.register_buffer("heads", torch.cat([head.detach().reshape(-1) for head in heads]))

    heads: Tensor

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The distance of each pair of images, ``(n,)``.

        Args:
            a: Images in [-1, 1], ``(n, channels, H, W)``.
            b: As many.

        Raises:
            UsageError: If the network cannot take such images.
        """
        return self.between(self.features(a), self.features(b))

    def features(self, x: Tensor) -> list[Tensor]:
        """The features of images, ``(n, channels, H, W)`` in [-1, 1], of length 1 at every position.

        Raises:
            UsageError: If the network cannot take such images.
        """
        if self.taps.training:  # frozen: its normalisation keeps its statistics, whatever the mode of what holds it
            self.taps.eval()
        return [_normalised(each) for each in self.taps(self._shown(x))]

    def between(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """The distance ``(n,)`` of images with these features."""
        return _between(a, b, self.heads.split(self.taps.channels))

    def _shown(self, x: Tensor) -> Tensor:
        """Images with the channels that the network takes."""
        self.require_fits(x.shape[1:])
        return x.expand(-1, self.taps.inputs, -1, -1) if x.shape[1] == 1 else x[:, : self.taps.inputs]

    def require_fits(self, shape: Sequence[int]) -> None:
        """Refuses images ``(channels, H, W)`` that the network cannot take; a fourth channel of colours is left out.

        Raises:
            UsageError: If they have other channels, or are too small.
        """
        fits = shape[0] in (1, self.taps.inputs, *([4] if self.taps.inputs == 3 else []))
        if len(shape) != 3 or not fits or min(shape[1:]) < self.taps.least:
            raise UsageError(
                "The perceptual network cannot take these images.",
                got=f"images of shape {tuple(shape)}",
                expected=f"1 or {self.taps.inputs} channels, sides of at least {self.taps.least}",
                remedy="Use --perceptual features, which are trained on this data, or --perceptual none.",
            )


def perceptual_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The distance ``(n,)`` of images with these features, which is a mean over the taps.

    Args:
        a: The features of each tap, ``(n, channels, H, W)``.
        b: Those of the others, with the same shapes.

    Example:
        >>> a, b = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), torch.tensor([0.0, 3.0]).view(1, 2, 1, 1)
        >>> perceptual_distance([a, a], [b, a])
        tensor([1.])
    """
    heads = [torch.full((x.shape[1],), 1 / len(a), device=x.device) for x in a]
    return _between([_normalised(x) for x in a], [_normalised(x) for x in b], heads)


def _between(a: Sequence[Tensor], b: Sequence[Tensor], heads: Sequence[Tensor]) -> Tensor:
    with torch.autocast(heads[0].device.type, enabled=False):
        return torch.stack([_weighted(x - y, head) for x, y, head in zip(a, b, heads, strict=True)]).sum(0)


def _normalised(features: Tensor) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        x = at_least_float32(features)
        return x / (x.square().sum(1, keepdim=True) + EPS).sqrt()


def _weighted(difference: Tensor, head: Tensor) -> Tensor:
    return difference.square().mean((2, 3)) @ head.to(difference.dtype)


# -- VGG-16 -----------------------------------------------------------------------------------------------------------

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and deviation of ImageNet's images, in [-1, 1]."""
_CONVOLUTIONS = {  # number of each layer in torchvision's `features`: inputs and outputs
    0: (3, 64),
    2: (64, 64),
    5: (64, 128),
    7: (128, 128),
    10: (128, 256),
    12: (256, 256),
    14: (256, 256),
    17: (256, 512),
    19: (512, 512),
    21: (512, 512),
    24: (512, 512),
    26: (512, 512),
    28: (512, 512),
}
_POOLS, _TAPPED = (4, 9, 16, 23), (2, 7, 14, 21, 28)


class Vgg16(Taps):
    """The convolutions of VGG-16, tapped after the last of each resolution.

    References:
        Very Deep Convolutional Networks for Large-Scale Image Recognition (Simonyan and Zisserman, 2015).
    """

    channels = (64, 128, 256, 512, 512)
    least = 16
    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers = {str(i): nn.Conv2d(*sizes, 3, padding=1) for i, sizes in _CONVOLUTIONS.items()}
        self.features = nn.ModuleDict(layers)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        found, x = [], (x - self.shift) / self.scale
        for i in range(max(_CONVOLUTIONS) + 1):
            if i in _POOLS:
                x = nn.functional.max_pool2d(x, 2)
            if i in _CONVOLUTIONS:
                x = nn.functional.relu(self.features[str(i)](x))
            if i in _TAPPED:
                found.append(x)
        return found


def vgg16(path: str | Path, heads: str | Path) -> PerceptualNetwork:
    """LPIPS with VGG-16, from two files.

    Args:
        path: The weights of VGG-16 as torchvision names them, such as ``vgg16-397923af.pth``.
        heads: The weights of the published heads, such as ``lpips/weights/v0.1/vgg.pth`` in the package lpips.

    Raises:
        CheckpointError: If a file cannot be read, is not what the hash in its name says, or holds something else.
    """
    state = read_weights(path)
    shapes = {f"features.{i}.weight": (n, m, 3, 3) for i, (m, n) in _CONVOLUTIONS.items()}
    require_family(path, state, {**shapes, **_biases("features.")}, "VGG-16")
    own = {name: state[name] for name in (*shapes, *_biases("features."))}
    checked = "" if not hash_in_name(path) else ", hash checked"
    return _lpips(own, _heads(heads, read_weights(heads)), f"VGG-16 with LPIPS heads, from {Path(path).name}{checked}")


def _biases(prefix: str) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}{i}.bias": (n,) for i, (_, n) in _CONVOLUTIONS.items()}


def _heads(source: object, state: Mapping[str, Tensor], prefix: str = "") -> list[Tensor]:
    """The weights of the published heads, one for each tap."""
    names = [f"{prefix}lin{i}.model.1.weight" for i in range(len(Vgg16.channels))]
    shapes = {name: (1, n, 1, 1) for name, n in zip(names, Vgg16.channels, strict=True)}
    require_family(source, state, shapes, "LPIPS heads of VGG-16")
    return [state[name].float().flatten() for name in names]


def _lpips(convolutions: Mapping[str, Tensor], heads: Sequence[Tensor], weights: str) -> PerceptualNetwork:
    taps = Vgg16()
    taps.load_state_dict({name: tensor.float() for name, tensor in convolutions.items()})
    taps.weights = weights
    return PerceptualNetwork(taps, heads)


def from_compvis(state: Mapping[str, Tensor], source: object = "the checkpoint") -> PerceptualNetwork:
    """LPIPS with VGG-16, from the state dict of a CompVis autoencoder, which holds it under ``loss.perceptual_loss``.

    Args:
        state: The state dict.
        source: Where it is from.

    Raises:
        CheckpointError: If it holds none.
    """
    prefix = "loss.perceptual_loss."
    first = f"{prefix}net.slice1.0.weight"
    require_family(source, state, {first: (64, 3, 3, 3)}, f"the perceptual network of CompVis ({prefix}*)")
    slices = {i: 1 + sum(i > tap for tap in _TAPPED) for i in _CONVOLUTIONS}
    own = {
        f"features.{i}.{part}": state[f"{prefix}net.slice{slices[i]}.{i}.{part}"]
        for i in _CONVOLUTIONS
        for part in ("weight", "bias")
        if f"{prefix}net.slice{slices[i]}.{i}.{part}" in state
    }
    shapes = {f"features.{i}.weight": (n, m, 3, 3) for i, (m, n) in _CONVOLUTIONS.items()}
    require_family(source, own, {**shapes, **_biases("features.")}, "the perceptual network of CompVis")
    return _lpips(own, _heads(source, state, prefix), f"VGG-16 with LPIPS heads, from {source}")


# -- EfficientNet-Lite0 -----------------------------------------------------------------------------------------------

_LITE_TAPPED = {0: 16, 2: 24, 4: 40, 10: 112}
"""The last block of each resolution but the coarsest, and its channels."""


class EfficientNetLite0(Taps):
    """The blocks of EfficientNet-Lite0, tapped after the last of the resolutions 1/2, 1/4, 1/8 and 1/16."""

    channels = tuple(_LITE_TAPPED.values())
    least = 16

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        children = dict(network.named_children())
        self.stem = nn.Sequential(children["_conv_stem"], children["_bn0"], children["_swish"])
        self.blocks = nn.ModuleList([*children["_blocks"].children()][: max(_LITE_TAPPED) + 1])

    def forward(self, x: Tensor) -> list[Tensor]:
        found, x = [], self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in _LITE_TAPPED:
                found.append(x)
        return found


def efficientnet_lite0() -> PerceptualNetwork:
    """A distance in features of EfficientNet-Lite0, trained on ImageNet, from its package.

    Raises:
        UsageError: If the package is not installed.
        CheckpointError: If its file of weights cannot be read, or is not what the hash in its name says.
    """
    found = features.efficientnet_lite0()
    taps = EfficientNetLite0(found.network)
    taps.weights = f"EfficientNet-Lite0 trained on ImageNet, sha256 {found.weights[:8]}"
    return PerceptualNetwork(taps)

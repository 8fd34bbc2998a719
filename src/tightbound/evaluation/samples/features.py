"""The features that images are compared in, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...checkpoint import digest
from ...data import Data, DataSpec
from ...errors import UnknownName, UsageError
from ...networks.features import Activations, efficientnet_lite0, has_efficientnet, seen_size
from ...spec import register
from ...training.classifier import Classifier, train_classifier
from ...views.samples import drawable
from ..numbers import Fact

__all__ = ["FeatureName", "FeatureSource", "Features", "as_images", "features_of"]

FeatureName = Literal["auto", "classifier", "efficientnet-lite0"]
NAMES = ("auto", "classifier", "efficientnet-lite0")
AT_ONCE = 2**18
"""Pixels that a large network sees at once."""


@register("feature-source", record=True)
@dataclass(frozen=True)
class FeatureSource:
    """Where features come from: numbers can be compared only if all of it is the same.

    Args:
        network: The network and what it was trained on.
        weights: The first digits of the digest of its weights; empty if they are not known.
        resize: What is done to images before.
        dimensions: Number of features.

    Example:
        >>> print(FeatureSource("EfficientNet-Lite0 of ImageNet", "57934424", "64 × 64, as they are", 1280))
        1,280 features of EfficientNet-Lite0 of ImageNet (weights 57934424; images 64 × 64, as they are)
    """

    network: str
    weights: str
    resize: str
    dimensions: int

    @property
    def facts(self) -> dict[str, Fact]:
        """No values: it has no numbers."""
        return {}

    def __str__(self) -> str:
        weights = f"weights {self.weights}; " if self.weights else ""
        return f"{self.dimensions:,} features of {self.network} ({weights}images {self.resize})"


@dataclass(frozen=True)
class Features:
    """A network that images are compared in.

    Args:
        see: Activations of examples as a model sees them.
        network: As in :class:`FeatureSource`.
        weights: As there.
        resize: As there.
        classifier: The classifier that it is part of, if it tells labels.
    """

    see: Callable[[Tensor], Activations]
    network: str
    weights: str
    resize: str
    classifier: Classifier | None = None

    def source(self, dimensions: int) -> FeatureSource:
        """The description of features of a known size."""
        return FeatureSource(self.network, self.weights, self.resize, dimensions)


def features_of(
    name: FeatureName | Callable[[Tensor], Tensor], data: Data, *, seed: int = 0, device: torch.device | str = "cpu"
) -> Features:
    """Features by name, or as a function.

    Args:
        name: ``"classifier"``, trained on the labels of the data; ``"efficientnet-lite0"``, trained on ImageNet, where
            its packages are installed; ``"auto"``, the classifier if there are labels, else the other. Or a function,
            ``(n, *shape) -> (n, d)``.
        data: The data.
        seed: Of the classifier.
        device: Where to compute.

    Raises:
        UnknownName: If there are no such features.
        UsageError: If its packages are missing, or the data has no images for it.
        DataError: If a classifier would need labels.

    Example:
        >>> from tightbound.data import load_data
        >>> found = features_of("efficientnet-lite0", load_data("digits"))
        >>> str(found.source(1280))
        '1,280 features of EfficientNet-Lite0 of ImageNet (weights 579344248a; images 8 × 8, resized to 64 × 64)'
    """
    if not isinstance(name, str):
        own = name
        size = _size(data.spec)
        return Features(
            lambda x: Activations(own(x).flatten(1)), "a function given in Python", "", f"{size}as they are"
        )
    if name not in NAMES:
        raise UnknownName("features", name, NAMES)
    labelled = data.train.labels is not None and len(data.spec.classes) > 1
    if name == "efficientnet-lite0" or (name == "auto" and not labelled and data.spec.image and has_efficientnet()):
        return _efficientnet(data.spec, torch.device(device))
    classifier = train_classifier(data, seed=seed, device=device)
    weights, told = digest(classifier.state_dict())[:10], f"a classifier of the {len(data.spec.classes)} labels"
    return Features(classifier.activations, told, weights, f"{_size(data.spec)}as they are", classifier)


def _efficientnet(spec: DataSpec, device: torch.device) -> Features:
    if not spec.image:
        raise UsageError(
            "EfficientNet-Lite0 sees images only.",
            got=f"examples of shape {spec.shape}",
            expected="(1 or 3, height, width)",
            remedy="Use --features classifier.",
        )
    network = efficientnet_lite0().to(device)
    size = seen_size(*spec.shape[1:])
    at_once = max(1, AT_ONCE // (size[0] * size[1]))

    def see(x: Tensor) -> Activations:
        found = [network(as_images(part, spec).to(device)) for part in x.split(at_once)]
        maps = (torch.cat(each) for each in zip(*(one.maps for one in found), strict=True))
        return Activations(torch.cat([one.pooled for one in found]), tuple(maps))

    same = size == spec.shape[1:]
    resize = f"{_size(spec)}as they are" if same else f"{_size(spec)}resized to {size[0]} × {size[1]}"
    return Features(see, "EfficientNet-Lite0 of ImageNet", network.weights[:10], resize)


def _size(spec: DataSpec) -> str:
    return f"{spec.shape[1]} × {spec.shape[2]}, " if len(spec.shape) == 3 else ""


def as_images(x: Tensor, spec: DataSpec | None) -> Tensor:
    """Examples as a model sees or outputs them, as images in [0, 1]: values beyond black and white are clipped.

    Example:
        >>> as_images(torch.tensor([[[[-0.5, 0.5, 2.0]]]]), None).tolist()
        [[[[0.0, 0.5, 1.0]]]]
    """
    return drawable(x, spec).clamp(0, 1)

"""Training a classifier whose features are used to evaluate samples."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import Data, DataSpec
from ..errors import DataError
from ..networks import MLP, ConvolutionalEncoder
from ..networks.features import Activations
from ..runtime.randomness import fixed_noise
from .fit import Passes, fit

__all__ = ["Classifier", "labels_of", "train_classifier"]

LEAST_STEPS = 500
"""Minimum number of steps; small data gets more epochs."""


class Classifier(nn.Module):
    """A small classifier: a linear map of features.

    Args:
        spec: Shape and classes of the data.
        features: d, number of features.

    Example:
        >>> spec = DataSpec("digits", shape=(1, 8, 8), levels=17, classes=("even", "odd"))
        >>> network = Classifier(spec, features=16)
        >>> network.features(torch.rand(5, 1, 8, 8)).shape, network(torch.rand(5, 1, 8, 8)).shape
        (torch.Size([5, 16]), torch.Size([5, 2]))
    """

    def __init__(self, spec: DataSpec, features: int = 64) -> None:
        super().__init__()
        self.body = ConvolutionalEncoder(spec.shape, features, (16, 32, 64)) if spec.image else _Flat(spec, features)
        self.head = nn.Linear(features, len(spec.classes))

    def features(self, x: Tensor) -> Tensor:
        """The inputs of the last layer, ``(n, d)``, for examples ``(n, *shape)``."""
        return self.body(x)

    def activations(self, x: Tensor) -> Activations:
        """The features, and of images those of every level of the network."""
        return Activations(self.features(x), self.body.maps(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class _Flat(nn.Module):
    """Features of examples that are no images."""

    def __init__(self, spec: DataSpec, features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), MLP(spec.dimensions, features))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """None: there are no places."""
        return ()


def train_classifier(
    data: Data,
    *,
    features: int = 64,
    epochs: int = 3,
    batch_size: int = 128,
    lr: float = 2e-3,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Classifier:
    """Trains a classifier for features to evaluate samples; deterministic given data and seed.

    Args:
        data: Labelled examples.
        features: d, number of features.
        epochs: Passes over the training split, at least 500 steps in all.
        batch_size: Examples per step.
        lr: Peak learning rate, with cosine decay.
        seed: Of the weights and the order of the examples.
        device: Where it is trained.

    Returns:
        The classifier, in evaluation mode.

    Raises:
        DataError: If the data has fewer than two classes of labels.

    Example:
        >>> import tightbound as tb
        >>> classifier = train_classifier(tb.load_data("digits"), features=8, epochs=1)
        >>> classifier.features(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 8])
    """
    _require_classes(data)
    with fixed_noise(seed):
        network = Classifier(data.spec, features).to(device)
    passes = Passes(len(data.train), batch_size, epochs, seed)
    passes = dataclasses.replace(passes, epochs=max(epochs, -(-LEAST_STEPS // passes.per_epoch)))
    optimizer = torch.optim.AdamW(network.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, passes.steps)

    def loss(indices: Tensor) -> Tensor:
        batch = data.train.batch(indices, device)
        return F.cross_entropy(network(batch.x), labels_of(batch.labels))

    fit("classifier of the labels", loss, passes, optimizer, schedule)
    return network.eval()


def _require_classes(data: Data) -> None:
    if data.train.labels is None or len(data.spec.classes) < 2:
        raise DataError(
            "Training features needs labels.",
            got=f"{data.spec.name!r} with {len(data.spec.classes)} classes",
            expected="labels of two classes or more",
            remedy="Use data with class sub-folders or a 'labels' array, or --features efficientnet-lite0.",
        )


def labels_of(labels: Tensor | None) -> Tensor:
    """The labels of examples.

    Raises:
        DataError: If there are none.
    """
    if labels is None:
        raise DataError("These examples have no labels.")
    return labels

"""The perceptual network of a training: read from a file or a package, or trained on the data first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data import Data, DataSpec
from ..errors import UsageError
from ..exchange.inert import read_tensors
from ..networks.features import has_efficientnet
from ..networks.own_features import OwnFeatures
from ..networks.perceptual import (
    EfficientNetLite0,
    PerceptualNetwork,
    efficientnet_lite0,
    from_compvis,
    vgg16,
)
from ..networks.signed import Signed
from ..networks.weights import read_weights
from ..options.adversarial import Adversarial
from ..runtime.randomness import fixed_noise
from .classifier import labels_of
from .fit import Passes, fit

__all__ = ["own_features", "perceptual_network", "prepare", "train_features"]

EMBEDDING = 64
"""Dimensions of the embedding of features that are trained without labels."""
TEMPERATURE = 0.2
STEPS, BATCH = 500, 128


def perceptual_network(objective: Adversarial, data: DataSpec, seed: int = 0) -> PerceptualNetwork | None:
    """The perceptual network that an objective names; features of its own are not trained yet.

    Args:
        objective: The objective.
        data: Shape and classes of the data.
        seed: Of the weights of features of its own.

    Returns:
        The network; None if the objective has no perceptual term.

    Raises:
        UsageError: If the network cannot take the images, or heads are missing.
        CheckpointError: If a file does not hold what it should.
    """
    if not objective.perceives:
        return None
    name = objective.perceptual
    if name == "auto":
        name = "efficientnet-lite0" if has_efficientnet() and _takes(data) else "features"
    network = own_features(data, seed) if name == "features" else _from_file(name, objective.perceptual_heads)
    network.require_fits(data.shape)
    return network


def _takes(data: DataSpec) -> bool:
    """Whether a network of colour images can take these."""
    return len(data.shape) == 3 and data.shape[0] in (1, 3) and min(data.shape[1:]) >= EfficientNetLite0.least


def _from_file(name: str, heads: str) -> PerceptualNetwork:
    if name == "efficientnet-lite0":
        return efficientnet_lite0()
    if not Path(name).expanduser().is_file():
        raise UsageError(
            "There is no such perceptual network.",
            got=f"--perceptual {name}",
            expected="auto, efficientnet-lite0, features, none, or the path of a file",
            remedy="Check the path.",
        )
    state = read_tensors(Path(name).expanduser()) if name.endswith(".ckpt") else read_weights(name)
    if any(key.startswith("loss.perceptual_loss.") for key in state):
        return from_compvis(state, Path(name).name)
    if not heads:
        raise UsageError(
            "VGG-16 is compared by LPIPS heads, which lie in another file.",
            got=f"--perceptual {name}",
            remedy="Add --perceptual-heads FILE, such as lpips/weights/v0.1/vgg.pth of the package lpips.",
        )
    return vgg16(name, heads)


# -- features of its own ----------------------------------------------------------------------------------------------


def own_features(data: DataSpec, seed: int = 0) -> PerceptualNetwork:
    """A small perceptual network for images of that data, not trained yet.

    Example:
        >>> network = own_features(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> network(torch.ones(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2])
    """
    labelled = len(data.classes) > 1
    with fixed_noise(seed):
        taps = OwnFeatures(data.shape[0], len(data.classes) if labelled else EMBEDDING)
    taps.weights = f"features trained for this run, {'on the labels of the data' if labelled else 'without labels'}"
    return PerceptualNetwork(taps)


def prepare(network: PerceptualNetwork, data: Data, seed: int = 0) -> None:
    """Trains a perceptual network on data, if it is not read from a file."""
    if not network.taps.from_file:
        train_features(cast(OwnFeatures, network.taps), data, seed=seed)


def train_features(network: OwnFeatures, data: Data, *, steps: int | None = None, seed: int = 0) -> None:
    r"""Trains features on the labels of data; without labels, so that two views of an image lie close together.

    Without labels the loss is :math:`-\log \frac{e^{u_i^\top v_i / \tau}}{\sum_j e^{u_i^\top v_j / \tau}}`, with
    embeddings u and v of two views of each image of a batch: flipped, shifted, brighter or darker, with noise. It is
    deterministic given data and seed, and afterwards the network is frozen.

    References:
        A Simple Framework for Contrastive Learning of Visual Representations (Chen, Kornblith, Norouzi and Hinton,
        2020).

    Args:
        network: The network; its outputs are the classes, or an embedding.
        data: The data.
        steps: Training steps.
        seed: Of the order of the examples and of the views.
    """
    device = next(network.parameters()).device
    passes = Passes(len(data.train), min(BATCH, len(data.train)), 1, seed)
    passes = dataclasses.replace(passes, epochs=-(-(steps or STEPS) // passes.per_epoch))
    network.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, passes.steps)
    loss = (_classification if len(data.spec.classes) > 1 else _two_views)(network, data, device)
    fit("features for the perceptual distance", loss, passes, optimizer, schedule)
    network.requires_grad_(False).eval()


def _classification(network: OwnFeatures, data: Data, device: torch.device) -> Callable[[Tensor], Tensor]:
    signed = Signed(data.spec).to(device)

    def loss(indices: Tensor) -> Tensor:
        batch = data.train.batch(indices, device)
        return F.cross_entropy(network.told(signed(batch.x)), labels_of(batch.labels))

    return loss


def _two_views(network: OwnFeatures, data: Data, device: torch.device) -> Callable[[Tensor], Tensor]:
    signed = Signed(data.spec).to(device)

    def loss(indices: Tensor) -> Tensor:
        x = signed(data.train.batch(indices, device).x)
        one, other = (F.normalize(network.told(_view(x)), dim=1) for _ in range(2))
        return F.cross_entropy(one @ other.T / TEMPERATURE, torch.arange(len(x), device=device))

    return loss


def _view(x: Tensor) -> Tensor:
    """Images flipped, shifted by up to an eighth, brighter or darker, with more or less contrast, and with noise."""
    n, shift = len(x), [max(1, side // 8) for side in x.shape[2:]]
    x = torch.where(torch.rand(n, 1, 1, 1, device=x.device) < 0.5, x.flip(3), x)
    x = torch.roll(x, [int(torch.randint(-most, most + 1, ())) for most in shift], (2, 3))
    bright, contrast = (torch.rand(2, n, 1, 1, 1, device=x.device) - 0.5).unbind(0)
    return x * (1 + contrast) + 0.4 * bright + 0.05 * torch.randn_like(x)

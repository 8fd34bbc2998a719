r"""Training an encoder of pictures and captions, and asking it: which picture fits a caption, which caption a picture.

Convention: images are ``(n, channels, height, width)`` as a model sees them, captions tokens ``(n, length)`` with -1
behind their end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ... import checkpoint
from ...conditions.tokenizer import normalise
from ...data import Data, Split
from ...encoders.contrastive import Contrastive, ContrastiveConfig, TextImageEncoder
from ...errors import ShapeError, TrainingError, UsageError
from ...runtime.budget import within_memory
from ...runtime.modes import evaluating
from ...runtime.progress import Advance, progress
from ...runtime.randomness import epoch_order, fixed_noise
from ..estimate import Estimate

__all__ = ["best_of", "fits", "rank", "retrieval_accuracy", "train_contrastive", "vary"]

AT_ONCE = 256
"""Images or captions that are worked on at once."""
TIE = 1e-6
"""Cosines that differ by no more are equal: what float32 leaves of them."""


def train_contrastive(
    data: Data,
    config: ContrastiveConfig | None = None,
    *,
    epochs: int = 20,
    batch_size: int = 128,
    lr: float = 1e-3,
    weight_decay: float = 0.1,
    patience: int = 5,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Contrastive:
    """Trains an encoder on captioned images that are shifted and tinted a little, never mirrored.

    It stops when the captions of the validation split have not been found better for a while, and gives the weights
    that found them best.

    Args:
        data: Images with captions.
        config: The encoder's sizes; None for those that are usual, with the data's shape.
        epochs: Most passes over the training split.
        batch_size: Captions among which an image's own is to be found.
        lr: Learning rate at its peak; it rises for an epoch and falls as a cosine.
        weight_decay: Of all weights.
        patience: Epochs without a better validation loss before it stops.
        seed: Of the weights, the order of the examples and their shifts.
        device: Where it is trained.

    Returns:
        The encoder, in evaluation mode.

    Raises:
        UsageError: If the data has no captions, all are the same, or one is too long; or if there is no batch of two
            examples, no epoch, no patience, or a rate is out of range.
        TrainingError: If the loss never was a number.

    Example:
        >>> images, texts = torch.randint(256, (40, 3, 8, 8)), tuple(["a red circle", "a blue square"] * 20)
        >>> captions = {"train": texts[:20], "valid": texts[:10], "test": texts[:10]}
        >>> data = Data.from_arrays(images[:20], images[20:30], images[30:], captions=captions, levels=256)
        >>> model = train_contrastive(data, ContrastiveConfig((3, 8, 8), dim=4, channels=(4,)), epochs=1, batch_size=10)
        >>> model.similarity(torch.rand(3, 3, 8, 8), model.tokens(["a red square"])).shape
        torch.Size([3, 1])
    """
    captions = _captions(data)
    if min(epochs, batch_size - 1, patience) < 1:
        got = f"epochs {epochs}, batch_size {batch_size}, patience {patience}"
        raise UsageError(
            "A batch has two examples, and training an epoch.", got=got, expected="at least 1, 2 and 1 of them"
        )
    if not (0 < lr < math.inf and 0 <= weight_decay < math.inf):
        raise UsageError(
            "A learning rate is above 0.", got=f"lr {lr}, weight_decay {weight_decay}", remedy="Try --lr 1e-3."
        )
    with fixed_noise(seed), within_memory():
        model = Contrastive(config or ContrastiveConfig(data.spec.shape)).to(device)
    model.text.initialise_captions(captions["train"])
    model.tokens([*captions["valid"], *captions["test"]])  # too long a caption is told before any work
    return _Fit(model, data, batch_size, seed).run(epochs, lr, weight_decay, patience)


def _captions(data: Data) -> dict[str, tuple[str, ...]]:
    """The captions of every split, if they can tell pictures apart."""
    if not data.spec.captioned:
        raise UsageError(
            "An encoder of captions learns from captions.",
            got=f"{data.spec.name!r}, which has none",
            expected="pictures with captions",
            remedy="Use a folder or archive of images with a metadata.jsonl.",
        )
    found = {split.name: split.captions or () for split in (data.train, data.valid, data.test)}
    for name in ("train", "valid"):
        if len(some := {normalise(caption) for caption in found[name]}) < 2:
            more = " in the validation split: --validation 0.1" if name == "valid" else ""
            raise UsageError(
                "An encoder of captions learns to tell them apart.",
                got=f"{len(found[name])} captions in the {name} split{', all the same' if some else ''}",
                expected="two different ones",
                remedy=f"Use data with more captions{more}.",
            )
    return found


class _Fit:
    """The training of a contrastive encoder."""

    def __init__(self, model: Contrastive, data: Data, batch_size: int, seed: int) -> None:
        self.model, self.data, self.batch_size, self.seed = model, data, batch_size, seed
        self.steps = max(1, len(data.train) // batch_size)

    def run(self, epochs: int, lr: float, weight_decay: float, patience: int) -> Contrastive:
        optimizer = torch.optim.AdamW(self.model.parameters(), lr, weight_decay=weight_decay, betas=(0.9, 0.98))
        warm, total = self.steps, epochs * self.steps
        factor = lambda step: min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / total))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        best, stale, kept = math.inf, 0, self._weights()
        with progress("contrastive encoder", epochs * self.steps) as advance:
            for epoch in range(epochs):
                self._epoch(epoch, optimizer, schedule, advance)
                found = self.validation_loss()
                best, stale, kept = (found, 0, self._weights()) if found < best else (best, stale + 1, kept)
                if stale >= patience:
                    break
        if best == math.inf:
            raise TrainingError(
                "The encoder's loss never was a number.", got=f"lr {lr}", remedy="Try a lower learning rate: --lr 1e-3."
            )
        checkpoint.load_into(self.model, kept)
        return self.model.eval()

    def _epoch(self, epoch: int, optimizer: Any, schedule: Any, advance: Advance) -> None:
        self.model.train()
        order = epoch_order(self.seed, epoch, len(self.data.train))
        for step, indices in enumerate(order.split(self.batch_size)[: self.steps]):
            with fixed_noise(self.seed, 1 + epoch * self.steps + step):
                loss = self._loss(self.data.train, indices, varied=True).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            advance()

    def _loss(self, split: Split, indices: Tensor, *, varied: bool) -> Tensor:
        batch = split.batch(indices, self.model.log_scale.device)
        return self.model.loss(vary(batch.x) if varied else batch.x, self.model.text.of(batch))

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean over the validation split of what it costs to find a caption in a batch, nats."""
        parts = torch.arange(len(self.data.valid)).split(self.batch_size)
        with evaluating(self.model), fixed_noise(self.seed):
            return torch.cat([self._loss(self.data.valid, part, varied=False) for part in parts]).mean().item()

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in checkpoint.tensors_of(self.model).items()}


def vary(x: Tensor, shift: float = 1 / 16, tint: float = 0.1) -> Tensor:
    """Images moved by a few pixels, their edges drawn out, and each channel a little brighter or darker.

    Args:
        x: Images, ``(n, channels, height, width)``.
        shift: Furthest move, as a share of the side.
        tint: Standard deviation of a channel's gain, and twice that of its offset.

    Example:
        >>> vary(torch.rand(5, 3, 8, 8)).shape
        torch.Size([5, 3, 8, 8])
    """
    n, channels, *sides = x.shape
    furthest = [max(1, round(shift * side)) for side in sides]
    moves = [torch.randint(-most, most + 1, (n, 1), device=x.device) for most in furthest]
    rows, columns = (
        (torch.arange(side, device=x.device) + move).clamp(0, side - 1) for side, move in zip(sides, moves, strict=True)
    )
    examples = torch.arange(n, device=x.device)[:, None, None]
    moved = x.permute(0, 2, 3, 1)[examples, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
    gain, offset = tint * torch.randn(2, n, channels, 1, 1, dtype=x.dtype, device=x.device)
    return moved * (1 + gain) + offset / 2


@torch.no_grad()
def _features(encode: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    return torch.cat([encode(part) for part in inputs.split(AT_ONCE)])


def fits(encoder: TextImageEncoder, samples: Tensor, tokens: Tensor) -> Tensor:
    """How well several samples for each caption fit it: cosines, ``(k, n)``.

    Args:
        encoder: What compares images and captions.
        samples: k samples for each of n captions, ``(k, n, *shape)``.
        tokens: The captions, ``(n, length)``.

    Raises:
        ShapeError: If there are not as many captions as samples.

    Example:
        >>> model = Contrastive(ContrastiveConfig((3, 8, 8), dim=4, channels=(4,)))
        >>> model.text.initialise_captions(["a red circle", "a blue square"])
        >>> fits(model, torch.rand(5, 2, 3, 8, 8), model.tokens(["a red circle", "a blue square"])).shape
        torch.Size([5, 2])
    """
    if samples.dim() != 5 or len(tokens) != samples.shape[1]:
        got = f"samples {tuple(samples.shape)}, captions {tuple(tokens.shape)}"
        raise ShapeError("Each caption has samples of its own.", got=got, expected="(k, n, *shape) and (n, length)")
    with evaluating(encoder):
        images = _features(encoder.image_features, samples.flatten(0, 1)).unflatten(0, samples.shape[:2])
        return (images * _features(encoder.text_features, tokens)).sum(-1)


def rank(encoder: TextImageEncoder, samples: Tensor, tokens: Tensor) -> Tensor:
    """The order of several samples for each caption, the one that fits best first; arguments as of :func:`fits`.

    Returns:
        Numbers of the samples, int64 ``(k, n)``.

    Example:
        >>> model = Contrastive(ContrastiveConfig((3, 8, 8), dim=4, channels=(4,)))
        >>> model.text.initialise_captions(["a red circle", "a blue square"])
        >>> tokens = model.tokens(["a red circle", "a blue square"])
        >>> rank(model, torch.rand(5, 2, 3, 8, 8), tokens).sort(0).values[:, 0]
        tensor([0, 1, 2, 3, 4])
    """
    return fits(encoder, samples, tokens).sort(dim=0, descending=True, stable=True).indices


def best_of(encoder: TextImageEncoder, samples: Tensor, tokens: Tensor) -> Tensor:
    """Of several samples for each caption the one that fits best, ``(n, *shape)``; arguments as of :func:`rank`.

    Example:
        >>> model = Contrastive(ContrastiveConfig((3, 8, 8), dim=4, channels=(4,)))
        >>> model.text.initialise_captions(["a red circle", "a blue square"])
        >>> best_of(model, torch.rand(5, 2, 3, 8, 8), model.tokens(["a red circle", "a blue square"])).shape
        torch.Size([2, 3, 8, 8])
    """
    return samples[rank(encoder, samples, tokens)[0], torch.arange(samples.shape[1])]


def retrieval_accuracy(
    encoder: TextImageEncoder, images: Tensor, tokens: Tensor, among: int = 100, pool: Tensor | None = None
) -> Estimate:
    r"""Share of images whose own caption fits better than all others among some drawn at random; chance: 1 / among.

    It is the expectation over all draws: of R other captions b fit an image as well as its own or better, so that

    .. math:: P(\text{own first among } a) = \binom{R - b}{a - 1} \Big/ \binom{R}{a - 1} .

    Args:
        encoder: What compares images and captions.
        images: ``(n, *shape)``.
        tokens: The caption of each, ``(n, length)``.
        among: a, its own among them.
        pool: Captions ``(m, length)`` from which the others are drawn; None for those of the images.

    Raises:
        ShapeError: If there are not as many images as captions.
        UsageError: If there are not so many captions.

    Example:
        >>> model = Contrastive(ContrastiveConfig((3, 8, 8), dim=4, channels=(4,)))
        >>> model.text.initialise_captions(["a red circle", "a blue square"])
        >>> tokens = model.tokens(["a red circle", "a blue square"])
        >>> 0 <= retrieval_accuracy(model, torch.rand(2, 3, 8, 8), tokens, among=2).value <= 1
        True
    """
    if len(images) != len(tokens):
        raise ShapeError("Each image has a caption.", got=f"{len(images)} and {len(tokens)}", expected="as many")
    captions, ids = torch.cat([tokens, tokens if pool is None else pool]).unique(dim=0, return_inverse=True)
    own, drawn = ids[: len(tokens)], ids[len(tokens) :].unique()
    others = drawn != own.unsqueeze(1)
    rivals = others.sum(1).double()
    if among < 2 or len(rivals) == 0 or rivals.min() < among - 1:
        got = f"{among} of {len(drawn)} different captions"
        raise UsageError("There are not so many captions to find one among.", got=got)
    with evaluating(encoder):
        u, v = _features(encoder.image_features, images), _features(encoder.text_features, captions)
    cosines = u.double() @ v.double().T
    better = ((cosines[:, drawn] > cosines.gather(1, own.unsqueeze(1)) - TIE) & others).sum(1).double()
    return Estimate.of((_log_choices(rivals - better, among - 1) - _log_choices(rivals, among - 1)).exp())


def _log_choices(n: Tensor, k: int) -> Tensor:
    """Logarithm of how many ways there are to choose k of n, but for k!; minus infinity where there is none."""
    left = (n - k).clamp(min=0)
    return torch.where(n < k, -math.inf, (n + 1).lgamma() - (left + 1).lgamma())

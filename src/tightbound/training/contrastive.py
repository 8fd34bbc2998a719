"""Training an encoder of images and captions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import checkpoint
from ..conditions.tokenizer import normalise
from ..data import Data
from ..encoders.contrastive import Contrastive, ContrastiveConfig
from ..errors import TrainingError, UsageError
from ..runtime.budget import within_memory
from ..runtime.modes import evaluating
from ..runtime.randomness import fixed_noise
from .fit import Passes, fit
from .start import learn_captions

__all__ = ["train_contrastive", "vary"]


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
    """Trains an encoder on captioned images, augmented by small shifts and tints, without flips.

    It stops early on the validation loss, and returns the best weights.

    Args:
        data: Images with captions.
        config: The encoder's sizes; None for the defaults, with the data's shape.
        epochs: Maximum number of passes over the training split.
        batch_size: Batch size: each image is matched with the captions of its batch.
        lr: Peak learning rate, after a warm-up of one epoch, with cosine decay.
        weight_decay: Of all weights.
        patience: Number of epochs without a better validation loss before stopping.
        seed: Of the weights, the order of the examples and their shifts.
        device: Where it is trained.

    Returns:
        The encoder, in evaluation mode.

    Raises:
        UsageError: If the data has no captions, all are the same, or one is too long; or if a number is out of range.
        TrainingError: If the loss was never finite.

    Example:
        >>> images, texts = torch.randint(256, (40, 3, 8, 8)), tuple(["a red circle", "a blue square"] * 20)
        >>> captions = {"train": texts[:20], "valid": texts[:10], "test": texts[:10]}
        >>> data = Data.from_arrays(images[:20], images[20:30], images[30:], captions=captions, levels=256)
        >>> model = train_contrastive(data, ContrastiveConfig((3, 8, 8), dim=4, channels=(4,)), epochs=1, batch_size=10)
        >>> model.similarity(torch.rand(3, 3, 8, 8), model.tokens(["a red square"])).shape
        torch.Size([3, 1])
    """
    captions = _captions(data)
    passes = Passes(len(data.train), batch_size, epochs, seed)
    _check(passes, patience, lr, weight_decay)
    model = _started(data, config or ContrastiveConfig(data.spec.shape), seed).to(device)
    model.tokens([*captions["valid"], *captions["test"]])  # raises early if a caption is too long
    return _Fit(model, data, passes, patience).run(lr, weight_decay)


def _started(data: Data, config: ContrastiveConfig, seed: int) -> Contrastive:
    """A new encoder that has learned its tokens."""
    with fixed_noise(seed), within_memory():
        model = Contrastive(config)
    learn_captions(model, data.train)
    return model


def _check(passes: Passes, patience: int, lr: float, weight_decay: float) -> None:
    if min(passes.epochs, passes.batch_size - 1, patience) < 1:
        got = f"epochs {passes.epochs}, batch_size {passes.batch_size}, patience {patience}"
        raise UsageError(
            "Contrastive training needs an epoch, batches of two examples, and patience.",
            got=got,
            expected="at least 1, 2 and 1 of them",
        )
    if not (0 < lr < math.inf and 0 <= weight_decay < math.inf):
        raise UsageError(
            "The learning rate must be positive.", got=f"lr {lr}, weight_decay {weight_decay}", remedy="Try --lr 1e-3."
        )


def _captions(data: Data) -> dict[str, tuple[str, ...]]:
    """The captions of every split, if they are not all the same."""
    if not data.spec.captioned:
        raise UsageError(
            "A contrastive encoder needs captions.",
            got=f"{data.spec.name!r}, which has none",
            expected="images with captions",
            remedy="Use a folder or archive of images with a metadata.jsonl.",
        )
    found = {split.name: split.captions or () for split in (data.train, data.valid, data.test)}
    for name in ("train", "valid"):
        if len(some := {normalise(caption) for caption in found[name]}) < 2:
            more = " in the validation split: --validation 0.1" if name == "valid" else ""
            raise UsageError(
                "A contrastive encoder needs different captions.",
                got=f"{len(found[name])} captions in the {name} split{', all the same' if some else ''}",
                expected="two different ones",
                remedy=f"Use data with more captions{more}.",
            )
    return found


class _Fit:
    """The training of an encoder, with the weights of the best validation loss."""

    def __init__(self, model: Contrastive, data: Data, passes: Passes, patience: int) -> None:
        self.model, self.data, self.passes, self.patience = model, data, passes, patience
        self.best, self.stale, self.kept = math.inf, 0, _copied(model)

    def run(self, lr: float, weight_decay: float) -> Contrastive:
        optimizer = torch.optim.AdamW(self.model.parameters(), lr, weight_decay=weight_decay, betas=(0.9, 0.98))
        warm, total = self.passes.per_epoch, self.passes.steps
        factor = lambda step: min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / total))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        fit("contrastive encoder", self.loss, self.passes, optimizer, schedule, self.goes_on)
        if self.best == math.inf:
            raise TrainingError(
                "The encoder's loss was never finite.", got=f"lr {lr}", remedy="Try a lower learning rate: --lr 1e-3."
            )
        checkpoint.load_into(self.model, self.kept)
        return self.model.eval()

    def goes_on(self) -> bool:
        """Evaluates the weights after an epoch; returns whether to continue."""
        found = self.validation_loss()
        better = found < self.best
        self.stale = 0 if better else self.stale + 1
        if better:
            self.best, self.kept = found, _copied(self.model)
        return self.stale < self.patience

    def loss(self, indices: Tensor) -> Tensor:
        """Loss of augmented training examples, nats."""
        batch = self.data.train.batch(indices, self.model.log_scale.device)
        return self.model.loss(vary(batch.x), self.model.text.of(batch)).mean()

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean contrastive loss over the validation split, nats."""
        device, losses = self.model.log_scale.device, list[Tensor]()
        with evaluating(self.model), fixed_noise(self.passes.seed):
            for batch in self.data.valid.batches(self.passes.batch_size, device):
                losses.append(self.model.loss(batch.x, self.model.text.of(batch)))
        return torch.cat(losses).mean().item()


def _copied(model: Contrastive) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in checkpoint.tensors_of(model).items()}


def vary(x: Tensor, shift: float = 1 / 16, tint: float = 0.1) -> Tensor:
    """Images shifted by a few pixels with replicated edges, and random gain and offset of each channel.

    Args:
        x: Images, ``(n, channels, height, width)``.
        shift: Maximum shift, as a share of the side.
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

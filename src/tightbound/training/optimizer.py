"""The optimiser, and the memory layout of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..options.training import TrainingOptions
from .steps.base import Group

__all__ = ["memory_layout", "optimizer_of"]


def memory_layout(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels-last for convolutions on a GPU, where it is faster; on a CPU it is not."""
    convolutional = any(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in model.modules())
    return torch.channels_last if convolutional and device.type == "cuda" else torch.contiguous_format


def optimizer_of(groups: Sequence[Group], options: TrainingOptions, device: torch.device) -> torch.optim.Optimizer:
    """The optimiser that the options name, for all trained parameters."""
    parameters = [{"params": list(group.parameters), "lr": options.lr * group.share} for group in groups]
    common: dict[str, Any] = {"lr": options.lr, "weight_decay": options.weight_decay}
    if options.optimizer == "sgd":
        return torch.optim.SGD(parameters, **common, momentum=0.9)
    common["eps"] = options.optimizer_eps
    if options.optimizer == "adam":
        fused = device.type in ("cpu", "cuda", "mps") and not _unscaled_before(groups, options, device)
        return torch.optim.AdamW(parameters, **common, fused=fused)
    if options.optimizer == "adamax":
        return torch.optim.Adamax(parameters, **common)
    return torch.optim.RMSprop(parameters, **common, centered=True)


def _unscaled_before(groups: Sequence[Group], options: TrainingOptions, device: torch.device) -> bool:
    """Whether gradients are read before the step in scaled 16 bits, which Fabric refuses for a fused optimiser."""
    reads = options.skip_nonfinite or options.skip_norm or any(group.clip_norm is not None for group in groups)
    return options.precision == "16-mixed" and device.type == "cuda" and bool(reads)

"""How parameters move, and how they lie in memory."""

from __future__ import annotations

import torch
from torch import nn

from ..options.training import TrainingOptions

__all__ = ["memory_layout", "optimizer_of"]


def memory_layout(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels last for convolutions on a GPU, whose kernels want them so; a CPU's are no faster for it."""
    convolutional = any(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in model.modules())
    return torch.channels_last if convolutional and device.type == "cuda" else torch.contiguous_format


def optimizer_of(model: nn.Module, options: TrainingOptions, device: torch.device) -> torch.optim.Optimizer:
    """The optimiser that the options name, of all parameters that are learned."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    lr, decay, eps = options.lr, options.weight_decay, options.optimizer_eps
    if options.optimizer == "adam":
        fused = device.type in ("cpu", "cuda", "mps")
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, eps=eps, fused=fused)
    if options.optimizer == "adamax":
        return torch.optim.Adamax(parameters, lr=lr, weight_decay=decay, eps=eps)
    if options.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=lr, weight_decay=decay, eps=eps, centered=True)
    return torch.optim.SGD(parameters, lr=lr, weight_decay=decay, momentum=0.9)

"""Noise as a function of where it is used, never of what was drawn before.

The generator is seeded anew for every part of every step from (seed, step, part). So a resumed run draws what an
uninterrupted one draws, evaluating in between changes nothing, and two processes with one part each draw what one
process with two parts draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["epoch_order", "fixed_noise", "mix", "reseed"]

_ORDER, _STEP, _FIXED = 0, 1, 2


def mix(*numbers: int) -> int:
    """One well-mixed 63-bit seed from several numbers."""
    text = ",".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def reseed(device: torch.device, seed: int, step: int, part: int) -> None:
    """Seeds the generators of the processor and of a device for one part of one step.

    ``torch.manual_seed`` would also queue a seed for every device that is not in use, which costs as much as a layer.
    """
    number = mix(_STEP, seed, step, part)
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


def epoch_order(seed: int, epoch: int, examples: int) -> Tensor:
    """The order in which an epoch visits the examples."""
    generator = torch.Generator().manual_seed(mix(_ORDER, seed, epoch))
    return torch.randperm(examples, generator=generator)


@contextmanager
def fixed_noise(seed: int = 0, part: int = 0) -> Iterator[None]:
    """Within it, torch draws the same numbers every time; behind it, as if nothing had been drawn."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(mix(_FIXED, seed, part))
        yield

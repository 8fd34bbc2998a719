"""Random numbers as a function of their use, independent of earlier draws.

The generator is reseeded for every part of every step from (seed, step, part). So a resumed run draws the same numbers
as an uninterrupted one, evaluations in between have no effect, and two processes with one part each draw the same
numbers as one process with two parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["Stream", "epoch_order", "fixed_noise", "mix", "reseed"]

_ORDER, _STEP, _FIXED = 0, 1, 2


def mix(*numbers: int) -> int:
    """One well-mixed 63-bit seed from several numbers."""
    text = ",".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def reseed(device: torch.device, seed: int, step: int, part: int) -> None:
    """Seeds the generators of the CPU and of a device for one part of one step.

    ``torch.manual_seed`` would also queue a seed for every unused device, which costs as much as a layer.
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
    """Uses fixed random numbers inside the block, and restores the generators after it."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(mix(_FIXED, seed, part))
        yield


class Stream:
    """A separate stream of random numbers that continues where it stopped, so that interleaved uses do not affect each
    other.

    Args:
        seed: Seed of the stream; it draws the same numbers as :func:`fixed_noise`.
        part: As for :func:`fixed_noise`.

    Example:
        >>> one, other = Stream(1), Stream(2)
        >>> with one.on():
        ...     first = torch.rand(1)
        >>> with other.on():
        ...     _ = torch.rand(3)
        >>> with one.on():
        ...     second = torch.rand(1)
        >>> with fixed_noise(1):
        ...     torch.equal(torch.cat([first, second]), torch.cat([torch.rand(1), torch.rand(1)]))
        True
    """

    def __init__(self, seed: int = 0, part: int = 0) -> None:
        self._seed, self._part, self._states = seed, part, list[Tensor]()

    @contextmanager
    def on(self) -> Iterator[None]:
        """Draws from the stream inside the block, and restores the generators after it."""
        with fixed_noise(self._seed, self._part):
            devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else range(0)
            if self._states:
                torch.set_rng_state(self._states[0])
                for device, state in zip(devices, self._states[1:], strict=False):
                    torch.cuda.set_rng_state(state, device)
            yield
            self._states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]

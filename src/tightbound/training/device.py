"""Device, precision and processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch
from torch import Tensor, distributed

from ..errors import TightboundError, TrainingError, UsageError
from ..options.training import TrainingOptions
from ..runtime.processor import has_amx

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["among_peers", "best_precision", "by_first", "cuda_devices", "find_device", "launch", "reduced"]

T = TypeVar("T")


def launch(options: TrainingOptions) -> Fabric:
    """A Fabric for this process, one of several under ``torchrun``.

    Raises:
        UsageError: If the device is not available.
    """
    from lightning_fabric import Fabric  # slow to import, and only training needs it

    accelerator = find_device(options.device)
    precision = best_precision(accelerator) if options.precision == "auto" else options.precision
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    fabric = Fabric(
        accelerator=accelerator,
        devices=local,
        num_nodes=max(1, processes // local),
        strategy="ddp" if processes > 1 else "auto",
        precision=cast(Any, precision),
    )
    with among_peers():
        fabric.launch()
    return fabric


def reduced(fabric: Fabric, tensor: Tensor, how: Literal["sum", "max"]) -> Tensor:
    """The sum or the maximum of a tensor over all processes, the same in each."""
    return cast(Tensor, fabric.all_reduce(tensor, reduce_op=how))


def by_first(fabric: Fabric, work: Callable[[], T]) -> T:
    """Runs a function in the first process, and returns its result, or raises its error, in all processes."""
    found = error = None
    if fabric.is_global_zero:
        try:
            found = work()
        except TightboundError as met:
            error = met
    found, error = fabric.broadcast((found, error))
    if error is not None:
        raise error
    return cast(T, found)


@contextmanager
def among_peers() -> Generator[None]:
    """Turns failed communication with a lost process into one error.

    Raises:
        TrainingError: If another process has ended, or never started.
    """
    try:
        yield
    except RuntimeError as error:
        told = str(error).strip().partition("\n")[0]
        exchange = isinstance(error, distributed.DistError) or any(word in told.lower() for word in _EXCHANGE)
        if not (exchange and int(os.environ.get("WORLD_SIZE", "1")) > 1):
            raise
        raise TrainingError(
            "Another process of this training has ended.",
            got=told,
            expected=f"{os.environ['WORLD_SIZE']} processes until the end",
            remedy="Check the output of that process; then use --resume with the same number of processes.",
        ) from error


_EXCHANGE = ("gloo", "nccl", "connection", "peer", "socket")
"""Phrases in communication errors, since not all backends have their own error class."""


def best_precision(accelerator: str) -> str:
    """bf16 if the hardware multiplies it natively (a GPU since Ampere, a CPU with AMX), else float32."""
    if accelerator == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if accelerator == "cpu" and has_amx() else "32-true"


def find_device(device: str) -> str:
    """The device of that name, or the best available for ``"auto"``.

    Raises:
        UsageError: If the device is not available.

    Example:
        >>> find_device("cpu")
        'cpu'
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available.get(device, False):
        here = ", ".join(name for name, there in available.items() if there)
        raise UsageError(f"The device {device!r} is not available.", got=device, expected=f"auto or one of: {here}")
    return device


def cuda_devices() -> list[int]:
    """The numbers of all GPUs: those with a random state of their own."""
    return list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []

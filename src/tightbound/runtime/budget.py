"""Limits on building models: sizes are checked before memory is allocated."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ..checkpoint import stored_shapes
from ..errors import CheckpointError, TightboundError, UsageError

__all__ = ["budget", "within_memory", "within_stored"]

SLACK = 2**22
"""Entries any tensor may have: masks, tables and intermediate results."""
CALLS = 20
"""Maximum operations per tensor of a new model; recipes need at most 6."""
MOST_TENSORS = 2_500
"""Maximum number of tensors of a new model."""


@contextmanager
def budget(entries: int, tensors: int, refusal: Callable[[str], TightboundError]) -> Generator[None]:
    """Limits the tensors created inside the block: each operation is first run on meta tensors.

    Args:
        entries: Total entries of the final tensors.
        tensors: Number of the final tensors.
        refusal: Makes the error from a description of the request.

    Raises:
        TightboundError: The refusal, if a tensor or all new ones together have more than twice as many entries, or too
            many tensors are created.

    Example:
        >>> from tightbound.errors import UsageError
        >>> with budget(100, 1, lambda got: UsageError("That is too large.", got=got)):
        ...     torch.zeros(10**6, 10**6)
        Traceback (most recent call last):
        tightbound.errors.UsageError: That is too large.
          got:      1,000,000,000,000 entries
    """
    with _Bounded(2 * entries + SLACK, CALLS * (tensors + 50), refusal):
        yield


@contextmanager
def within_stored(path: Path) -> Generator[None]:
    """Refuses to build a model larger than the tensors in the file of its weights.

    Args:
        path: The weights, or a checkpoint; only its header is read.

    Raises:
        CheckpointError: If the file cannot be read, or the model is larger.
    """
    shapes = stored_shapes(path).values()
    entries = sum(map(math.prod, shapes))

    def refusal(got: str) -> CheckpointError:
        told = f"the {entries:,} entries in {path.name}"
        return CheckpointError("The config describes a larger model than the weights.", got=got, expected=told)

    with budget(entries, len(shapes), refusal):
        yield


@contextmanager
def within_memory() -> Generator[None]:
    """Refuses to build a model that does not fit in this machine's memory.

    Raises:
        UsageError: If the model is larger.
    """
    memory = _physical_memory()

    def refusal(got: str) -> UsageError:
        told, remedy = f"at most {memory / 2**30:.0f} GiB of memory", "Choose smaller sizes, or fewer layers."
        return UsageError("This model does not fit in memory.", got=got, expected=told, remedy=remedy)

    with budget(memory // 8, MOST_TENSORS, refusal):
        yield


def _physical_memory() -> int:
    """Bytes of this machine's memory; 64 GiB if unknown."""
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return 2**36
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class _Bounded(TorchDispatchMode):
    def __init__(self, entries: int, calls: int, refusal: Callable[[str], TightboundError]) -> None:
        super().__init__()
        self.entries, self.calls, self.refusal, self.made = entries, calls, refusal, 0

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        given = [leaf.numel() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        size = 0 if _in_place(func) or (given and self._is_small(given, args)) else _size(func, args, kwargs)
        self.made += 0 if given else size
        self.calls -= 1
        if max(size, self.made) > self.entries or self.calls < 0:
            raise self.refusal(f"{max(size, self.made):,} entries" if self.calls >= 0 else "no end of tensors")
        return func(*args, **kwargs)

    def _is_small(self, given: list[int], args: Iterable[object]) -> bool:
        """Whether any broadcast of these tensors is within bounds."""
        return math.prod(given) <= self.entries and not _told(args)


def _in_place(func: OpOverload) -> bool:
    return func.__name__.partition(".")[0].endswith("_")


def _size(func: OpOverload, args: tuple[object, ...], kwargs: Mapping[str, object]) -> int:
    """Entries of an operation's result; 0 if unknown in advance."""
    where = {"device": torch.device("meta")} if "device" in kwargs else {}
    try:
        found = func(*tree_map(_without_content, args), **{**tree_map(_without_content, kwargs), **where})
    except (NotImplementedError, RuntimeError):
        return _told(args)
    return max((leaf.numel() for leaf in tree_leaves(found) if isinstance(leaf, Tensor)), default=0)


def _without_content(value: object) -> object:
    return value.to("meta") if isinstance(value, Tensor) else value


def _told(args: Iterable[object]) -> int:
    """The product of a list of sizes among the arguments."""
    sizes = (arg for arg in args if isinstance(arg, list | tuple) and arg and all(type(n) is int for n in arg))
    return max((math.prod(size) for size in sizes), default=0)

"""One word to the system's allocator."""

from __future__ import annotations

import torch

__all__ = ["keep_freed_memory"]


def keep_freed_memory() -> None:
    """Lets the C library keep freed memory for the next temporary, instead of fetching it from the system anew.

    glibc gives memory back as soon as twice the largest block that was ever freed is free, counting blocks up to
    32 MiB. Temporaries of a few MiB then cost a page fault for every 4 KiB: half of the time of an evaluation on a CPU.
    Freeing one block of that size, which is never written to, is how glibc learns.

    Example:
        >>> keep_freed_memory()
    """
    torch.empty(31 << 20, dtype=torch.uint8)

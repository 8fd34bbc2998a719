"""Choices that depend on the processor.

Every choice depends only on the processor's identification, never on a measurement, so that a run resumed on the same
machine computes the same bits.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import torch

from ..errors import UnknownName

__all__ = [
    "MatrixLibrary",
    "amd_family",
    "has_amx",
    "matrix_library",
    "multiplies_bf16",
    "processor_name",
    "slow_arithmetic",
]

MatrixLibrary = Literal["torch", "onednn"]
VARIABLE = "TIGHTBOUND_MATRICES"
ZEN5 = 26
"""The first AMD family with 512-bit wide AVX-512 units."""


@cache
def matrix_library() -> MatrixLibrary:
    """The faster library for large float32 matrix products on this CPU: torch's default, or oneDNN.

    torch uses MKL, which uses AVX-512 on Intel processors only. On other processors with 512-bit units (AMD since Zen
    5), oneDNN is up to twice as fast; with AVX2, and on Zen 4, which computes AVX-512 in two halves, it is slower. The
    environment variable ``TIGHTBOUND_MATRICES`` overrides the choice.

    Raises:
        UnknownName: If the variable names an unknown library.

    Example:
        >>> matrix_library() in ("torch", "onednn")
        True
    """
    named = os.environ.get(VARIABLE, "auto")
    if named == "torch" or named == "onednn":
        return named
    if named != "auto":
        raise UnknownName(f"library for {VARIABLE}", named, ("auto", *get_args(MatrixLibrary)))
    libraries = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512" and amd_family(description()) >= ZEN5
    return "onednn" if libraries and wide else "torch"


def multiplies_bf16() -> bool:
    """Whether this CPU has instructions for bf16; without them, arithmetic in bf16 is many times slower than float32.

    Example:
        >>> multiplies_bf16() in (True, False)
        True
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and (_cpu_has("avx512_bf16") or has_amx())


def has_amx() -> bool:
    """Whether this CPU multiplies tiles of bf16 natively, which is faster than float32.

    Example:
        >>> has_amx() in (True, False)
        True
    """
    return _cpu_has("amx_tile")


def _cpu_has(name: str) -> bool:
    told = getattr(torch.cpu, f"_is_{name}_supported", None)  # private, and not in every version
    return told is not None and bool(told())


def slow_arithmetic(precision: str, device: str) -> Iterator[str]:
    """Warnings about a precision that the processor does not support natively.

    Args:
        precision: Such as ``"32-true"``, ``"bf16"`` or ``"bf16-mixed"``.
        device: Such as ``"cpu"``.
    """
    if precision.startswith("bf16") and device == "cpu" and not multiplies_bf16():
        yield f"warning: this processor has no instructions for bf16: {precision} is many times slower than float32"


def description() -> str:
    """The system's description of the processor: a file on Linux, one line on Windows, empty elsewhere."""
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf8", errors="replace") if path.is_file() else platform.processor()


def processor_name() -> list[str]:
    """The name of the processor, if known.

    Example:
        >>> len(processor_name()) <= 1
        True
    """
    found = re.search(r"model name\s*:\s*(.+)", description())
    return [" ".join(found[1].split())] if found else []


def amd_family(told: str) -> int:
    """The family of an AMD processor, or 0 for others.

    Args:
        told: The system's description of the processor.

    Example:
        >>> amd_family("AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD")
        26
        >>> amd_family("vendor_id : GenuineIntel  cpu family : 6")
        0
    """
    family = re.search(r"family\s*:?\s*(\d+)", told, flags=re.IGNORECASE)
    return int(family[1]) if family and "AuthenticAMD" in told else 0

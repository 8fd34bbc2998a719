"""Quantisers: they map an encoder's output to codes, and codes to vectors."""

from __future__ import annotations

from .finite import FiniteScalarQuantizer
from .quantized import Quantized, Quantizer, Usage
from .vector import VectorQuantizer

__all__ = ["FiniteScalarQuantizer", "Quantized", "Quantizer", "Usage", "VectorQuantizer"]

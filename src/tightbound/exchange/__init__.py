"""Models in the formats of other libraries: written, and read without running anything in a file."""

from .autoencoder import Imported, frozen_format, write_run
from .compvis import read_compvis
from .diffusers import export_autoencoder, read_diffusers
from .inert import read_state
from .read import read_autoencoder

__all__ = [
    "Imported",
    "export_autoencoder",
    "frozen_format",
    "read_autoencoder",
    "read_compvis",
    "read_diffusers",
    "read_state",
    "write_run",
]

"""Run folders: the files of a training, and how they are read."""

from .folder import RunConfig, RunFolder, options_of
from .loading import load, load_run_data
from .readings import number

__all__ = ["RunConfig", "RunFolder", "load", "load_run_data", "number", "options_of"]

"""Run folders: the files of a training, and how they are read."""

from .folder import RunConfig, RunFolder, load, load_run_data, number, options_of

__all__ = ["RunConfig", "RunFolder", "load", "load_run_data", "number", "options_of"]

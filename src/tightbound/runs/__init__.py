"""Run folders: what a training leaves, and how it is read again."""

from .folder import RunConfig, RunFolder, load, load_run_data, number, options_of

__all__ = ["RunConfig", "RunFolder", "load", "load_run_data", "number", "options_of"]

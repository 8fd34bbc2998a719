"""An autoencoder from any of the formats that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import checkpoint
from ..errors import CheckpointError
from ..runs import load
from .autoencoder import CODEBOOK, Imported, codebook_of, frozen_format, networks_of
from .compvis import read_compvis
from .diffusers import CONFIG, read_diffusers

__all__ = ["read_autoencoder"]


def read_autoencoder(path: Path) -> Imported:
    """An autoencoder in a run, in a folder of diffusers, or in a checkpoint of latent-diffusion.

    Args:
        path: The folder or the file.

    Raises:
        CheckpointError: If it does not exist, is damaged, or of another family of models.
        UsageError: If it is a run of another recipe.
    """
    if path.is_dir():
        config = path / CONFIG
        own = config.is_file() and checkpoint.read_json(config).get("kind") == "run"
        return _of_run(path) if own else read_diffusers(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist.", expected="a run, a folder of diffusers, or a .ckpt file")
    return read_compvis(path)


def _of_run(run: Path) -> Imported:
    model = frozen_format(load(run))
    q: Any = model.posterior
    px: Any = model.likelihood
    state = networks_of(model)
    if (codebook := codebook_of(model)) is not None:
        state[CODEBOOK] = codebook
    known = model.codes is None and q.statistics.known
    mean, std = (q.statistics.mean, q.statistics.std) if known else (None, None)
    scale = px.log_scale.exp().item()
    return Imported(model.recipe, px.shape[0], min(px.shape[1:]), state, mean, std, scale, centred=q.network.centred)

"""What the formats of an autoencoder have in common: a recipe, a state with the names of diffusers, statistics."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__, checkpoint
from ..errors import CheckpointError, UsageError
from ..models import LatentVariableModel, Model
from ..models.latent import with_latents
from ..options.data_spec import DataSpec
from ..options.training import TrainingOptions
from ..recipes import KLAutoencoder, VQAutoencoder
from ..recipes.kl_autoencoder import GridAutoencoder
from ..runs import RunConfig, RunFolder
from ..runtime.budget import within_memory
from ..spec import flag, kind_of, typed

__all__ = ["Imported", "codebook_of", "frozen_format", "networks_of", "require_state", "write_run"]

CODEBOOK = "quantize.embedding.weight"


@dataclass(frozen=True, eq=False)
class Imported:
    """An autoencoder read from a file.

    Args:
        recipe: Its architecture as a recipe.
        channels: Channels of an image.
        size: The side of the images it was made for, in pixels.
        state: Its tensors, by the names of diffusers.
        mean: Mean of each latent channel, where the file has it.
        std: Standard deviation of each latent channel, where the file has it.
        scale: Scale of the likelihood, b of images in [0, 1], where the file has it.
        loss: Tensors of the losses it was trained with, by their names in the file.
        centred: Whether it takes images in [-1, 1]; else values as they are in the data of its run.
    """

    recipe: GridAutoencoder
    channels: int
    size: int
    state: dict[str, Tensor]
    mean: Tensor | None = None
    std: Tensor | None = None
    scale: float | None = None
    loss: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    centred: bool = True

    @torch.no_grad()
    def load_into(self, model: LatentVariableModel, source: object) -> None:
        """Copies the weights into a model of this recipe.

        Args:
            model: The model.
            source: Where the weights come from, for errors.

        Raises:
            CheckpointError: If a name is missing, unexpected, or of the wrong shape.
        """
        self._require_architecture(model, source)
        require_state(model, self.state, source)
        self._require_range(model, source)
        for name, tensor in networks_of(model).items():
            tensor.copy_(self.state[name])
        posterior: Any = model.posterior
        if model.codes is not None:
            posterior.quantizers[0].take(self.state[CODEBOOK])
        elif self.std is not None:
            posterior.statistics.assume(torch.zeros_like(self.std) if self.mean is None else self.mean, self.std)
        likelihood: Any = model.likelihood
        if self.scale is not None and likelihood.log_scale.requires_grad:
            likelihood.log_scale.fill_(math.log(self.scale))

    def _require_architecture(self, model: LatentVariableModel, source: object) -> None:
        mine, theirs = model.recipe, self.recipe
        if type(mine) is not type(theirs):
            kinds = {"got": f"recipe {kind_of(mine)}", "expected": f"recipe {kind_of(theirs)}"}
            raise UsageError(f"The autoencoder in {source} is of another recipe.", **kinds)
        other = [name for name, value in theirs.architecture.items() if mine.architecture[name] != value]
        if other:
            raise UsageError(
                f"The autoencoder in {source} has another architecture than this recipe.",
                got=", ".join(f"{flag(name)} {typed(mine.architecture[name])}" for name in other),
                expected=", ".join(f"{flag(name)} {typed(theirs.architecture[name])}" for name in other),
                remedy="Leave these options out: with --init they are those of the file.",
            )

    def _require_range(self, model: LatentVariableModel, source: object) -> None:
        posterior: Any = model.posterior
        if posterior.network.centred != self.centred:
            ranges = {True: "images in [-1, 1], from values with levels", False: "values as they are"}
            raise UsageError(
                f"The autoencoder in {source} was trained on values in another range.",
                got=f"data seen as {ranges[posterior.network.centred]}",
                expected=ranges[self.centred],
                remedy="Store the images as files or uint8, or declare --levels.",
            )

    def model(self, source: object) -> LatentVariableModel:
        """A new model with these weights.

        Args:
            source: Where they come from, for errors and the name of its data.
        """
        spec = DataSpec(str(source), (self.channels, self.size, self.size), levels=256)
        with within_memory():
            model = self.recipe.build(spec)
        self.load_into(model, source)
        model.new = False
        return model.eval()


def networks_of(model: LatentVariableModel) -> dict[str, Tensor]:
    """The tensors of encoder and decoder by the names of diffusers; they are the model's own.

    Args:
        model: The model of a recipe kl-autoencoder or vq-autoencoder.
    """
    parts: tuple[Any, Any] = (model.posterior, model.likelihood)
    return {name: tensor for part in parts for name, tensor in part.network.state_dict(keep_vars=False).items()}


def codebook_of(model: LatentVariableModel) -> Tensor | None:
    """The vectors of the codes, ``(K, d)``; None without codes.

    Args:
        model: The model of a recipe kl-autoencoder or vq-autoencoder.
    """
    if model.codes is None:
        return None
    posterior: Any = model.posterior
    posterior.quantizers[0].started.fill_(True)
    return posterior.quantizers[0].codebook.detach()


def require_state(model: LatentVariableModel, state: Mapping[str, Tensor], source: object) -> None:
    """Refuses a state with other names or shapes than the model's.

    Args:
        model: The model.
        state: Tensors by the names of diffusers.
        source: Where they come from.

    Raises:
        CheckpointError: If a name is missing, unexpected, or of the wrong shape.
    """
    own = networks_of(model)
    if (codebook := codebook_of(model)) is not None:
        own[CODEBOOK] = codebook
    if misfit := checkpoint.misfits(own, state):
        raise CheckpointError(
            f"{source} does not fit the model that it describes.",
            got=misfit,
            expected="exactly the tensors of its architecture",
            remedy="Check that the file is complete, and of this model.",
        )


def frozen_format(model: Model) -> LatentVariableModel:
    """The model, which must be an autoencoder whose networks have the names of the file formats.

    Raises:
        UsageError: If it is another.
    """
    if not isinstance(model.recipe, GridAutoencoder):
        got = "a model built by hand" if model.recipe is None else f"recipe {kind_of(model.recipe)}"
        raise UsageError(
            "Only an autoencoder of latent diffusion has the format of another library.",
            got=got,
            expected=f"a run of recipe {kind_of(KLAutoencoder())} or {kind_of(VQAutoencoder())}",
            remedy="Train one: tightbound train kl-autoencoder --data DATA --out RUN",
        )
    return with_latents(model)


def write_run(model: LatentVariableModel, out: Path) -> RunFolder:
    """Writes a run folder for a model that was read from a file.

    Args:
        model: The model.
        out: The folder.

    Raises:
        UsageError: If it holds a run already.
    """
    folder = RunFolder(out)
    if folder.begun or folder.config_file.exists():
        raise UsageError("The folder holds a run already.", got=out, remedy="Choose another --out.")
    data = model.data_spec
    if data is None:
        raise UsageError("A model without a data spec cannot be written as a run.")
    folder.write_config(RunConfig(data, TrainingOptions(), model.recipe, None, __version__))
    checkpoint.write(folder.weights, checkpoint.tensors_of(model))
    return folder

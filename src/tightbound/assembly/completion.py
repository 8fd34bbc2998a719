"""Models that complete pictures."""

from __future__ import annotations

import math
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import checkpoint
from ..conditions import PartCondition, observed_part
from ..errors import UsageError
from ..likelihoods.completion import CompletionLikelihood, Filled, Nothing, Pretrained
from ..models.latent import LatentVariableModel
from ..networks import MLP, Observed
from ..options.data_spec import DataSpec
from ..posteriors import EmptyPosterior
from ..priors import ConditionalNormal, StandardNormal
from ..recipes import Completion, CompletionBaseline
from ..spec import from_json
from . import parts
from .base import assemble

__all__ = ["completion", "completion_baseline"]


@assemble.register(CompletionBaseline)
def completion_baseline(recipe: CompletionBaseline, data: DataSpec) -> LatentVariableModel:
    """A network from what is observed to what is missing."""
    px = _predicting(recipe, recipe.hidden, data)
    model = LatentVariableModel(StandardNormal(0), px, EmptyPosterior(data.shape))
    model.condition = _part(data, recipe.quadrants)
    return model


@assemble.register(Completion)
def completion(recipe: Completion, data: DataSpec) -> LatentVariableModel:
    """A recognition, a conditional prior and a generation network."""
    condition = _part(data, recipe.quadrants)
    q = parts.posterior(recipe, data)
    q.embedding = Nothing()  # the whole picture tells which part of it is observed
    p = _prior(recipe, data) if recipe.prior == "conditional" else StandardNormal(recipe.latent_dim)
    px = _completing(parts.likelihood(recipe, data, 2 * data.dimensions), data, recipe.quadrants)
    model = LatentVariableModel(p, px, q)
    model.condition = condition
    return model


def _completing(px: Any, data: DataSpec, quadrants: int) -> CompletionLikelihood:
    """Of the missing pixels alone, from a likelihood of all of them that is shown what is observed."""
    px.embedding = Observed(data.dimensions)
    missing = int((~observed_part(quadrants, *data.shape[1:])).sum()) * data.shape[0]
    return CompletionLikelihood(px, missing)


def _predicting(recipe: CompletionBaseline | Completion, hidden: tuple[int, ...], data: DataSpec) -> Any:
    """The likelihood of the missing pixels given the others alone, without a latent."""
    seen = 2 * data.dimensions
    make = lambda parameters: MLP(0, parameters * data.dimensions, hidden[::-1], recipe.activation, seen)
    return _completing(parts.likelihood_on(make, (0,), data, recipe.likelihood), data, recipe.quadrants)


def _prior(recipe: Completion, data: DataSpec) -> Any:
    size = 2 * math.prod(data.shape)
    network = MLP(size, 2 * recipe.latent_dim, recipe.hidden, recipe.activation)
    if not recipe.baseline:
        return ConditionalNormal(network, Observed(data.dimensions), size)
    predicted = Pretrained(_predicting(recipe, recipe.baseline_hidden, data), partial(_trained, recipe, data))
    return ConditionalNormal(network, Filled(predicted), size)


def _trained(recipe: Completion, data: DataSpec) -> dict[str, Tensor]:
    """The weights of the baseline's likelihood, once its run is known to be what the recipe says.

    Raises:
        UsageError: If it is no such run, or of other data or another network.
        CheckpointError: If it is not complete.
    """
    run = Path(recipe.baseline)
    if not (run / "config.json").is_file():
        raise _no_baseline(f"no run in {run}")
    config = checkpoint.read_json(run / "config.json")
    first, spec = (part if isinstance(part := config.get(name), dict) else {} for name in ("recipe", "data_spec"))
    if first.get("kind") != "completion-baseline":
        raise _no_baseline(f"a run of {first.get('kind') or 'a model put together by hand'}")
    _check_options(recipe, from_json(first, CompletionBaseline))
    _check_data(data, from_json(spec, DataSpec))
    found = checkpoint.read(run / "model.safetensors")
    return {name.removeprefix("likelihood."): v for name, v in found.items() if name.startswith("likelihood.")}


def _no_baseline(got: str) -> UsageError:
    return UsageError(
        "The baseline is a run of recipe completion-baseline.",
        got=got,
        remedy="Train one: tightbound train completion-baseline --data DATA --out RUN, and give --baseline RUN.",
    )


def _check_options(recipe: Completion, baseline: CompletionBaseline) -> None:
    """Refuses the network of a baseline that sees, or gives, something else."""
    same = ("quadrants", "likelihood", "activation")
    pairs = {f"--{name}": (getattr(baseline, name), getattr(recipe, name)) for name in same}
    pairs["--baseline-hidden"] = _words(baseline.hidden), _words(recipe.baseline_hidden)
    theirs, mine = (
        ", ".join(f"{name} {pair[i]}" for name, pair in pairs.items() if pair[0] != pair[1]) for i in range(2)
    )
    if theirs:
        raise UsageError(
            "The baseline was trained with other options.",
            got=f"{theirs}, in {recipe.baseline}",
            expected=mine,
            remedy="Give this run the options of its baseline, or train a baseline with those of this run.",
        )


def _words(sizes: tuple[int, ...]) -> str:
    return " ".join(map(str, sizes))


def _check_data(mine: DataSpec, theirs: DataSpec) -> None:
    """Refuses a baseline that was trained on other data."""
    names = [field.name for field in fields(DataSpec) if getattr(mine, field.name) != getattr(theirs, field.name)]
    if names:
        raise UsageError(
            "The baseline was trained on other data.",
            got=", ".join(f"{name} {getattr(theirs, name)!r}" for name in names),
            expected=", ".join(f"{name} {getattr(mine, name)!r}" for name in names),
            remedy="Train a baseline on this data, with the same options of the data.",
        )


def _part(data: DataSpec, quadrants: int) -> Any:
    if not data.image:
        raise UsageError("Only pictures have quadrants.", got=f"examples of shape {data.shape}", remedy="Use images.")
    return PartCondition(data.shape, quadrants)

"""Completing pictures: structured output, and the network without a latent that it is held against."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import UsageError
from ..options.data_spec import DataSpec
from ..spec import from_json, register
from .base import Recipe, check_sizes, register_version_2
from .vae import VAE, Activation

if TYPE_CHECKING:
    from torch import Tensor

    from ..models import LatentVariableModel, PixelModel, Terms

__all__ = ["Completion", "CompletionBaseline"]

Quadrants = Literal[1, 2, 3]
Pixels = Literal["auto", "bernoulli", "gaussian", "discretized-logistic", "categorical"]


@register("completion-baseline")
@dataclass(frozen=True)
class CompletionBaseline(Recipe):
    r"""The missing part of a picture predicted pixel by pixel, without a latent: what recipe completion starts from.

    .. math:: \max \log p(x_m \mid x_o) = \sum_{i \in m} \log p(x_i \mid x_o)

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015).

    Raises:
        UsageError: If an option is out of range, or the data are no pictures.

    Example:
        >>> from tightbound.data import DataSpec
        >>> model = CompletionBaseline(hidden=(16,)).build(DataSpec("digits", shape=(1, 8, 8), levels=2))
        >>> import torch
        >>> c = model.condition.seen(torch.ones(5, 1, 8, 8))
        >>> model(c).sample().shape
        torch.Size([5, 1, 8, 8])
    """

    first_options: ClassVar[tuple[str, ...]] = ("quadrants", "hidden")

    quadrants: Quadrants = 1
    """How much is seen: the bottom left quadrant (1), the left half (2), all but the bottom right quadrant (3)."""
    hidden: tuple[int, ...] = (500, 500)
    """Sizes of the hidden layers."""
    activation: Activation = "relu"
    """Nonlinearity between layers."""
    likelihood: Pixels = "auto"
    """Distribution of a missing pixel, as for recipe vae."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(hidden=self.hidden)

    def assemble(self, data: DataSpec) -> PixelModel:
        from ..models import PixelModel

        model = PixelModel(_predicting(self, self.hidden, data))
        model.condition = _part(data, self.quadrants)
        return model

    def training_objective(self, terms: Terms, beta: float | Tensor, examples: int) -> Tensor:
        return self.bound(terms)

    @property
    def warming(self) -> str:
        return ""

    def bound(self, terms: Terms) -> Tensor:
        from ..objectives import reconstruction

        return reconstruction(terms)


@register_version_2("completion")
@dataclass(frozen=True)
class Completion(VAE):
    r"""Pictures completed from a part, by a recognition, a conditional prior and a generation network.

    .. math:: \log p(x_m \mid x_o) \ge \mathbb{E}_{q(z \mid x)} \log p(x_m \mid z, x_o) -
        \mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x_o))

    The prior network sees the observed part filled up with the prediction of a baseline network, which is trained
    first (recipe completion-baseline) and held fixed.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015).

    Raises:
        UsageError: If an option is out of range, the data are no pictures, or, once the model takes over the baseline's
            weights, that run is of other data or another network.

    Example:
        >>> from tightbound.data import DataSpec
        >>> recipe = Completion(latent_dim=2, hidden=(16,), baseline_hidden=(16,))
        >>> model = recipe.build(DataSpec("digits", shape=(1, 8, 8), levels=2))
        >>> import torch
        >>> x = torch.ones(5, 1, 8, 8)
        >>> model(model.condition.seen(x)).terms(x).kl().shape
        torch.Size([5])
    """

    first_options: ClassVar[tuple[str, ...]] = ("quadrants", "latent_dim")

    latent_dim: int = 200
    """Size of the latent vector z."""
    hidden: tuple[int, ...] = (500, 500)
    """Sizes of the hidden layers of all networks."""
    network: Literal["mlp"] = "mlp"
    """Kind of the networks."""
    likelihood: Pixels = "auto"
    """Distribution of a missing pixel, as for recipe vae."""
    posterior: Literal["gaussian", "cholesky", "iaf", "spline"] = "gaussian"
    """q(z given x), as for recipe vae."""
    prior: Literal["conditional", "normal"] = "conditional"  # pyright: ignore[reportIncompatibleVariableOverride]
    """p(z given the observed part): a gaussian that it gives, or one that does not depend on it."""
    quadrants: Quadrants = 1
    """How much is seen: the bottom left quadrant (1), the left half (2), all but the bottom right quadrant (3)."""
    baseline: str = ""
    """Run of recipe completion-baseline, on the same data with the same quadrants, likelihood and activation, whose
    network predicts for the prior; none: an untrained one would only harm,
    so the prior then sees the observed part alone."""
    baseline_hidden: tuple[int, ...] = (500, 500)
    """Sizes of the hidden layers of that network, as its run has them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(latent_dim=self.latent_dim, baseline_hidden=self.baseline_hidden)

    def assemble(self, data: DataSpec) -> LatentVariableModel:
        from ..assembly import parts
        from ..likelihoods.completion import CompletionLikelihood, Nothing
        from ..models.latent import LatentVariableModel
        from ..priors import StandardNormal

        condition = _part(data, self.quadrants)
        q = parts.posterior(self, data)
        q.embedding = Nothing()  # the whole picture tells which part of it is observed
        p = _prior(self, data) if self.prior == "conditional" else StandardNormal(self.latent_dim)
        px = CompletionLikelihood(*_shown(parts.likelihood(self, data, 2 * data.dimensions), data, self.quadrants))
        model = LatentVariableModel(p, px, q)
        model.condition = condition
        return model


def _shown(px: Any, data: DataSpec, quadrants: Quadrants) -> tuple[Any, int]:
    """A likelihood of all pixels, shown what is observed, and how many are missing."""
    from ..conditions import observed_part
    from ..networks import Observed

    px.embedding = Observed(data.dimensions)
    return px, int((~observed_part(quadrants, *data.shape[1:])).sum()) * data.shape[0]


def _predicting(recipe: CompletionBaseline | Completion, hidden: tuple[int, ...], data: DataSpec) -> Any:
    """The likelihood of the missing pixels given the others alone, without a latent."""
    from ..assembly.parts import likelihood_on
    from ..likelihoods import Prediction
    from ..networks import MLP

    seen = 2 * data.dimensions
    make = lambda parameters: MLP(0, parameters * data.dimensions, hidden[::-1], recipe.activation, seen)
    return Prediction(*_shown(likelihood_on(make, (0,), data, recipe.likelihood), data, recipe.quadrants))


def _prior(recipe: Completion, data: DataSpec) -> Any:
    from ..likelihoods.completion import Filled, Pretrained
    from ..networks import MLP, Observed
    from ..priors import ConditionalNormal

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
    from .. import checkpoint

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


def _part(data: DataSpec, quadrants: Quadrants) -> Any:
    from ..conditions import PartCondition

    if not data.image:
        raise UsageError("Only pictures have quadrants.", got=f"examples of shape {data.shape}", remedy="Use images.")
    return PartCondition(data.shape, quadrants)

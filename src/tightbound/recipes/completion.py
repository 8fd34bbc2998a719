"""Completing images: structured output prediction, and its baseline without a latent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..options.direct import LogLikelihood
from ..options.parts import Activation, require_sizes
from ..spec import register
from .base import Recipe, Stage
from .continuous import ContinuousRecipe
from .versions import register_version_3

__all__ = ["Completion", "CompletionBaseline", "Observing"]

Pixels = Literal["auto", "bernoulli", "gaussian", "discretized-logistic", "categorical"]


@dataclass(frozen=True)
class Observing:
    """Abstract: which part of an image is observed."""

    quadrants: Literal[1, 2, 3] = 1
    """Observed quadrants: 1 (bottom left), 2 (left half) or 3 (all but the bottom right)."""


@register("completion-baseline")
@dataclass(frozen=True)
class CompletionBaseline(Observing, Recipe):
    r"""The missing part of an image, predicted pixel by pixel without a latent: the baseline of recipe completion.

    .. math:: \max \log p(x_m \mid x_o) = \sum_{i \in m} \log p(x_i \mid x_o)

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015).

    Raises:
        UsageError: If an option is out of range, or the data are not images.

    Example:
        >>> from tightbound.data import DataSpec
        >>> model = CompletionBaseline(hidden=(16,)).build(DataSpec("digits", shape=(1, 8, 8), levels=2))
        >>> import torch
        >>> from tightbound.conditions import Given
        >>> c = Given({"part": model.condition.seen(torch.ones(5, 1, 8, 8))})
        >>> model(c).sample().shape
        torch.Size([5, 1, 8, 8])
    """

    first_options: ClassVar[tuple[str, ...]] = ("quadrants", "hidden")

    hidden: tuple[int, ...] = (500, 500)
    """Sizes of the hidden layers."""
    activation: Activation = "relu"
    """Nonlinearity between layers."""
    likelihood: Pixels = "auto"
    """Distribution of a missing pixel, as for recipe vae."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(hidden=self.hidden)

    @property
    def training_objective(self) -> LogLikelihood:
        return LogLikelihood()


@register_version_3("completion")
@dataclass(frozen=True)
class Completion(Observing, ContinuousRecipe):
    r"""Images completed from an observed part, by a recognition, a conditional prior and a generation network.

    .. math:: \log p(x_m \mid x_o) \ge \mathbb{E}_{q(z \mid x)} \log p(x_m \mid z, x_o) -
        \mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x_o))

    The prior network sees the observed part completed by the prediction of a baseline network, which is trained first
    (recipe completion-baseline) and frozen.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015).

    Raises:
        UsageError: If an option is out of range, the data are not images, or the baseline's run has other data or
            another network.

    Example:
        >>> from tightbound.data import DataSpec
        >>> recipe = Completion(latent_dim=2, hidden=(16,), baseline_hidden=(16,))
        >>> model = recipe.build(DataSpec("digits", shape=(1, 8, 8), levels=2))
        >>> import torch
        >>> from tightbound.conditions import Given
        >>> x = torch.ones(5, 1, 8, 8)
        >>> model(Given({"part": model.condition.seen(x)})).terms(x).kl().shape
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
    prior: Literal["conditional", "normal"] = "conditional"
    """p(z given the observed part): a gaussian that depends on the observed part, or one that does not."""
    baseline: str = ""
    """Run of recipe completion-baseline, on the same data with the same quadrants, likelihood and activation, whose
    network predicts for the prior; empty: the prior sees only the observed part."""
    baseline_hidden: tuple[int, ...] = (500, 500)
    """Sizes of the hidden layers of that network, as in its run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(latent_dim=self.latent_dim, baseline_hidden=self.baseline_hidden)

    @property
    def stages(self) -> dict[str, Stage]:
        same = {"quadrants": self.quadrants, "activation": self.activation, "likelihood": self.likelihood}
        predicting = CompletionBaseline(hidden=self.baseline_hidden, **same)
        return {"baseline": Stage(predicting, self.baseline)} if self.baseline and self.prior == "conditional" else {}

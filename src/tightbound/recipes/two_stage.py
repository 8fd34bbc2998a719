"""Two-stage models: a better prior, fitted to the latents of a trained model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import UsageError
from ..options.choices import CHOICE
from ..options.objectives import LogPrior
from ..options.priors import FlowPrior, LatentSpace, PixelCNNPrior, SecondPrior
from ..spec import kind_of, register, registered, upgrade
from .base import Recipe, Stage

__all__ = ["TwoStage", "natural_prior"]

NATURAL: dict[LatentSpace, SecondPrior] = {"codes": PixelCNNPrior(), "vector": FlowPrior()}
"""The default prior for each kind of latents."""


def natural_prior(recipe: Recipe) -> SecondPrior:
    """The default prior for the latents of a recipe's model.

    Raises:
        UsageError: If the recipe does not declare its kind of latents.

    Example:
        >>> from tightbound.recipes import VAE
        >>> natural_prior(VAE())
        FlowPrior(transforms=4)
    """
    if recipe.latent_space not in NATURAL:
        raise UsageError(
            "This recipe declares no latents to fit a prior to.",
            got=f"a first stage of recipe {kind_of(recipe)}",
            remedy="Train one with latents, such as recipe 'vae'.",
        )
    return NATURAL[recipe.latent_space]


@register("two-stage", version=2)
@dataclass(frozen=True)
class TwoStage(Recipe):
    r"""A trained model with a new prior fitted to its latents: `tightbound fit-prior`.

    .. math:: \max_{p(z \mid c)} \mathbb{E}_{q(z \mid x)} \log p(z \mid c)

    The posterior is frozen; for codes it becomes a point mass at its mode, so the same code of an example is used for
    training, evaluation and decoding (like the image tokens of DALL-E).

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017).
        Diagnosing and Enhancing VAE Models (Dai and Wipf, 2019).
        Zero-Shot Text-to-Image Generation (Ramesh et al., 2021).

    Args:
        first: The trained first-stage model.
        prior: The new prior.

    Raises:
        UsageError: If the prior does not fit the latents.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.options.priors import MixturePrior
        >>> from tightbound.recipes import VAE
        >>> recipe = TwoStage(Stage(VAE(latent_dim=2, hidden=(8,))), MixturePrior(components=5))
        >>> recipe.build(DataSpec("digits", shape=(1, 8, 8), levels=17))().sample((3,)).shape
        torch.Size([3, 1, 8, 8])
    """

    by_itself: ClassVar[bool] = False

    first: Stage
    """The trained first-stage model."""
    prior: SecondPrior = dataclasses.field(metadata=CHOICE)
    """The new prior."""

    @property
    def ema(self) -> float:
        return self.prior.ema

    @property
    def training_objective(self) -> LogPrior:
        return LogPrior()

    @property
    def stages(self) -> dict[str, Stage]:
        return {"first": self.first}


@upgrade("two-stage", version=1)
def _of_one_wide_class(fields: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had flat fields for recipe, training and data of the first stage, and the options of all priors."""
    first = {new: fields[old] for old, new in _FIRST.items() if old in fields}
    options = dict(fields.get("second", {}))
    kind = _kind(options.get("prior", "auto"), first["recipe"])
    cls = registered(SecondPrior)[kind]
    own = {f.name: options[f.name] for f in dataclasses.fields(cls) if f.name in options}
    return {"first": {"kind": "stage", "version": 1, **first}, "prior": {"kind": kind, "version": 1, **own}}


_FIRST = {"first": "recipe", "first_training": "training", "first_data": "data"}


def _kind(name: str, first: dict[str, Any]) -> str:
    """The kind of the named prior, or of the default for the first stage's latents."""
    return kind_of(NATURAL[registered(Recipe)[first["kind"]].latent_space]) if name == "auto" else f"{name}-prior"
